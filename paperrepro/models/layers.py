"""Blocks that two or more of the networks share.

A network is a `Backbone`: a stem, four stages and a head. Its blocks are chains of named layers
(`Chain`), residual chains (`Residual`) and sums of parallel branches (`Branches`). Nothing else
is needed to write the five papers down, and `paperrepro.reparameterize` has to know no more than
these three.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from ..ops import DepthwiseConv2d

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
LARGE_KERNEL = 5
NORMS = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d}


class Chain(nn.Sequential):
    """Layers applied one after the other, each under its own name; `None` stands for no layer."""

    def __init__(self, **layers: nn.Module | None) -> None:
        super().__init__()
        for name, layer in layers.items():
            if layer is not None:
                self.add_module(name, layer)


class Residual(Chain):
    """`x + chain(x)`: the chain computes what is added to its input, shapes `(N, C, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Branches(nn.ModuleDict):
    """The sum of parallel branches that all see the same input.

    Branches that are linear at inference (a convolution, a BatchNorm, the identity) are merged
    into one convolution by `paperrepro.reparameterize`.
    """

    def __init__(self, **branches: nn.Module | None) -> None:
        super().__init__({name: branch for name, branch in branches.items() if branch is not None})

    def forward(self, x: Tensor) -> Tensor:
        return reduce(add, [branch(x) for branch in self.values()])


class ConvNorm(Chain):
    """A convolution that keeps the map's size (at stride 1), its normalisation, an activation.

    Args:
        act: a name in `ACTIVATIONS`, or None for a linear layer.
        norm: a name in `NORMS`: BatchNorm, or LayerNorm over the channels of each pixel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: str = "batch",
        act: str | None = None,
    ) -> None:
        super().__init__(
            conv=convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                dilation=dilation,
                groups=groups,
                bias=bias,
            ),
            norm=choose("norm", NORMS, norm)(out_channels),
            act=choose("act", ACTIVATIONS, act)() if act else None,
        )


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution padded by half its kernel; our own where PyTorch's is slow or breaks."""
    depthwise = groups == in_channels == out_channels
    if kernel_size == 1 and stride > 1:
        return StridedPointwise(in_channels, out_channels, 1, stride, groups=groups, bias=bias)
    if depthwise and kernel_size >= LARGE_KERNEL and stride == dilation == 1:
        return DepthwiseConv2d(out_channels, kernel_size, bias=bias)
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=dilation * (kernel_size - 1) // 2,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, computed of the pixels that it reads only.

    With torch 2.15 on x86-64 the weight gradient of `nn.Conv2d(3, 48, 1, stride=2)`, the scale
    branch of MobileOne's stem, overwrites memory that is not its own (a crash, later or at once)
    for two channels_last images of 224 pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        x = x[:, :, ::rows, ::columns]
        return nn.functional.conv2d(x, self.weight, self.bias, groups=self.groups)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number that starts small (Touvron et al., 2021)."""

    def __init__(self, channels: int, init: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Backbone(nn.Module):
    """Stem, four stages at strides 4, 8, 16 and 32, and a classifier.

    Args:
        stem: images `(N, 3, H, W)` to the first stage's input.
        stages: four modules, each of which halves the map before its blocks where needed.
        head: the last stage's map to logits `(N, num_classes)`.
        stage_channels: the channels of the four stage maps.

    Attributes:
        variant, config: the registered name and the options it was built with, where
            `paperrepro.create_model` built it.
        reparameterized: whether `paperrepro.reparameterize` made it.
    """

    stride = 32

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        *,
        stage_channels: Sequence[int],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.stage_channels = tuple(stage_channels)
        self.num_classes = num_classes
        self.variant: str | None = None
        self.config: dict = {}
        self.reparameterized = False

    def features(self, images: Tensor) -> list[Tensor]:
        """The four stage maps of `images`.

        Args:
            images: `(N, 3, H, W)` with H and W at least 32; they need not be equal.

        Returns:
            Four maps `(N, C_i, H / s, W / s)` with s = 4, 8, 16, 32 and `C_i` in
            `stage_channels`.

        Raises:
            ValueError: the images have another shape, or a side is shorter than 32 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                f"expected images of shape (N, 3, H, W), got {tuple(images.shape)}; "
                "a single image needs images.unsqueeze(0), a grey one images.expand(-1, 3, -1, -1)"
            )
        if min(images.shape[2:]) < self.stride:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels are too small for "
                f"{self.variant or type(self).__name__}: each side needs at least {self.stride}, "
                "because the last stage halves the image five times; resize them first"
            )
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of `images` `(N, 3, H, W)`; see `features`."""
        return self.head(self.features(images)[-1])


class TwoHeads(nn.Module):
    """The classifier and the distillation classifier of a distilled network (Touvron et al.,
    DeiT, 2021): two 1x1 convolutions whose mean is the network's answer."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, num_classes, 1)
        self.dist_head = nn.Conv2d(in_channels, num_classes, 1)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two answers apart, as the distillation loss needs them, each `(N, classes, 1, 1)`."""
        return self.head(x), self.dist_head(x)

    def forward(self, x: Tensor) -> Tensor:
        head, dist_head = self.both(x)
        return (head + dist_head) / 2


# What MobileViG, MobileViGv2 and RapidNet have in common: one group's three papers, one code base.
# Their convolutions keep a bias although a BatchNorm follows.


def conv_stem(channels: int) -> Chain:
    """Two 3x3 convolutions of stride 2: images to `channels` maps at stride 4."""
    return Chain(
        conv1=ConvNorm(3, channels // 2, 3, 2, bias=True, act="gelu"),
        conv2=ConvNorm(channels // 2, channels, 3, 2, bias=True, act="gelu"),
    )


def downsample(in_channels: int, out_channels: int) -> ConvNorm:
    """A 3x3 convolution of stride 2 between two stages, with no activation."""
    return ConvNorm(in_channels, out_channels, 3, 2, bias=True)


def conditional_position_encoding(channels: int, kernel_size: int = 7) -> Branches:
    """x + DW(x), the conditional position encoding in the re-parameterizable form of FastViT."""
    conv = convolution(channels, channels, kernel_size, groups=channels)
    return Branches(identity=nn.Identity(), conv=conv)


def drop_path(rate: float) -> StochasticDepth | None:
    """Stochastic depth per image, or no layer at a rate of 0."""
    return StochasticDepth(rate, "row") if rate else None


def inverted_residual(channels: int, rate: float, expansion: int = 4) -> Residual:
    """MobileNetV2's block with GELU and a layer scale: 1x1 up, depthwise 3x3, 1x1 down."""
    hidden = expansion * channels
    return Residual(
        expand=ConvNorm(channels, hidden, bias=True, act="gelu"),
        depthwise=ConvNorm(hidden, hidden, 3, groups=hidden, bias=True, act="gelu"),
        project=ConvNorm(hidden, channels, bias=True),
        scale=LayerScale(channels),
        drop=drop_path(rate),
    )


class MaxRelative(nn.Module):
    """The max-relative features of a fixed graph: `(N, C, H, W)` to `(N, 2C, H, W)`.

    Each pixel is put beside the largest difference between it and the pixels it is connected to,
    channel by channel, itself (a difference of 0) included. Connections wrap around the border.

    Args:
        graph: "mgc" connects a pixel to the four at `distance` along its row and its column
            (MobileViGv2, Section 4.1); "svga" to every `distance`-th pixel of both (MobileViG).
        reverse: pixel minus neighbour, as MobileViG's code has it, for neighbour minus pixel.
    """

    def __init__(self, graph: str, distance: int, *, reverse: bool = False) -> None:
        super().__init__()
        if graph not in ("mgc", "svga"):
            raise ValueError(f"unknown graph {graph!r}: choose 'mgc' or 'svga'")
        self.graph, self.distance, self.reverse = graph, distance, reverse

    def shifts(self, side: int) -> list[int]:
        """How far the neighbours lie along a side of that many pixels."""
        if self.graph == "mgc":
            return [-self.distance, self.distance]
        return list(range(self.distance, side, self.distance))

    def forward(self, x: Tensor) -> Tensor:
        largest = torch.zeros_like(x)
        for dim in (2, 3):
            for shift in self.shifts(x.shape[dim]):
                neighbour = roll(x, shift, dim)
                difference = x - neighbour if self.reverse else neighbour - x
                largest = torch.maximum(largest, difference)
        return torch.cat([x, largest], dim=1)

    def extra_repr(self) -> str:
        return f"{self.graph!r}, distance={self.distance}"


def roll(x: Tensor, shift: int, dim: int) -> Tensor:
    """`torch.roll` by two slices and a concatenation, as the released code writes it.

    Both are the same up to the length of the side. Beyond it this is the identity, and
    `torch.roll` would go round again.
    """
    side = x.shape[dim]
    if abs(shift) >= side:
        return x
    head, tail = x.split([-shift % side, shift % side], dim)
    return torch.cat([tail, head], dim)


def feed_forward(
    channels: int, rate: float, *, depthwise_kernel: int | None = None, scale: bool = True
) -> Residual:
    """Two 1x1 convolutions, C to 4C to C, as a residual; a depthwise convolution may come first.

    With `depthwise_kernel=7` this is RapidNet's large-kernel FFN (Eq. 7, plus the BatchNorm after
    FC1 that the equation leaves out).
    """
    depthwise = None
    if depthwise_kernel:
        depthwise = ConvNorm(channels, channels, depthwise_kernel, groups=channels)
    return Residual(
        depthwise=depthwise,
        fc1=ConvNorm(channels, 4 * channels, bias=True, act="gelu"),
        fc2=ConvNorm(4 * channels, channels, bias=True),
        scale=LayerScale(channels) if scale else None,
        drop=drop_path(rate),
    )


def two_layer_head(channels: int, hidden: int, num_classes: int, *, distilled: bool) -> Chain:
    """Pooling, a 1x1 convolution to `hidden` channels with BN and GELU, then the classifier(s)."""
    return Chain(
        pool=nn.AdaptiveAvgPool2d(1),
        hidden=ConvNorm(channels, hidden, bias=True, act="gelu"),
        classifier=TwoHeads(hidden, num_classes)
        if distilled
        else nn.Conv2d(hidden, num_classes, 1),
        flatten=nn.Flatten(),
    )


StageRates = list[tuple[list[float], list[float]]]


def released_drop_rates(local: Sequence[int], mixers: Sequence[int], rate: float) -> StageRates:
    """Per stage, the stochastic depth of its local blocks and of its mixer blocks.

    The released MobileViGv2 and RapidNet count through `linspace(0, rate, blocks)` in the mixer
    blocks only. So the local blocks of a stage share one rate, and no block reaches `rate`: the
    largest of MobileViGv2-Ti is 0.029, not 0.1.
    """
    step = rate / max(sum(local) + sum(mixers) - 1, 1)
    rates, index = [], 0
    for locals_here, mixers_here in zip(local, mixers, strict=True):
        mixer_rates = [step * (index + i) for i in range(mixers_here)]
        rates.append(([step * index] * locals_here, mixer_rates))
        index += mixers_here
    return rates


class LocalGlobalNet(Backbone):
    """The frame of the three: in each stage inverted residuals, then blocks that mix further away.

    Args:
        channels: the channels of the four stages.
        rates: per stage, the stochastic depth of each local and of each mixer block.
        mixer_block: makes the mixer block of a stage, given its index, its channels and a rate.
        embed_dim: the hidden channels of the classifier.
        distilled: two classifiers, whose mean is the answer, or one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        rates: StageRates,
        mixer_block: Callable[[int, int, float], nn.Module],
        embed_dim: int,
        distilled: bool,
        num_classes: int,
    ) -> None:
        stages = []
        for i, (width, (local, mixers)) in enumerate(zip(channels, rates, strict=True)):
            blocks = [inverted_residual(width, rate) for rate in local]
            blocks += [mixer_block(i, width, rate) for rate in mixers]
            stages.append(
                Chain(
                    downsample=downsample(channels[i - 1], width) if i else None,
                    blocks=nn.Sequential(*blocks),
                )
            )
        super().__init__(
            conv_stem(channels[0]),
            stages,
            two_layer_head(channels[-1], embed_dim, num_classes, distilled=distilled),
            stage_channels=channels,
            num_classes=num_classes,
        )
        self.apply(init_kaiming)


def init_kaiming(module: nn.Module) -> None:
    """The released initialisation of the three: every convolution `kaiming_normal_`, bias 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def choose(option: str, choices: dict, value: str):
    """`choices[value]`, or an error that names the option and what it takes."""
    if value not in choices:
        raise ValueError(
            f"unknown {option} {value!r}: choose one of {', '.join(map(repr, choices))}"
        )
    return choices[value]
