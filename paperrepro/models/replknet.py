"""RepLKNet: Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs (Ding et al.,
CVPR 2022).

Stages alternate RepLK blocks, each around one very large depthwise convolution with a small one
beside it in training, and ConvFFN blocks (Fig. 4).

Where the released code differs from the paper we follow the code, so that its weights load:
- A BatchNorm opens both blocks. Fig. 4 shows it; the text has it for the ConvFFN only.
- A last BatchNorm stands before the pooling, which the text does not mention.
- The paper's B counts pairs of a RepLK block and a ConvFFN block, which share one drop rate.
- RepLKNet-XL has no small kernel, and 1.5 times the channels in its depthwise convolutions.
- Table 5's RepLKNet-3 cannot have the 5x5 branch; whether it had a 3x3 one is not stated
  (`small_kernel=3` builds that; fused, both are the same network).
- The tables count parameters after the released re-parameterization.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .layers import Backbone, Branches, Chain, ConvNorm, Residual, drop_path
from .registry import register


class LargeKernel(Branches):
    """A K x K depthwise convolution and, in training, a small one in parallel (Guideline 3)."""

    def __init__(self, channels: int, kernel_size: int, small_kernel: int | None) -> None:
        if small_kernel and small_kernel > kernel_size:
            raise ValueError(
                f"the small kernel ({small_kernel}) is larger than the large one ({kernel_size}); "
                "choose a smaller small_kernel, or None"
            )
        small = None
        if small_kernel:
            small = ConvNorm(channels, channels, small_kernel, groups=channels)
        super().__init__(
            large=ConvNorm(channels, channels, kernel_size, groups=channels), small=small
        )


def replk_block(
    channels: int,
    kernel_size: int,
    small_kernel: int | None,
    ratio: float,
    shortcut: bool,
    rate: float,
) -> Chain:
    """BN, 1x1, large depthwise, 1x1 (Fig. 4), with the shortcut of Guideline 2 or without."""
    hidden = int(channels * ratio)
    return (Residual if shortcut else Chain)(
        norm=nn.BatchNorm2d(channels),
        pw1=ConvNorm(channels, hidden, act="relu"),
        large_kernel=LargeKernel(hidden, kernel_size, small_kernel),
        act=nn.ReLU(),
        pw2=ConvNorm(hidden, channels),
        drop=drop_path(rate),
    )


def conv_ffn(channels: int, rate: float) -> Residual:
    """BN, 1x1 to 4C, GELU, 1x1 back (Fig. 4)."""
    return Residual(
        norm=nn.BatchNorm2d(channels),
        pw1=ConvNorm(channels, 4 * channels, act="gelu"),
        pw2=ConvNorm(4 * channels, channels),
        drop=drop_path(rate),
    )


class RepLKNet(Backbone):
    """RepLKNet (Section 4.1).

    Args:
        kernels: K, the large kernel of each of the four stages.
        channels: C, the channels of the stages.
        depths: B, the pairs of RepLK block and ConvFFN block of the stages.
        small_kernel: the parallel kernel in training, or None.
        depthwise_ratio: the depthwise channels over C.
        shortcut: False leaves out the RepLK blocks' shortcut (Guideline 2); the ConvFFN keeps its.
        drop_path_rate: stochastic depth of the last pair; the rates rise from 0.
    """

    def __init__(
        self,
        kernels: Sequence[int],
        channels: Sequence[int],
        depths: Sequence[int] = (2, 2, 18, 2),
        small_kernel: int | None = 5,
        depthwise_ratio: float = 1.0,
        shortcut: bool = True,
        drop_path_rate: float = 0.3,
        num_classes: int = 1000,
    ) -> None:
        first = channels[0]
        stem = nn.Sequential(
            ConvNorm(3, first, 3, 2, act="relu"),
            ConvNorm(first, first, 3, groups=first, act="relu"),
            ConvNorm(first, first, act="relu"),
            ConvNorm(first, first, 3, 2, groups=first, act="relu"),
        )
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        stages = []
        for i, (kernel, width, depth) in enumerate(zip(kernels, channels, depths, strict=True)):
            transition = None
            if i:
                transition = nn.Sequential(
                    ConvNorm(channels[i - 1], width, act="relu"),
                    ConvNorm(width, width, 3, 2, groups=width, act="relu"),
                )
            blocks = []
            for _ in range(depth):
                rate = next(rates)
                blocks += [
                    replk_block(width, kernel, small_kernel, depthwise_ratio, shortcut, rate),
                    conv_ffn(width, rate),
                ]
            stages.append(Chain(downsample=transition, blocks=nn.Sequential(*blocks)))
        head = Chain(
            norm=nn.BatchNorm2d(channels[-1]),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(channels[-1], num_classes),
        )
        super().__init__(stem, stages, head, stage_channels=channels, num_classes=num_classes)


BASE = (128, 256, 512, 1024)


@register(RepLKNet)
def replknet_3(**config) -> RepLKNet:
    return RepLKNet(**(dict(kernels=(3, 3, 3, 3), channels=BASE, small_kernel=None) | config))


@register(RepLKNet)
def replknet_7(**config) -> RepLKNet:
    return RepLKNet(**(dict(kernels=(7, 7, 7, 7), channels=BASE) | config))


@register(RepLKNet)
def replknet_13(**config) -> RepLKNet:
    return RepLKNet(**(dict(kernels=(13, 13, 13, 13), channels=BASE) | config))


@register(RepLKNet)
def replknet_25(**config) -> RepLKNet:
    return RepLKNet(**(dict(kernels=(25, 25, 25, 13), channels=BASE) | config))


@register(RepLKNet)
def replknet_31b(**config) -> RepLKNet:
    return RepLKNet(**(dict(kernels=(31, 29, 27, 13), channels=BASE) | config))


@register(RepLKNet)
def replknet_31l(**config) -> RepLKNet:
    defaults = dict(kernels=(31, 29, 27, 13), channels=(192, 384, 768, 1536))
    return RepLKNet(**(defaults | config))


@register(RepLKNet)
def replknet_xl(**config) -> RepLKNet:
    defaults = dict(
        kernels=(27, 27, 27, 13),
        channels=(256, 512, 1024, 2048),
        small_kernel=None,
        depthwise_ratio=1.5,
    )
    return RepLKNet(**(defaults | config))
