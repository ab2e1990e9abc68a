"""What every network is: a stem, four stages and a head, with timm's names for its parts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.ops import DeformConv2d

from .layers import Branches, TwoHeads

if TYPE_CHECKING:
    from .registry import Input

SMALLEST_SIDE = 32
"""The side in pixels below which the last stage, which halves the image five times, has no map."""


def check_images(images: Tensor, in_chans: int, name: str) -> None:
    """Refuses what is not a batch of images, or too small; no part of a traced network."""
    if torch.compiler.is_compiling():
        return
    if images.dim() != 4 or images.shape[1] != in_chans:
        remedy = (
            "; a single image needs images.unsqueeze(0), a grey one images.expand(-1, 3, -1, -1)"
            if in_chans == 3
            else "; create_model(..., in_chans=...) sets the number of channels"
        )
        raise ValueError(
            f"expected images of shape (N, {in_chans}, H, W), got {tuple(images.shape)}{remedy}"
        )
    if min(images.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"images of {images.shape[2]} x {images.shape[3]} pixels are too small for {name}: "
            f"each side needs at least {SMALLEST_SIDE}, because the last stage halves the image "
            "five times; resize them first"
        )


torch.fx.wrap("check_images")


@runtime_checkable
class Spread(Protocol):
    """A module that is no convolution and reaches across the map."""

    def dilate(self, factor: int) -> None:
        """Makes it reach further by that factor, for a map that was not halved."""


class FeatureMap(NamedTuple):
    """One of the maps that a network returns: its channels, the image's side over its side, and
    the module that makes it."""

    channels: int
    reduction: int
    module: str


class FeatureInfo(tuple[FeatureMap, ...]):
    """The maps of a network, with the questions that timm's users ask."""

    def channels(self) -> list[int]:
        return [feature.channels for feature in self]

    def reduction(self) -> list[int]:
        return [feature.reduction for feature in self]

    def module_name(self) -> list[str]:
        return [feature.module for feature in self]


class Backbone(nn.Module):
    """Stem, four stages at strides 4, 8, 16 and 32, and a classifier.

    Args:
        stem: images `(N, in_chans, H, W)` to the first stage's input.
        stages: four modules, each of which halves the map before its `blocks` where needed.
        head: the last stage's map to logits `(N, num_classes)`; its layer `classifier_name` is the
            classifier.
        stage_channels: the channels of the four stage maps.
        in_chans: the channels of the images.

    Attributes:
        variant, config: the registered name and the options it was built with, where
            `paperrepro.create_model` built it.
        input, classes: how images are prepared and the names of the classes, where known; both
            are saved with the weights.
        reparameterized: whether `paperrepro.reparameterize` made it.
        classifier_has_norm: whether it also folded the head's norm into the classifier, so that
            the features before it are no longer those of the network.
        num_features: the channels of the last map.
        head_hidden_size: the features that enter the classifier.
    """

    foldable = True  # `reparameterize` may change the layers of its parts
    classifier_name = "fc"
    modules_per_block = 1
    init_weights: Callable[[nn.Module], None] | None = None

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        stage_channels: Sequence[int],
        num_classes: int,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.stage_channels = tuple(stage_channels)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.stage_channels[-1]
        self.make_classifier, self.head_hidden_size = classifier_like(self.get_classifier())
        self.variant: str | None = None
        self.config: dict[str, Any] = {}
        self.input: Input | None = None
        self.classes: tuple[str, ...] | None = None
        self.reparameterized = False
        self.classifier_has_norm = False
        self.grad_checkpointing = False
        if self.init_weights is not None:
            self.apply(self.init_weights)

    def features(self, images: Tensor) -> list[Tensor]:
        """The four stage maps of `images`.

        Args:
            images: `(N, in_chans, H, W)` with H and W at least 32; they need not be equal.

        Returns:
            Four maps `(N, C_i, H / s, W / s)` with C_i and s of `feature_info`: s = 4, 8, 16, 32
            unless `output_stride` is smaller.

        Raises:
            ValueError: the images have another shape, or a side is shorter than 32 pixels.
        """
        check_images(images, self.in_chans, self.variant or type(self).__name__)
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = self.run_stage(stage, x)
            maps.append(x)
        return maps

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """A stage's map; with gradient checkpointing each block keeps its input only."""
        if not (self.grad_checkpointing and self.training and torch.is_grad_enabled()):
            return stage(x)
        for name, part in stage.named_children():
            for block in part.children() if name == "blocks" else [part]:
                again = partial(recomputing, block)
                x = checkpoint(block, x, use_reentrant=False, context_fn=again)
        return x

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage's map `(N, num_features, H / 32, W / 32)`; see `features`."""
        return self.features(images)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map to logits, or to the `(N, head_hidden_size)` that enter the classifier.

        Raises:
            ValueError: those are not there any more, since a norm was folded into the classifier.
        """
        if not pre_logits:
            return self.head(x)
        self.check_features()
        for name, layer in self.head.named_children():
            if name == self.classifier_name:
                break
            x = layer(x)
        return x.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of `images` `(N, in_chans, H, W)`; see `features`. Pooled
        features `(N, head_hidden_size)` where `num_classes` is 0."""
        return self.forward_head(self.forward_features(images))

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, reduction and module of each of the four maps."""
        stride, infos = stride_of(self.stem), []
        for i, (stage, width) in enumerate(zip(self.stages, self.stage_channels, strict=True)):
            stride *= stride_of(stage)
            infos.append(FeatureMap(width, stride, f"stages.{i}"))
        return FeatureInfo(infos)

    def check_features(self) -> None:
        if self.classifier_has_norm:
            raise ValueError(
                "the network was re-parameterized, and its last norm is part of the classifier: "
                "take the features of the network as it was trained, or its logits"
            )

    def get_classifier(self) -> nn.Module:
        """The last layer, or the identity where `num_classes` is 0."""
        return getattr(self.head, self.classifier_name, None) or nn.Identity()

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a freshly initialised classifier instead of this one; none for 0 classes."""
        if num_classes < 0:
            raise ValueError(
                f"num_classes is {num_classes}; give 1 or more, or 0 for no classifier"
            )
        self.check_features()
        layer: nn.Module = nn.Identity()
        if num_classes:
            first = next(self.parameters())
            layer = self.make_classifier(num_classes).to(first.device, first.dtype)
            if self.init_weights is not None:
                layer.apply(self.init_weights)
        if self.classifier_name not in self.head._modules:
            raise ValueError(
                "the network was re-parameterized without a classifier, and has no place for one; "
                "reset the classifier of the network as it was trained"
            )
        setattr(self.head, self.classifier_name, layer.train(self.training))
        self.num_classes = num_classes
        self.classes = None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes the blocks a second time in the backward pass, to keep less in memory.

        BatchNorm's statistics are counted once, as without it.
        """
        self.grad_checkpointing = enable


class FeatureExtractor(nn.Module):
    """Some of a network's maps, under a stem and stages that torchvision's tools can walk through.

    Args:
        backbone: the network, whose head is left out.
        out_indices: which of the four maps; negative ones count from the last.

    Attributes:
        feature_info: of the maps that it returns.
    """

    def __init__(self, backbone: Backbone, out_indices: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        count = len(backbone.stages)
        wrong = [i for i in out_indices if not -count <= i < count]
        if wrong or not out_indices:
            raise ValueError(
                f"out_indices is {tuple(out_indices)}; there are the maps 0 to {count - 1}"
            )
        self.out_indices = sorted({i % count for i in out_indices})
        self.variant, self.in_chans = backbone.variant, backbone.in_chans
        self.stem = backbone.stem
        self.stage_names = [f"stage{i + 1}" for i in range(self.out_indices[-1] + 1)]
        for name, stage in zip(self.stage_names, backbone.stages, strict=False):
            self.add_module(name, stage)
        infos = backbone.feature_info
        self.feature_info = FeatureInfo(
            infos[i]._replace(module=self.stage_names[i]) for i in self.out_indices
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of `images` `(N, in_chans, H, W)`, as `feature_info` lists them."""
        check_images(images, self.in_chans, self.variant or type(self).__name__)
        x = self.stem(images)
        maps = []
        for i, name in enumerate(self.stage_names):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                maps.append(x)
        return maps


def classifier_like(layer: nn.Module) -> tuple[Callable[[int], nn.Module], int]:
    """What makes a classifier of any number of classes, and the features it takes."""
    if isinstance(layer, nn.Linear):
        return partial(nn.Linear, layer.in_features), layer.in_features
    if isinstance(layer, TwoHeads):
        return partial(TwoHeads, layer.head.in_channels), layer.head.in_channels
    if isinstance(layer, nn.Conv2d):
        return partial(nn.Conv2d, layer.in_channels, kernel_size=1), layer.in_channels
    raise ValueError(
        f"the head's classifier is a {type(layer).__name__}; it must be a linear layer, a 1x1 "
        "convolution or two of them"
    )


def stride_of(module: nn.Module) -> int:
    """The side of a module's input over that of its output."""
    if isinstance(module, nn.Conv2d | DeformConv2d):
        return module.stride[0]
    strides = [stride_of(child) for child in module.children()]
    return max(strides, default=1) if isinstance(module, Branches) else prod(strides)


def set_output_stride(model: Backbone, output_stride: int) -> None:
    """Dilates the stages that would reduce the image by more than `output_stride`, in place.

    A convolution that halves the map keeps its size instead, and all after it spread their kernels
    over twice the distance, and graphs their connections. So every second pixel of every second row
    of the new map is the old one's (Yu & Koltun, ICLR 2016).
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is {output_stride}; it must be 8, 16 or 32")
    reached, dilation = stride_of(model.stem), 1
    for stage in model.stages:
        stride = stride_of(stage)
        if reached * stride <= output_stride:
            reached *= stride
            continue
        after = dilation
        for parent in list(stage.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Conv2d | DeformConv2d):
                    halves = layer.stride[0] > 1
                    parent._modules[name] = dilate(layer, dilation if halves else after)
                    after = dilation * stride if halves else after
                elif isinstance(layer, Spread):
                    layer.dilate(after)
        dilation = after


def dilate(layer: nn.Conv2d | DeformConv2d, dilation: int) -> nn.Module:
    """The convolution with its kernel spread out, and without its stride."""
    if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] % 2 == 0:
        return TrailingPadConv2d(layer, dilation)
    layer.stride = (1, 1)
    layer.dilation = (dilation * layer.dilation[0], dilation * layer.dilation[1])
    rows, columns = (
        spread * (side - 1) // 2
        for spread, side in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    layer.padding = (rows, columns)
    return layer


class TrailingPadConv2d(nn.Conv2d):
    """A convolution with an even kernel that keeps the map's size: it pads below and to the right,
    so that its kernel begins where the strided one began."""

    foldable = True

    def __init__(self, conv: nn.Conv2d, dilation: int) -> None:
        margin = dilation * (conv.kernel_size[0] - 1)
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            padding=margin,
            dilation=dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias, self.margin = conv.weight, conv.bias, margin

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, self.margin, 0, self.margin))
        return F.conv2d(padded, self.weight, self.bias, 1, 0, self.dilation, self.groups)


def recomputing(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What surrounds a checkpointed block: nothing at first, frozen statistics the second time."""
    return nullcontext(), statistics_kept(block)


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Lets BatchNorm normalise by the batch without counting it."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
