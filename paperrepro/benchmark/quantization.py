"""What fewer bits cost: accuracy and size of the stored networks in three formats, and their times.

Accuracy is that of the file: ONNX Runtime and ExecuTorch run theirs; a Core ML package is executed
by `paperrepro.export.mil`. The small networks of data/weights stand for their families; a large
network may lose less. MobileOne is also quantised in the order that is a trap, before it is
re-parameterized, by `benchmark.rounding`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm import tqdm

from ..datasets import Data, load_data
from ..export import coreml, executorch, mil, onnx
from ..export.activations import quantize_activations
from ..export.network import Preparation, WithNormalization, stored_bytes
from ..files import data_folder
from ..models import Backbone
from ..networks import Network, find_network
from ..reparam import reparameterize
from .latency import compare, torch_threads
from .steps import Steps

FAMILIES = ("mobileone", "fasternet", "replknet", "mobilevigv2", "rapidnet")
CALIBRATION, BATCH = 128, 50

# Of Core ML: the method of `coreml.COMPRESSIONS`, or None; and whether activations have 8 bits.
COREML = {
    "float16": (None, False),
    "weights 8, linear": ("int8", False),
    "weights 4, linear, blocks of 32": ("int4", False),
    "weights 8, palette": ("palette8", False),
    "weights 6, palette": ("palette6", False),
    "weights 4, palette": ("palette4", False),
    "weights 4, palette per 8 channels": ("palette4_grouped", False),
    "weights 4, palette per channel": ("palette4_channel", False),
    "weights 8, activations 8": ("int8", True),
}
PLAIN: dict[str, Any] = {"precision": "float16", "image": False, "compress": None}
Answer = Callable[[Tensor], Tensor]


class Images:
    """Images uint8 `(N, 3, H, W)` as a network sees them before normalisation, and labels."""

    def __init__(self, opened: Network, images: Any, count: int, seed: int = 0) -> None:
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
        pairs = [images[int(index)] for index in chosen]
        prepare = v2.Compose([opened.crop, v2.PILToTensor()])
        self.pixels = torch.stack([prepare(image) for image, _ in pairs])
        self.labels = torch.tensor([label for _, label in pairs])
        mean, std = (
            torch.tensor(v).reshape(3, 1, 1) for v in (opened.input.mean, opened.input.std)
        )
        self.normalized = (self.pixels / 255 - mean) / std


def run(
    data: Sequence[str] = ("shapes",),
    *,
    count: int = 1000,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Quantise the stored networks of each data set, and try the files on test images.

    Args:
        data: names or folders as `datasets.load_data` takes them. The networks are those of
            data/weights that are named after it, as `shapes-mobileone.safetensors`; where there is
            none, CIFAR-10's.
        count: test images, drawn at random.
        quick: MobileOne and ONNX Runtime only.

    Returns:
        One row per data set, network and form: `top1` in percent; `change`, in points from the
        float32 network on the same images, with its 95 % interval `low` to `high` (paired);
        `agreement`, the share of equal answers; `kilobytes` of the file.

    Raises:
        ValueError: data of other classes than the network's.
    """
    steps = steps or Steps()
    for name in data:
        loaded = load_data(name, size=64)
        for family in tqdm(FAMILIES[:1] if quick else FAMILIES, desc=name, disable=not progress):
            opened = stored_network(name, family)
            check_classes(opened, loaded, name, family)
            key = {"data": Path(name).name, "network": family}
            with torch_threads(threads):
                steps.take(key, partial(run_network, opened, loaded, count, quick))
    return steps.table


def times(
    data: Sequence[str] = ("shapes",),
    *,
    count: int = 1000,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Time the stored networks of the first data set in the runtimes that run here.

    Returns:
        One row per network and form: `kilobytes` of the file, `ms` per image, interleaved with the
        other forms of its runtime, `over_float`, the times by which it is faster than float32
        there, and the run's `spread` and `null`. Core ML does not run here.
    """
    steps = steps or Steps()
    loaded = load_data(data[0], size=64)
    for family in tqdm(FAMILIES[:1] if quick else FAMILIES, disable=not progress):
        opened = stored_network(data[0], family)
        known = Images(opened, loaded.train, CALIBRATION).pixels
        key = {"data": Path(data[0]).name, "network": family}
        steps.take(key, partial(time_network, opened, known, threads))
    return steps.table


def stored_network(data: str, family: str) -> Network:
    """A family's network in data/weights that is named after the data, or else CIFAR-10's."""
    folder = data_folder("weights")
    own, other = (folder / f"{n}-{family}.safetensors" for n in (Path(data).name, "cifar10-full"))
    return find_network(str(own if own.exists() else other))


def check_classes(opened: Network, data: Data, name: str, family: str) -> None:
    """Refuses data of other classes than the network's."""
    assert isinstance(opened.model, Backbone)
    if opened.model.num_classes != len(data.classes):
        raise ValueError(
            f"{name} has {len(data.classes)} classes, and the network has "
            f"{opened.model.num_classes}: train one on this data, and store it as "
            f"{data_folder('weights') / Path(name).name}-{family}.safetensors"
        )


def run_network(
    opened: Network, data: Data, count: int, quick: bool
) -> Iterator[dict[str, object]]:
    """The rows of one network."""
    test = Images(opened, data.val, count)
    known = Images(opened, data.train, CALIBRATION).pixels
    normalized, preparation = with_normalization(opened)
    reference = answers(lambda images: normalized(images)[0], test.pixels)
    yield {"format": "pytorch", "form": "float32"} | scored(reference, reference, test.labels)
    for format, forms in FORMATS.items():
        if quick and format != "onnxruntime":
            continue
        for form, (answer, size) in forms(normalized, preparation, known).items():
            found = answers(answer, test.pixels)
            row: dict[str, object] = {"format": format, "form": form, "kilobytes": size / 1e3}
            yield row | scored(found, reference, test.labels)


def with_normalization(opened: Network) -> tuple[WithNormalization, Preparation]:
    """The network as a file holds it: fused, and normalising."""
    assert isinstance(opened.model, Backbone)
    network = reparameterize(opened.model).requires_grad_(False)
    preparation = Preparation(opened.input.size, opened.input.mean, opened.input.std)
    return WithNormalization(network, preparation).eval(), preparation


def time_network(opened: Network, known: Tensor, threads: int) -> Iterator[dict[str, object]]:
    """The times of one network's forms."""
    normalized, preparation = with_normalization(opened)
    for format in TIMED:
        with torch_threads(threads):
            forms = FORMATS[format](normalized, preparation, known)
        image = known[:1] / 255
        calls = {form: partial(answer, image) for form, (answer, _) in forms.items()}
        found = compare(calls, rounds=9, min_seconds=0.05, threads=threads)
        for form, (_, size) in forms.items():
            yield {
                "format": format,
                "form": form,
                "kilobytes": size / 1e3,
                "ms": found[form].median * 1e3,
                "over_float": found.speed_up(form, "float32"),
                "spread": found[form].spread,
                "null": found.null,
            }


def answers(answer: Answer, pixels: Tensor) -> Tensor:
    """The class that a function of images of 0 to 1 gives each."""
    with torch.no_grad():
        return torch.cat([answer(batch / 255).argmax(1) for batch in pixels.split(BATCH)])


def scored(found: Tensor, reference: Tensor, labels: Tensor) -> dict[str, object]:
    """Accuracy, and its paired change from the reference with a normal 95 % interval."""
    change = (found == labels).double() - (reference == labels).double()
    half = 1.96 * change.std().item() / len(labels) ** 0.5
    mean = change.mean().item()
    return {
        "images": len(labels),
        "top1": 100 * (found == labels).double().mean().item(),
        "change": 100 * mean,
        "low": 100 * (mean - half),
        "high": 100 * (mean + half),
        "agreement": 100 * (found == reference).double().mean().item(),
    }


Forms = dict[str, tuple[Answer, int]]


def onnx_forms(network: nn.Module, preparation: Preparation, known: Tensor) -> Forms:
    plain = onnx.to_onnx(network, known[:1] / 255)
    files = {"float32": plain} | {
        f"weights 8 per {what}, activations 8": onnx.quantized(plain, known / 255, per_channel=each)
        for what, each in (("tensor", False), ("channel", True))
    }

    def answering(content: bytes) -> Answer:
        opened = onnx.session(content)
        return lambda images: torch.from_numpy(opened.run(None, {"image": images.numpy()})[0])

    return {form: (answering(content), len(content)) for form, content in files.items()}


def executorch_forms(network: nn.Module, preparation: Preparation, known: Tensor) -> Forms:
    executorch.need_executorch()

    def answering(content: bytes) -> Answer:
        loaded = executorch.load(content)
        return lambda images: torch.cat([loaded(image)[0] for image in images.unsqueeze(1)])

    forms: Forms = {}
    for form in ("float32", "weights 8 per channel, activations 8"):
        captured = executorch.capture(network, known[:1] / 255)
        if form != "float32":
            captured = executorch.quantized(captured, known / 255)
        content, _ = executorch.lower(captured, known[:1] / 255)
        forms[form] = answering(content), len(content)
    return forms


def coreml_forms(network: WithNormalization, preparation: Preparation, known: Tensor) -> Forms:
    """The packages for a batch of images, which the interpreter executes faster than one."""
    forms: Forms = {}
    converted: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (form, (method, activations)) in enumerate(COREML.items()):
            oldest = coreml.COMPRESSIONS[method][0][-1] if method else "iOS17"
            target = max(oldest, "iOS17")
            if target not in converted:
                settings = coreml.Settings(**vars(preparation), **PLAIN, target=target)
                converted[target], _ = coreml.convert(network.network, settings, None, BATCH)
            model, path = converted[target], Path(folder) / f"{number}.mlpackage"
            if activations:
                coreml.save(model, path)
                observed = known[: 2 * BATCH] / 255
                model = quantize_activations(model, mil.load(path), observed, BATCH)
            coreml.save(coreml.compressed(model, method), path)
            forms[form] = partial(first, mil.load(path)), stored_bytes(path)
    return forms


def first(program: mil.Program, images: Tensor) -> Tensor:
    short = BATCH - len(images)
    whole = F.pad(images, (0, 0, 0, 0, 0, 0, 0, short)) if short else images
    outputs = program(whole, mode="float16")["logits"]
    assert isinstance(outputs, Tensor)
    return outputs[: len(images)]


FORMATS: dict[str, Callable[[Any, Preparation, Tensor], Forms]] = {
    "onnxruntime": onnx_forms,
    "executorch": executorch_forms,
    "coreml": coreml_forms,
}
TIMED = ("onnxruntime", "executorch")
