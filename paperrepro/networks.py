"""Networks by name or file: ours, a file of ours, timm's, torchvision's, public ones.

`find_network` is the one place that turns a name or a file into a network with its weights and the
preparation of its images. The public ones stand in for the papers' networks where their weights
cannot be had; their files are not part of the project, and `PUBLIC` says where each comes from.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from .analysis.cifar_resnet import cifar_resnet
from .models import (
    Backbone,
    Input,
    MissingFactError,
    check_name,
    family_of,
    input_of,
    is_known,
)
from .reparam import reparameterize
from .transforms import validation_transform
from .weights import WeightsError, create_model, load_model, read_checkpoint


@dataclass(frozen=True)
class Public:
    """A network whose trained weights are public.

    Attributes:
        build: the network without weights.
        source: where the weights are from, and their licence.
        input: how its images are prepared; mean and deviation in the order of its channels.
        bgr: whether those are blue, green and red.
    """

    build: Callable[[], nn.Module]
    source: str
    input: Input
    bgr: bool = False


PUBLIC = {
    "mobilenet_v2": Public(
        torchvision.models.mobilenet_v2,
        "google-coral/test_data, mobilenet_v2_1.0_224_quant.tflite, dequantised (Apache-2.0)",
        Input(224, None, "bilinear", mean=(128 / 255,) * 3, std=(128 / 255,) * 3),
    ),
    "squeezenet1_1": Public(
        torchvision.models.squeezenet1_1,
        "forresti/SqueezeNet v1.1 in half precision (BSD-2-Clause)",
        Input(227, None, "bilinear", (104 / 255, 117 / 255, 123 / 255), std=(1 / 255,) * 3),
        bgr=True,
    ),
    "cifar_resnet20": Public(
        partial(cifar_resnet, 20),
        "akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)",
        Input(32, None, "bilinear"),
    ),
    "cifar_resnet56": Public(
        partial(cifar_resnet, 56),
        "akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)",
        Input(32, None, "bilinear"),
    ),
}


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and what a picture goes through before it.

    Attributes:
        name: what it is called in tables.
        input: the size that it sees, and the normalisation.
        bgr: whether its channels are blue, green and red.
        saved: whether the input is what the network's own file says.
    """

    name: str
    model: nn.Module
    input: Input
    bgr: bool = False
    saved: bool = False

    @property
    def crop(self) -> v2.Compose:
        """A PIL image to the square in its middle that the network sees."""
        mode = InterpolationMode(self.input.interpolation)
        side = self.input.size
        return v2.Compose([v2.RGB(), v2.Resize(side, mode), v2.CenterCrop(side)])

    @property
    def normalise(self) -> v2.Compose:
        """That square to a tensor `(3, size, size)`."""
        return normalising(self.input.mean, self.input.std, self.bgr)

    def transform(self, picture: Image.Image | Tensor) -> Tensor:
        return self.normalise(self.crop(picture))

    def stretching(self, size: int) -> v2.Compose:
        """A transform that keeps the whole picture, stretched to a square."""
        resize = v2.Resize((size, size), InterpolationMode.BICUBIC)
        return v2.Compose([v2.RGB(), resize, self.normalise])


def evaluation_transform(name: str) -> v2.Compose:
    """The transform with which the released network of that name was evaluated.

    Returns:
        A transform of a PIL image or a uint8 tensor `(3, H, W)` to a float tensor of the
        network's input size, normalised.

    Raises:
        MissingFactError: the network's family does not state it.
    """
    return transform_of(input_of(name))


def transform_of(input: Input) -> v2.Compose:
    """The evaluation transform of an `Input`: resize, centre crop and normalisation."""
    return validation_transform(
        input.size,
        crop=input.crop,
        interpolation=input.interpolation,
        mean=input.mean,
        std=input.std,
    )


def find_network(
    name: str,
    *,
    weights: str | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> Network:
    """A network as the commands name it.

    Args:
        name: one of ours, of timm's or of torchvision's, with random weights by `seed`; one of
            ours or of `PUBLIC` with weights as `NAME=FILE` or `NAME=released`; or a file made by
            `save_model`.
        weights: in place of `=FILE`.
        size: the side of the images in pixels; the network's own when None. The shorter side is
            resized to it, and the square in the middle is kept.
        num_classes: of the network, where its file does not say; 1000 when None.

    Raises:
        ValueError: unknown name, weights that are missing or another network's, or a network that
            nobody says how to prepare images for.
    """
    path = Path(name)
    if path.is_file() and weights is None:
        model = load_model(path)
        # A run of the trainer is called after its folder.
        label = path.resolve().parent.name if path.stem == "model" else path.stem
        return prepared(label, model, size, path)
    label, sign, file = name.partition("=")
    if sign and not (label and file):
        raise ValueError(f"{name!r} is half of NAME=FILE")
    weights = weights or file or None
    if label in PUBLIC:
        public = PUBLIC[label]
        if not weights:
            raise ValueError(f"{label} has no weights: {label}=FILE, with those of {public.source}")
        input = replace(public.input, size=size or public.input.size)
        return Network(label, load_public(label, Path(weights)).eval(), input, public.bgr)
    torch.manual_seed(seed)
    if not is_known(label) and weights is None:
        return Network(label, build_peer(label).eval(), Input(size=size or 224))
    check_name(label)
    return prepared(label, open_network(label, weights, num_classes), size, weights)


def open_network(name: str, weights: str | None, num_classes: int | None) -> Backbone:
    """One of ours with weights; a file of `save_model` says its own classes and options.

    Raises:
        WeightsError: the file holds another network, or other classes.
    """
    file = None if weights is None or weights == "released" or ":" in weights else Path(weights)
    if file is None or "paperrepro" not in read_checkpoint(file)[1]:
        classes = 1000 if num_classes is None else num_classes
        return create_model(name, num_classes=classes, weights=weights)
    model = load_model(file)
    if model.variant != name:
        raise WeightsError(f"{file} holds {model.variant}, not {name}: give that name")
    if num_classes is not None and model.num_classes != num_classes:
        raise WeightsError(
            f"{file} classifies {model.num_classes} classes, and {num_classes} are asked for: give "
            "the data, or the number of classes, that it was trained on"
        )
    return model


def prepared(label: str, model: Backbone, size: int | None, file: str | Path | None) -> Network:
    input = model.input
    beside = Path(file).with_name("recipe.json") if file is not None else None
    if beside is not None and beside.is_file():
        input = input_of_recipe(beside, input)
    if input is None:
        raise MissingFactError(
            f"nobody says how images are prepared for {model.variant}: give input= in its Family "
            "record, or set model.input before save_model"
        )
    default = family_of(model.variant).input
    saved = file is not None and file != "released" and input != default
    return Network(label, model.eval(), replace(input, size=size or input.size), saved=saved)


def input_of_recipe(recipe: Path, input: Input | None) -> Input | None:
    """How a run whose file of weights does not say it prepared its images, by its recipe.json."""
    try:
        fields = json.loads(recipe.read_text(encoding="utf-8"))
        return replace(input or Input(), size=fields["size"], crop=fields["test_crop"])
    except (KeyError, TypeError, ValueError):
        return input


def build_peer(name: str) -> nn.Module:
    """A network of timm, else of torchvision, with random weights.

    Raises:
        ValueError: there is none of that name; or it may be timm's, and timm is missing.
    """
    if is_timms(name):
        import timm

        return timm.create_model(name)
    if name in torchvision.models.list_models(module=torchvision.models):
        return torchvision.models.get_model(name)
    check_any(name)
    raise ValueError(f"{name!r} is ours: build it with paperrepro.create_model")


def is_timms(name: str) -> bool:
    if not find_spec("timm"):
        return False
    import timm

    return timm.is_model(name)


def check_any(name: str) -> None:
    """Raises a ValueError where a network is neither ours nor timm's nor torchvision's."""
    if is_timms(name) or name in torchvision.models.list_models(module=torchvision.models):
        return
    try:
        check_name(name)
    except ValueError as error:
        timm_too = "" if find_spec("timm") else "; pip install timm to look there as well"
        raise ValueError(f"{error}; timm and torchvision have none either{timm_too}") from None


def build_meta(name: str) -> nn.Module:
    """`build_peer` on the meta device: the layers without their numbers, at no cost."""
    with torch.device("meta"):
        return build_peer(name)


def load_public(name: str, path: Path) -> nn.Module:
    """One of `PUBLIC` with the weights of its file.

    Raises:
        ValueError: the file cannot be read, or holds another network.
    """
    model = PUBLIC[name].build()
    state, _ = read_checkpoint(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"{path} does not hold the weights of {name}: {first}") from error
    return pad_as_tensorflow(model) if name == "mobilenet_v2" else model


def pad_as_tensorflow(model: nn.Module) -> nn.Module:
    """TensorFlow's padding, for which MobileNetV2's public weights were trained: a convolution of
    stride 2 pads even images to the right and below only."""
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.padding = (0, 0)
                setattr(module, name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer))
    return model


def normalising(mean: tuple[float, ...], std: tuple[float, ...], bgr: bool = False) -> v2.Compose:
    order = [v2.Lambda(reverse_channels)] if bgr else []
    values = [v2.ToImage(), v2.ToPureTensor(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*values, *order, v2.Normalize(mean, std)])


def reverse_channels(image: Tensor) -> Tensor:
    return image.flip(0)


def as_run(model: nn.Module) -> nn.Module:
    """One of ours re-parameterized; another network as it is."""
    return reparameterize(model) if isinstance(model, Backbone) else model
