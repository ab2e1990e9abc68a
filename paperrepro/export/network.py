"""The network as every format gets it: fused, with its normalisation inside, and its own answers.

A file takes images of 0 to 1 (Core ML: pictures) and normalises them; nothing is left to do in the
application. Its outputs are `logits`, `(N, classes)` or of a segmenter `(N, classes, H, W)`, or, of
a network that returns several maps, `map1`, `map2`, ... Beside it stands
`NAME.golden.safetensors`, an image and PyTorch's outputs, with which any device can be compared.
"""

import copy
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ..files import remove, remove_partial
from ..models import IMAGENET
from ..models.layers import LayerScale
from ..reparam import reparameterize
from ..results import need_finite
from ..shapes import Shapes

FOLDING_LIMIT = 1e-6  # of the outputs' norm, in float64
Normalization = tuple[Sequence[float], Sequence[float]]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Preparation:
    """What a file does to its images of `size` pixels: subtracts `mean` from values of 0 to 1 and
    divides by `std`, channel by channel; nothing where both are empty."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Ready:
    """A network as a file gets it, and what the file must answer.

    Attributes:
        network: re-parameterized, on the CPU, in float32.
        image, outputs: the golden image, uint8 `(1, C, size, size)`, and PyTorch's outputs for it.
    """

    preparation: Preparation
    network: nn.Module
    image: Tensor
    outputs: Outputs


class WithNormalization(nn.Module):
    """A network with the normalisation before it and, where one is asked for, an answer after it.

    Images `(N, C, H, W)` of 0 to 1 to a tuple of its outputs. With `answer` the logits of a
    classifier become probabilities, those of a segmenter the class of each pixel, `(N, H, W)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, preparation: Preparation, *, answer: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize = bool(preparation.mean)
        if self.normalize:
            self.register_buffer("mean", torch.tensor(preparation.mean).reshape(-1, 1, 1))
            self.register_buffer("std", torch.tensor(preparation.std).reshape(-1, 1, 1))
        self.answer = answer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.normalize:
            images = (images - self.mean) / self.std
        outputs = tuple(by_name(self.network(images)).values())
        return tuple(map(answer_of, outputs)) if self.answer else outputs


def answer_of(logits: Tensor) -> Tensor:
    """Probabilities `(N, classes)`, or of a map of logits the class of each pixel `(N, H, W)`."""
    return logits.softmax(1) if logits.ndim == 2 else logits.argmax(1)


def by_name(outputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> Outputs:
    """What a network gives, each output under the name that it has in a file."""
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    if isinstance(outputs, Mapping):
        return {str(name): output for name, output in outputs.items()}
    return {f"map{i}": output for i, output in enumerate(outputs, 1)}


def ready(
    model: nn.Module,
    size: int,
    normalize: bool | Normalization,
    labels: Sequence[str] | None,
) -> Ready:
    """The network for a file, checked; the arguments as `export_coreml` takes them.

    Raises:
        ValueError: as `normalization`, `check_network`, `reference` and `check_labels` do.
    """
    preparation = Preparation(size, *normalization(model, normalize))
    network = reparameterize(model).cpu().float()
    image = golden_image(size, channels_of(model))
    check_network(model, preparation, image)
    outputs = reference(network, preparation, image)
    check_labels(labels, outputs)
    return Ready(preparation, network, image, outputs)


def channels_of(model: nn.Module) -> int:
    """The channels of its images: what it says, else three."""
    return int(getattr(model, "in_chans", 3))


def reference(network: nn.Module, preparation: Preparation, images: Tensor) -> Outputs:
    """PyTorch's outputs for images `(N, C, H, W)` of 0 to 255.

    Raises:
        ValueError: the network does not take them, gives something else than logits or maps, or
            values that are not finite.
    """
    normalized = WithNormalization(network, preparation)
    try:
        with torch.no_grad():
            rows = [
                by_name(network(prepared(image, normalized))) for image in images.unsqueeze(1) / 255
            ]
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the network takes no images of {preparation.size} pixels: {first_line(error)}"
        ) from error
    outputs = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    for name, output in outputs.items():
        if output.ndim not in (2, 4):
            raise ValueError(
                f"the network gives {tuple(output.shape)}, not logits (N, classes) or a map "
                "(N, channels, H, W)"
            )
        if not output.isfinite().all():
            raise ValueError(
                f"{name} of the network is not finite in PyTorch already: its weights or the "
                "statistics of BatchNorm hold inf or nan, or its values outgrow float32; load "
                "other weights, or calibrate a fresh network (paperrepro.export.calibrate)"
            )
    return outputs


def check_network(model: nn.Module, preparation: Preparation, images: Tensor) -> None:
    """Whether its numbers are finite, and its re-parameterized form is the same in float64.

    Raises:
        ValueError: naming the tensor, or by how much the two forms differ.
    """
    need_finite(model.state_dict().items())
    whole = copy.deepcopy(model).cpu().double().eval()
    expected = reference(whole, preparation, images.double())
    found = reference(reparameterize(whole), preparation, images.double())
    error = relative_error(found, expected)
    if not error <= FOLDING_LIMIT:
        raise ValueError(
            f"the re-parameterized network differs from the network by {error:.2g} of its output's "
            "norm; paperrepro.reparam.explain(model) lists what was folded"
        )


def prepared(images: Tensor, normalized: WithNormalization) -> Tensor:
    return (images - normalized.mean) / normalized.std if normalized.normalize else images


@torch.no_grad()
def calibrate(model: nn.Module, images: Tensor, normalize: bool | Normalization = True) -> None:
    """Gives a freshly initialised network the statistics of images, in place.

    A fresh network's BatchNorm leaves its input as it is, and the values grow from layer to layer:
    MobileOne-S0's logits reach 35,000 and leave float16. Afterwards BatchNorm's mean and variance
    are those of the images. Layer scales become 0.5, so that every branch counts. In networks
    without layer scales BatchNorm's biases become 1: with half of each layer's ReLUs off they would
    multiply rounding from layer to layer. For a network that was trained this is wrong.

    Args:
        images: uint8, `(N, C, H, W)`.
        normalize: as `export_coreml` takes it.
    """
    scaled = any(isinstance(layer, LayerScale) for layer in model.modules())
    model.eval()
    for layer in model.modules():
        if isinstance(layer, LayerScale):
            layer.weight.fill_(0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.bias.fill_(0 if scaled else 1)
            layer.momentum = None
            layer.train()
    mean, std = normalization(model, normalize)
    normalized = WithNormalization(model, Preparation(images.shape[-1], mean, std))
    model(prepared(images / 255, normalized))
    model.eval()


def normalization(
    model: nn.Module, normalize: bool | Normalization
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; empty for none.

    A network for images of one channel gets the means over the channels where only three are known.
    """
    channels = channels_of(model)
    if normalize is False:
        return (), ()
    if normalize is True:
        preparation = getattr(model, "input", None)
        pair = (preparation.mean, preparation.std) if preparation else IMAGENET
        if channels == 1 and len(pair[0]) == 3:
            pair = (sum(pair[0]) / 3,), (sum(pair[1]) / 3,)
    else:
        pair = normalize
    mean, std = (tuple(map(float, values)) for values in pair)
    if not len(mean) == len(std) == channels or min(std) <= 0:
        count = {1: "one mean and a positive deviation", 3: "three means and positive deviations"}
        wanted = count.get(channels, f"{channels} means and as many positive deviations")
        raise ValueError(f"normalize is {normalize}; it takes {wanted}")
    return mean, std


def relative_error(outputs: Tensor | Outputs, expected: Tensor | Outputs) -> float:
    """The largest relative L2 error of an image's output."""
    if isinstance(expected, Tensor):
        assert isinstance(outputs, Tensor)
        difference = (outputs.double() - expected.double()).flatten(1).norm(dim=1)
        return (difference / expected.double().flatten(1).norm(dim=1)).max().item()
    assert not isinstance(outputs, Tensor)
    errors = [relative_error(outputs[name], expected[name]) for name in expected]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def check_finite(error: float, path: Path, remedy: str) -> None:
    """Refuses a file whose outputs are not finite."""
    if not math.isfinite(error):
        raise ValueError(
            f"{path} would give values that are not finite, and was not kept: {remedy}"
        )


def check_labels(labels: Sequence[str] | None, outputs: Outputs) -> None:
    """Refuses names of classes that are not one for each."""
    if labels is None:
        return
    logits = outputs.get("logits")
    if logits is None:
        raise ValueError("labels are for logits, and the network gives maps: leave them out")
    if len(labels) != logits.shape[1]:
        raise ValueError(f"{len(labels)} labels for a network of {logits.shape[1]} classes")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(
            f"the label {twice[0]!r} stands for more than one class; answers are listed by label, "
            "so make them different"
        )


def golden_image(size: int, channels: int) -> Tensor:
    """A drawn shape, uint8 `(1, C, size, size)`."""
    image = Shapes(1, size, seed=0)[0][0].unsqueeze(0)
    return (
        image if channels == 3 else image.float().mean(1, True).byte().expand(-1, channels, -1, -1)
    )


def save_golden(path: Path, made: Ready, labels: Sequence[str] | None) -> None:
    """Writes an image with PyTorch's outputs, the preparation and the labels in its metadata."""
    facts = {"preparation": vars(made.preparation), "labels": list(labels or ())}
    tensors = {"image": made.image, **made.outputs}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(contiguous, {"paperrepro": json.dumps(facts)}))


def golden_path(path: Path) -> Path:
    """Where the golden input and output of a file stand; a package's under its plain name."""
    name = path.stem if path.suffix in (".mlpackage", ".aimodel") else path.name
    return path.with_name(f"{name}.golden.safetensors")


def check_path(path: Path, suffix: str, overwrite: bool) -> None:
    """Refuses a path of another ending, or where a file is already."""
    if path.suffix != suffix:
        kind = "a package" if suffix == ".mlpackage" else "the file"
        raise ValueError(f"{path} is no name for {kind}: it must end in {suffix}")
    for output in (path, golden_path(path)):
        if output.exists() and not overwrite:
            raise FileExistsError(f"{output} exists; choose another path, or overwrite it")


@contextmanager
def writing(path: Path, suffix: str, overwrite: bool) -> Iterator[Path]:
    """A folder beside the path to write in, removed at the end; what a killed export left, too.

    Raises:
        ValueError: the path has another ending.
        OSError: a file is there, another process writes it, or nothing can be written there.
    """
    check_path(path, suffix, overwrite)
    folder = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        folder.mkdir()
    except OSError as error:
        raise OSError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    try:
        others = {*path.parent.glob(f".{escape(path.name)}.*.partial")} - {folder}
        if others:
            raise FileExistsError(
                f"another process is writing {path} ({others.pop().name}); choose another path"
            )
        check_path(path, suffix, overwrite)  # it may have come meanwhile
        yield folder
    finally:
        remove(folder)


def replace(new: Path, path: Path) -> None:
    """Rename a file or folder to a path, instead of what is there."""
    if path.is_dir():
        shutil.rmtree(path)
    new.replace(path)


def stored_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "no reason given"
