"""Object detection and instance segmentation: torchvision's detectors around our backbones."""

import os
from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple, TypeAlias

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from ..models import input_of
from .body import Body, Pyramid, build_body, check_classes, check_options, choose_head
from .cascade import cascade_mask_rcnn
from .saving import Blueprint
from .ssdlite import ssdlite

Detector: TypeAlias = nn.Module


def two_stage(make: Callable[..., Detector]) -> Callable[..., Detector]:
    """A builder of detectors that look at regions: four levels, and every second pixel of the last
    as a fifth."""

    def build(body: Body, num_classes: int, width: int = 256, **options: Any) -> Detector:
        return make(Pyramid(body, width, LastLevelMaxPool()), num_classes, **options)

    return build


def one_stage(make: Callable[..., Detector]) -> Callable[..., Detector]:
    """A builder of detectors that look at every pixel: three levels, and two coarser ones."""

    def build(body: Body, num_classes: int, width: int = 256, **options: Any) -> Detector:
        return make(Pyramid(body, width, LastLevelP6P7(width, width)), num_classes, **options)

    return build


class Head(NamedTuple):
    """A kind of detector.

    Attributes:
        build: a body, the number of classes with the background and options to the detector.
        network: torchvision's class, whose options it takes.
        maps: the stage maps that it begins with.
        option: one of its own besides.
    """

    build: Callable[..., Detector]
    network: type
    maps: tuple[int, ...]
    option: str = "width"


EVERY, COARSE = (0, 1, 2, 3), (1, 2, 3)
HEADS = {
    "mask_rcnn": Head(two_stage(MaskRCNN), MaskRCNN, EVERY),
    "faster_rcnn": Head(two_stage(FasterRCNN), FasterRCNN, EVERY),
    "cascade_mask_rcnn": Head(two_stage(cascade_mask_rcnn), MaskRCNN, EVERY),
    "retinanet": Head(one_stage(RetinaNet), RetinaNet, COARSE),
    "fcos": Head(one_stage(FCOS), FCOS, COARSE),
    "ssdlite": Head(ssdlite, SSD, (2, 3), "size"),
}
WITH_MASKS = ("mask_rcnn", "cascade_mask_rcnn")


def build_detector(
    backbone: str,
    head: str = "mask_rcnn",
    num_classes: int = 80,
    *,
    weights: str | os.PathLike[str] | None = None,
    normalised: bool | None = None,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Detector:
    """A detector of one of this library's networks.

    It is torchvision's: in training it takes a list of images `(3, H, W)` from 0 to 1 and a list
    of targets (`boxes` `(n, 4)` in pixels, `labels` from 1, `masks` `(n, H, W)` for Mask R-CNN)
    and returns losses by name; in eval mode it takes the images and returns `boxes`, `labels`,
    `scores` and `masks`. It resizes and normalises the images itself.

    Args:
        backbone: one of `paperrepro.list_models()`.
        head: "mask_rcnn" (FasterNet, RapidNet, MobileViGv2), "faster_rcnn", "cascade_mask_rcnn"
            and "fcos" (RepLKNet), "retinanet" or "ssdlite" (MobileOne).
        num_classes: the kinds of objects; the background, label 0, is not counted.
        weights: of the backbone, as `paperrepro.create_model` takes them.
        normalised: whether each stage map has a BatchNorm; as the network's paper has it when
            None.
        config: options of `paperrepro.create_model` for the backbone, such as `drop_path_rate`.
        **options: `width`, the channels of the pyramid (256); `size` of SSDLite's square images
            (320); and those of torchvision's class, such as `min_size` and `max_size`.

    Raises:
        ValueError: unknown head, backbone or option, or no class.
        WeightsError: the weights do not fit.
    """
    kind = choose_head(head, HEADS)
    check_classes(num_classes)
    check_options(head, options, [kind.option, *signature(kind.network).parameters])
    arguments = dict(normalised=normalised, config=config)
    blueprint = Blueprint("detect", backbone, head, num_classes, {**arguments, **options})
    body = build_body(
        backbone,
        weights=weights,
        normalised=normalised,
        out_indices=kind.maps,
        **(config or {}),
    )
    prepared = input_of(backbone)
    statistics = dict(image_mean=list(prepared.mean), image_std=list(prepared.std))
    detector: Any = kind.build(body, num_classes + 1, **statistics | options)
    detector.blueprint, detector.input = blueprint, prepared
    detector.classes, detector.reparameterized = None, False
    return detector
