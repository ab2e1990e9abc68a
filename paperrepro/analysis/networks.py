"""The networks that the commands take: ours, a file of ours, and trained ones from public files.

The trained ones stand in for the papers' networks where their weights cannot be had. Their files
are not part of the project; `PUBLIC` says where each comes from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from ..weights import IMAGENET, RELEASED, WeightsError, create_model, load_model, read_checkpoint
from .cifar_resnet import cifar_resnet


@dataclass(frozen=True)
class Public:
    """A network whose trained weights are public.

    Attributes:
        build: the network without weights.
        source: where the weights are from, and their licence.
        size: the side of its images in pixels.
        mean, std: of the values from 0 to 1, in the order of the network's channels.
        bgr: whether those are blue, green and red.
    """

    build: Callable[[], nn.Module]
    source: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False


PUBLIC = {
    "mobilenet_v2": Public(
        torchvision.models.mobilenet_v2,
        "google-coral/test_data, mobilenet_v2_1.0_224_quant.tflite, dequantised (Apache-2.0)",
        size=224,
        mean=(128 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
    "squeezenet1_1": Public(
        torchvision.models.squeezenet1_1,
        "forresti/SqueezeNet v1.1 in half precision (BSD-2-Clause)",
        size=227,
        mean=(104 / 255, 117 / 255, 123 / 255),
        std=(1 / 255,) * 3,
        bgr=True,
    ),
    "cifar_resnet20": Public(
        partial(cifar_resnet, 20), "akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)", 32, *IMAGENET
    ),
    "cifar_resnet56": Public(
        partial(cifar_resnet, 56), "akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)", 32, *IMAGENET
    ),
}


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and what a picture goes through before it.

    Attributes:
        name: what it is called in tables.
        crop: a PIL image to the square that the network sees.
        normalise: that square to a tensor `(3, size, size)`.
    """

    name: str
    model: nn.Module
    crop: v2.Compose
    normalise: v2.Compose

    def transform(self, picture: Image.Image | Tensor) -> Tensor:
        return self.normalise(self.crop(picture))

    def stretching(self, size: int) -> v2.Compose:
        """A transform that keeps the whole picture, stretched to a square."""
        resize = v2.Resize((size, size), InterpolationMode.BICUBIC)
        return v2.Compose([v2.RGB(), resize, self.normalise])


def find_network(name: str, *, size: int | None = None, seed: int = 0) -> Network:
    """A network as the commands name it.

    Args:
        name: one of ours, with random weights by `seed`; `NAME=FILE` with those of a file, or
            `NAME=released`; a file made by `save_model`; or one of `PUBLIC`, as `NAME=FILE`.
        size: the side of the images in pixels; the network's own when None. The shorter side is
            resized to it, and the square in the middle is kept.

    Raises:
        ValueError: unknown name, or weights that are missing or another network's.
    """
    path = Path(name)
    label, _, weights = (path.stem, "", "") if path.is_file() else name.partition("=")
    if label == "model" and path.is_file():  # of a run of the trainer: the run's name
        label = path.resolve().parent.name
    if label in PUBLIC:
        public = PUBLIC[label]
        if not weights:
            raise ValueError(f"{label} has no weights: {label}=FILE, with those of {public.source}")
        model = load_public(label, Path(weights))
        crop = square(size or public.size, "bilinear")
        return Network(label, model.eval(), crop, normalising(public.mean, public.std, public.bgr))
    torch.manual_seed(seed)
    try:
        model = load_model(name) if path.is_file() else create_model(label, weights=weights or None)
    except WeightsError as error:
        raise ValueError(str(error)) from error
    release = RELEASED[model.variant]
    crop = square(size or release.size, release.interpolation)
    return Network(label, model.eval(), crop, normalising(release.mean, release.std))


def load_public(name: str, path: Path) -> nn.Module:
    """One of `PUBLIC` with the weights of its file.

    Raises:
        ValueError: the file cannot be read, or holds another network.
    """
    model = PUBLIC[name].build()
    try:
        model.load_state_dict(read_checkpoint(path)[0])
    except WeightsError as error:
        raise ValueError(str(error)) from error
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


def square(size: int, interpolation: str) -> v2.Compose:
    mode = InterpolationMode(interpolation)
    return v2.Compose([v2.RGB(), v2.Resize(size, mode), v2.CenterCrop(size)])


def normalising(mean: tuple[float, ...], std: tuple[float, ...], bgr: bool = False) -> v2.Compose:
    order = [v2.Lambda(reverse_channels)] if bgr else []
    values = [v2.ToImage(), v2.ToPureTensor(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*values, *order, v2.Normalize(mean, std)])


def reverse_channels(image: Tensor) -> Tensor:
    return image.flip(0)
