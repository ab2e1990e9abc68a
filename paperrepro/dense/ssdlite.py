"""SSDLite (Sandler et al., MobileNetV2, CVPR 2018, Section 6.2): a one-stage detector of separable
convolutions, as MobileOne's Table 9 has it for COCO.

The paper trains it with MMDetection and does not describe the head. This is that library's: the
maps at strides 16 and 32 and four coarser ones, six boxes for each of their pixels.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops.misc import Conv2dNormActivation

from .body import Body, named

NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
EXTRAS = (512, 256, 256, 128)
# Sides of the boxes for an image of 320 pixels; a last one ends the largest map's range.
SIDES = (48, 100, 150, 202, 253, 304, 320)


class SSDLiteMaps(nn.Module):
    """The maps of a body, and four more, each half as large as the one before."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.channels = [*body.channels, *EXTRAS]
        self.extras = nn.ModuleList(
            halving(before, after)
            for before, after in zip(self.channels[len(body.channels) - 1 :], EXTRAS, strict=False)
        )

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Maps `(N, C, H / s, W / s)` at strides 16, 32, 64, 128, 256, 512, by name."""
        maps = list(self.body(images))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return named(maps)


def halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 to half the channels, depthwise 3x3 of stride 2, 1x1; BatchNorm and ReLU6 after each."""
    conv = partial(Conv2dNormActivation, norm_layer=NORM, activation_layer=nn.ReLU6)
    half = out_channels // 2
    return nn.Sequential(
        conv(in_channels, half, kernel_size=1),
        conv(half, half, kernel_size=3, stride=2, groups=half),
        conv(half, out_channels, kernel_size=1),
    )


def ssdlite(body: Body, num_classes: int, size: int = 320, **options: Any) -> SSD:
    """torchvision's SSD with separable heads.

    Args:
        body: the maps at strides 16 and 32.
        num_classes: with the background.
        size: every image is stretched to that square.
    """
    maps = SSDLiteMaps(body)
    anchors = DefaultBoxGenerator([[2, 3]] * len(maps.channels), scales=[s / 320 for s in SIDES])
    head = SSDLiteHead(maps.channels, anchors.num_anchors_per_location(), num_classes, NORM)
    settings = dict(score_thresh=0.02, nms_thresh=0.45, detections_per_img=200) | options
    return SSD(maps, anchors, (size, size), num_classes, head=head, **settings)
