"""Semantic segmentation: a class for every pixel."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ..models import Input, input_of
from ..models.layers import Chain, ConvNorm
from .body import Body, build_body, check_classes, check_options, choose_head
from .saving import Blueprint
from .semantic_fpn import SemanticFPN
from .upernet import UperNet

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


class DeepLabV3(nn.Module):
    """torchvision's head of DeepLabV3 (Chen et al., 2017, Section 3.3) on the last map alone.

    The head of MobileOne's Table 9. Its paper names neither width nor output stride; this is
    torchvision's, 256 channels wide. In training its image pooling needs two images.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.head = DeepLabHead(in_channels[-1], num_classes, rates)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The last map `(N, C, h, w)` to scores `(N, num_classes, h, w)`."""
        return self.head(maps[-1])


HEADS: Mapping[str, Callable[..., nn.Module]] = {
    "semantic_fpn": SemanticFPN,
    "upernet": UperNet,
    "deeplabv3": DeepLabV3,
}


class Segmenter(nn.Module):
    """A backbone, a head, and in training an auxiliary head where there is one.

    Args:
        body: images to maps.
        head: maps to scores of the classes.
        auxiliary: the third map's `(N, C, h, w)` to scores; it teaches the middle of the network
            and answers nothing. `None` takes it off.

    Attributes:
        blueprint: how `build_segmenter` built it; `save_dense` writes it down.
        input: how images are prepared.
        classes: the names of the classes where known.
    """

    def __init__(self, body: Body, head: nn.Module, auxiliary: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.auxiliary = auxiliary
        self.blueprint: Blueprint | None = None
        self.input: Input | None = None
        self.classes: tuple[str, ...] | None = None
        self.reparameterized = False

    @property
    def in_chans(self) -> int:
        return self.body.stages.in_chans

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores of the classes for every pixel.

        Args:
            images: `(N, in_chans, H, W)`, each side at least 32.

        Returns:
            `(N, num_classes, H, W)`; in training with an auxiliary head a pair of those, the
            auxiliary head's last.
        """
        maps = self.body(images)
        scores = enlarge(self.head(maps), images)
        if self.training and self.auxiliary is not None:
            return scores, enlarge(self.auxiliary(maps[2]), images)
        return scores


def enlarge(scores: Tensor, images: Tensor) -> Tensor:
    """Scores at the height and width of images or maps."""
    if scores.shape[2:] == images.shape[-2:]:
        return scores
    return interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=False)


def build_segmenter(
    backbone: str,
    head: str = "semantic_fpn",
    num_classes: int = 21,
    *,
    weights: str | os.PathLike[str] | None = None,
    normalised: bool | None = None,
    auxiliary: bool | None = None,
    output_stride: int | None = None,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Segmenter:
    """A segmenter of one of this library's networks.

    Args:
        backbone: one of `paperrepro.list_models()`.
        head: "semantic_fpn" (RapidNet, MobileViGv2), "upernet" (RepLKNet) or "deeplabv3"
            (MobileOne).
        num_classes: the classes; pixels of no class are left to the loss.
        weights: of the backbone, as `paperrepro.create_model` takes them.
        normalised: whether each stage map has a BatchNorm; as the network's paper has it when
            None.
        auxiliary: whether there is an auxiliary head in training; for UperNet only when None.
        output_stride: the image's side over the last map's; 16 for DeepLabV3, else 32.
        config: options of `paperrepro.create_model` for the backbone, such as `drop_path_rate`.
        **options: of the head, such as `width`.

    Raises:
        ValueError: unknown head, backbone or option, or no class.
        WeightsError: the weights do not fit.
    """
    make = choose_head(head, HEADS)
    check_classes(num_classes)
    check_options(head, options, signature(make).parameters)
    arguments = dict(
        normalised=normalised, auxiliary=auxiliary, output_stride=output_stride, config=config
    )
    blueprint = Blueprint("segment", backbone, head, num_classes, {**arguments, **options})
    if output_stride is None:
        output_stride = 16 if head == "deeplabv3" else 32
    body = build_body(
        backbone,
        weights=weights,
        normalised=normalised,
        output_stride=output_stride,
        **(config or {}),
    )
    if head == "deeplabv3":
        make = partial(make, rates=ATROUS_RATES[output_stride])
    built = make(body.channels, num_classes, **options)
    helper = None
    if auxiliary or (auxiliary is None and head == "upernet"):
        helper = auxiliary_head(body.channels[2], num_classes)
    segmenter = Segmenter(body, built, helper)
    segmenter.blueprint, segmenter.input = blueprint, input_of(backbone)
    return segmenter


def auxiliary_head(in_channels: int, num_classes: int, width: int = 256) -> nn.Module:
    """A small fully convolutional head: 3x3 to `width`, BatchNorm, ReLU, 1x1 to the classes."""
    return Chain(
        conv=ConvNorm(in_channels, width, 3, act="relu"),
        dropout=nn.Dropout2d(0.1),
        classifier=nn.Conv2d(width, num_classes, 1),
    )
