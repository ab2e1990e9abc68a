"""The papers' transforms, put together from torchvision's.

A transform takes a PIL image or a uint8 tensor `(3, H, W)` to a normalised float tensor; a mixing
takes a batch of those and its labels to mixed images and soft labels.

A tensor is cropped and resized in a third of PIL's time, to the same grey levels within two. What
distorts the crop's colours and geometry is PIL's, which takes a third of the tensor's time there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2


def training_transform(
    size: int,
    *,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    rand_augment: float = 0.0,
    auto_augment: float = 0.0,
    erasing: float = 0.0,
    interpolation: str = "bicubic",
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pixels: bool = False,
) -> v2.Compose:
    """Random resized crop, flip, RandAugment, AutoAugment and random erasing, each where asked for.

    Args:
        size: the side of what comes out in pixels.
        crop_scale: the smallest and the largest share of the image's area that is kept.
        rand_augment: RandAugment's magnitude from 0 (off) to 10, see `RandAugment`.
        auto_augment: AutoAugment's strength from 0 (off) to 1, see `AutoAugment`.
        erasing: the probability that a rectangle is replaced by noise.
        interpolation: "bilinear", "bicubic", or "random" for either by chance.
        pixels: gives uint8 `(3, size, size)`, a quarter of the bytes, for `Normalise` to be applied
            to the batch on the device. With random erasing, whose noise is drawn in normalised
            units, images are normalised here all the same, and `Normalise` leaves them.
    """
    modes = ["bilinear", "bicubic"] if interpolation == "random" else [interpolation]
    crops = [
        RandomResizedCrop(size, crop_scale, interpolation=InterpolationMode(mode)) for mode in modes
    ]
    distortions = [
        *([RandAugment(rand_augment)] if rand_augment else []),
        *([AutoAugment(auto_augment)] if auto_augment else []),
    ]
    return v2.Compose(
        [
            v2.RGB(),
            crops[0] if len(crops) == 1 else v2.RandomChoice(crops),
            *([v2.RandomHorizontalFlip()] if flip else []),
            *([to_pil, *distortions] if distortions else []),
            to_pixels,
            *([] if pixels and not erasing else [Normalise(mean, std)]),
            *([v2.RandomErasing(erasing, value="random", inplace=True)] if erasing else []),
        ]
    )


def validation_transform(
    size: int,
    *,
    crop: float | None,
    interpolation: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> v2.Compose:
    """Resize and centre crop.

    Args:
        crop: the share of the resized image that the crop keeps; None resizes the whole image to a
            square.
    """
    mode = InterpolationMode(interpolation)
    if crop is None:
        resize = [v2.Resize((size, size), mode)]
    else:
        resize = [v2.Resize(int(size / crop), mode), v2.CenterCrop(size)]
    return v2.Compose([v2.RGB(), *resize, *to_normalised(mean, std)])


def to_normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


class RandomResizedCrop(v2.RandomResizedCrop):
    """torchvision's, with the same pixels; a uint8 tensor goes to PyTorch's kernel as it lies in
    memory, uncopied, in half the time."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Tensor) or inpt.dtype != torch.uint8 or inpt.dim() != 3:
            return super().transform(inpt, params)
        top, left = params["top"], params["left"]
        box = inpt[:, top : top + params["height"], left : left + params["width"]]
        batch = box.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        mode = self.interpolation.value
        return F.interpolate(batch, tuple(self.size), mode=mode, antialias=True)[0]


def to_pil(image: Image.Image | Tensor) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def to_pixels(image: Image.Image | Tensor) -> Tensor:
    """uint8 `(3, H, W)`, contiguous: so batches are stacked fastest."""
    if isinstance(image, Image.Image):
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return image.contiguous()


class Normalise(nn.Module):
    """Pixels of 0 to 255 to `(x / 255 - mean) / std`, on any device, to torchvision's last bit.

    Takes uint8 `(..., 3, H, W)`; floats are normalised already, and are given back.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            return images
        return images.float().mul_(1 / 255).sub_(self.mean).div_(self.std)


class RandAugment(v2.RandAugment):
    """RandAugment (Cubuk et al., 2020) as timm's `rand-m{magnitude}-mstd0.5-inc1` has it.

    Two operations, each with probability 1/2; the magnitude, out of 10, is drawn for every image
    from a normal distribution of standard deviation 0.5. The operations are torchvision's, which
    lack timm's Invert and SolarizeAdd and have the identity.
    """

    def __init__(self, magnitude: float) -> None:
        super().__init__(num_magnitude_bins=101)
        self.mean = magnitude

    def forward(self, *inputs: Any) -> Any:
        drawn = torch.normal(self.mean, 0.5, ()).clamp(0, 10)
        self.magnitude = round(10 * drawn.item())
        self.num_ops = int((torch.rand(2) < 0.5).sum())
        return super().forward(*inputs)


class AutoAugment(v2.AutoAugment):
    """AutoAugment's ImageNet policy (Cubuk et al., 2019) with its magnitudes times `strength`, as
    MobileOne's Table 10 has it."""

    _AUGMENTATION_SPACE: dict[str, tuple[Callable, bool]]

    def __init__(self, strength: float) -> None:
        super().__init__()

        def weaker(magnitudes: Callable) -> Callable:
            # The policy picks the i-th of ten steps up to the full magnitude; smaller steps.
            return lambda bins, *size: magnitudes(round((bins - 1) / strength) + 1, *size)

        self._AUGMENTATION_SPACE = {
            name: (weaker(magnitudes), signed)
            for name, (magnitudes, signed) in self._AUGMENTATION_SPACE.items()
        }


def mixing(
    num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019) of a batch; None with neither.

    Args:
        mixup, cutmix: the parameters alpha; 0 turns one off. With both, each batch gets either by
            chance.

    Returns:
        A function of images `(N, 3, H, W)` and labels `(N,)` to images and labels
        `(N, num_classes)`.
    """
    transforms = []
    if mixup:
        transforms.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        transforms.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return v2.RandomChoice(transforms) if transforms else None
