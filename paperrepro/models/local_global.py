"""What MobileViG, MobileViGv2 and RapidNet share: one group's three papers, one code base.

In each stage inverted residuals mix neighbours, and after them blocks of the paper's own mix pixels
that lie further apart. Their convolutions keep a bias although a BatchNorm follows.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .describe import blocks_of, commas
from .layers import (
    Branches,
    Chain,
    ConvNorm,
    LayerScale,
    Residual,
    TwoHeads,
    convolution,
    drop_path,
)
from .registry import Release


def conv_stem(channels: int, in_chans: int = 3) -> Chain:
    """Two 3x3 convolutions of stride 2: images to `channels` maps at stride 4."""
    return Chain(
        conv1=ConvNorm(in_chans, channels // 2, 3, 2, bias=True, act="gelu"),
        conv2=ConvNorm(channels // 2, channels, 3, 2, bias=True, act="gelu"),
    )


def downsample(in_channels: int, out_channels: int) -> ConvNorm:
    """A 3x3 convolution of stride 2 between two stages, with no activation."""
    return ConvNorm(in_channels, out_channels, 3, 2, bias=True)


def conditional_position_encoding(channels: int, kernel_size: int = 7) -> Branches:
    """x + DW(x), the conditional position encoding in the re-parameterizable form of FastViT."""
    conv = convolution(channels, channels, kernel_size, groups=channels)
    return Branches(identity=nn.Identity(), conv=conv)


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
        return shifts(self.graph, self.distance, side)

    def dilate(self, factor: int) -> None:
        """Connects pixels that lie further apart, for a map that was not halved."""
        self.distance *= factor

    def forward(self, x: Tensor) -> Tensor:
        return max_relative(x, self.graph, self.distance, self.reverse)

    def extra_repr(self) -> str:
        return f"{self.graph!r}, distance={self.distance}"


def shifts(graph: str, distance: int, side: int) -> list[int]:
    if graph == "mgc":
        return [-distance, distance]
    return list(range(distance, side, distance))


def max_relative(x: Tensor, graph: str, distance: int, reverse: bool) -> Tensor:
    """What `MaxRelative` computes. In a traced graph it is one node, because how many connections
    there are depends on the map's size.

    The zeros of the pixel itself are the first difference less itself: then all is arithmetic on
    maps, which a phone's delegate takes in one piece, and the gradient is as with zeros.
    """
    pixels = x
    if torch.jit.is_tracing():  # it keeps this size's connections: at another one it must fail
        pixels = x.expand(-1, -1, *map(int, x.shape[2:]))
    largest = None
    for dim in (2, 3):
        for shift in shifts(graph, distance, x.shape[dim]):
            neighbour = roll(pixels, shift, dim)
            difference = pixels - neighbour if reverse else neighbour - pixels
            before = difference - difference if largest is None else largest
            largest = torch.maximum(before, difference)
    return torch.cat([x, torch.zeros_like(pixels) if largest is None else largest], dim=1)


torch.fx.wrap("max_relative")


def roll(x: Tensor, shift: int, dim: int) -> Tensor:
    """`torch.roll` by two slices and a concatenation, as the released code writes it.

    Both are the same up to the length of the side. Beyond it this is the identity, and
    `torch.roll` would go round again.
    """
    side = x.shape[dim]
    if abs(shift) >= side:
        return x
    start = -shift % side
    return torch.cat([x.narrow(dim, start, side - start), x.narrow(dim, 0, start)], dim)


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


def init_kaiming(module: nn.Module) -> None:
    """The released initialisation of the three: every convolution `kaiming_normal_`, bias 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LocalGlobalNet(Backbone):
    """The frame of the three: in each stage inverted residuals, then blocks that mix further away.

    Args:
        channels: the channels of the four stages.
        rates: per stage, the stochastic depth of each local and of each mixer block.
        mixer_block: makes the mixer block of a stage, given its index, its channels and a rate.
        embed_dim: the hidden channels of the classifier.
        distilled: two classifiers, whose mean is the answer, or one.
    """

    classifier_name = "classifier"
    init_weights = staticmethod(init_kaiming)

    def __init__(
        self,
        channels: Sequence[int],
        rates: StageRates,
        mixer_block: Callable[[int, int, float], nn.Module],
        embed_dim: int,
        distilled: bool,
        num_classes: int,
        in_chans: int,
    ) -> None:
        stages = []
        for i, (width, (local, mixers)) in enumerate(zip(channels, rates, strict=True)):
            blocks: list[nn.Module] = [inverted_residual(width, rate) for rate in local]
            blocks += [mixer_block(i, width, rate) for rate in mixers]
            stages.append(
                Chain(
                    downsample=downsample(channels[i - 1], width) if i else None,
                    blocks=nn.Sequential(*blocks),
                )
            )
        super().__init__(
            conv_stem(channels[0], in_chans),
            stages,
            two_layer_head(channels[-1], embed_dim, num_classes, distilled=distilled),
            channels,
            num_classes,
            in_chans,
        )


def conv_parameters(model: Backbone, fused: Backbone) -> int:
    """As the released counter of MobileViG and MobileViGv2 counts: it sees convolutions only, and
    takes for each its weights and, for a bias, the weight's second dimension."""
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return sum(conv.weight.numel() + conv.weight.shape[1] for conv in convs)


def irb_blocks(model: Backbone) -> str:
    """The inverted residual blocks of each stage."""
    return commas(
        sum(isinstance(block, Residual) for block in blocks_of(stage)) for stage in model.stages
    )


def mixer_blocks(model: Backbone) -> str:
    """The blocks of each stage that mix pixels further apart."""
    return commas(sum(hasattr(b, "mixer") for b in blocks_of(stage)) for stage in model.stages)


def sldgroup(
    repository: str, top1: Mapping[str, float], files: Mapping[str, str] | None = None
) -> dict[str, Release]:
    """The group's published checkpoints: accuracies by variant, and the files that have an
    address."""
    page = f"https://huggingface.co/SLDGroup/{repository}"
    loaded = "Holds plain and averaged (EMA) weights; the averaged ones are loaded."
    fetched = "Fetch the ImageNet checkpoint from the page and pass its path as weights=."
    files = files or {}
    return {
        name: Release(
            accuracy,
            url=f"{page}/resolve/main/{files[name]}" if name in files else None,
            page=page,
            note=loaded if name in files else fetched,
        )
        for name, accuracy in top1.items()
    }


ONE_HEAD = {"embed_dim": 128, "drop_path_rate": 0.0, "distilled": False}
"""Options of the three for a small training without a teacher."""
