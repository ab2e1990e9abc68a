"""The backbone as detectors and segmenters see it: four maps, and the pyramid on top of them."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from ..models import FeatureExtractor, family_of
from ..weights import create_model


class Body(nn.Module):
    """A backbone's stage maps, each through a BatchNorm of its own where the paper has them.

    FasterNet's released code for COCO normalises its four maps, and so does RepLKNet-XL's; the
    others hand their maps over as they are.

    Args:
        stages: the maps of a network, of `create_model(..., features_only=True)`.
        normalised: whether each map has a BatchNorm.

    Attributes:
        channels, reduction: of each map; the reduction is the image's side over the map's.
    """

    def __init__(self, stages: FeatureExtractor, normalised: bool = False) -> None:
        super().__init__()
        self.stages = stages
        self.channels = stages.feature_info.channels()
        self.reduction = stages.feature_info.reduction()
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, self.channels)) if normalised else None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps `(N, C_i, H / s_i, W / s_i)` of `images` `(N, in_chans, H, W)`."""
        maps = self.stages(images)
        if self.norms is None:
            return maps
        return [norm(x) for norm, x in zip(self.norms, maps, strict=True)]


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al., Feature Pyramid Networks, CVPR 2017) on the maps of a body.

    torchvision's detectors take it as their backbone.

    Args:
        width: the channels of every level.
        extra: torchvision's block that adds coarser levels, or None.
    """

    def __init__(self, body: Body, width: int, extra: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.channels, width, extra)
        self.out_channels = width

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Levels `(N, width, H / s, W / s)` by name, the finest first: "0", "1", and so on."""
        return self.fpn(named(self.body(images)))


def build_body(
    backbone: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    normalised: bool | None = None,
    out_indices: tuple[int, ...] = (0, 1, 2, 3),
    **options: Any,
) -> Body:
    """The stage maps of a network by name.

    Args:
        weights: as `paperrepro.create_model` takes them; the classifier is left out.
        normalised: whether each map has a BatchNorm; as the network's paper has it when None.
        out_indices: which of the four maps.
        **options: of `create_model`, such as `output_stride`, `drop_path_rate` and `in_chans`.
    """
    stages = create_model(
        backbone, weights=weights, features_only=True, out_indices=out_indices, **options
    )
    if normalised is None:
        normalised = backbone in family_of(backbone).normalised_maps
    return Body(stages, normalised)


def named(maps: list[Tensor]) -> OrderedDict[str, Tensor]:
    """Maps under the names "0", "1" and so on, by which torchvision's detectors call them."""
    return OrderedDict((str(i), x) for i, x in enumerate(maps))


def freeze_norms(model: nn.Module) -> nn.Module:
    """Holds every BatchNorm at its statistics, scale and shift, in place; returns the network.

    What a batch of one or two images per device needs where BatchNorm is not synchronised: its
    statistics would be those of single images. `reparameterize` folds these as it folds others.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm):
                frozen = FrozenBatchNorm2d(layer.num_features, layer.eps)
                frozen.load_state_dict(layer.state_dict())
                parent._modules[name] = frozen.to(layer.running_mean)
    return model


Head = TypeVar("Head")


def choose_head(head: str, heads: Mapping[str, Head]) -> Head:
    """What builds a head, by its name.

    Raises:
        ValueError: there is none of that name; all are named.
    """
    if head not in heads:
        raise ValueError(f"unknown head {head!r}: choose one of {', '.join(heads)}")
    return heads[head]


# What the builders give themselves.
GIVEN = {"backbone", "in_channels", "num_classes", "rates", "head", "anchor_generator", "kwargs"}


def check_options(head: str, options: Iterable[str], known: Iterable[str]) -> None:
    known = [option for option in known if option not in GIVEN]
    for option in options:
        if option not in known:
            raise ValueError(
                f"the head {head} has no option {option!r}: it takes {', '.join(known) or 'none'}"
            )


def check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; give the number of classes, 1 or more")
