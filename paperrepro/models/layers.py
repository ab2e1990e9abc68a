"""Blocks that two or more of the networks share.

A block is a chain of named layers (`Chain`), a residual chain (`Residual`) or a sum of parallel
branches (`Branches`). Nothing else is needed to write the five papers down, and
`paperrepro.reparameterize` has to know no more than these three.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from ..ops import DepthwiseConv2d

Choice = TypeVar("Choice")

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

    foldable = True

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


def drop_path(rate: float) -> StochasticDepth | None:
    """Stochastic depth per image, or no layer at a rate of 0."""
    return StochasticDepth(rate, "row") if rate else None


def choose(option: str, choices: Mapping[str, Choice], value: str) -> Choice:
    """`choices[value]`, or an error that names the option and what it takes."""
    if value not in choices:
        raise ValueError(
            f"unknown {option} {value!r}: choose one of {', '.join(map(repr, choices))}"
        )
    return choices[value]
