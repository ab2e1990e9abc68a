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

from . import describe
from .backbone import Backbone
from .layers import Branches, Chain, ConvNorm, Residual, drop_path
from .registry import DenseCount, Family, Input, Paper, Release, register


class LargeKernel(Branches):
    """A K x K depthwise convolution and, in training, a small one in parallel (Guideline 3)."""

    foldable = True

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

    modules_per_block = 2

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
        in_chans: int = 3,
    ) -> None:
        first = channels[0]
        stem = nn.Sequential(
            ConvNorm(in_chans, first, 3, 2, act="relu"),
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
        super().__init__(stem, stages, head, channels, num_classes, in_chans)


# What the paper's tables state of a variant.


def parameters(model: Backbone, fused: Backbone) -> int:
    """After the released re-parameterization, which merges the small kernel and folds each
    BatchNorm that follows a convolution; those that open a block and the last one stay.

    The tables truncate. (Rounded, the completely fused count fits as many of their rows.)
    """
    opening = (
        describe.count_parameters(child)
        for parent in model.modules()
        if not isinstance(parent, ConvNorm)
        for child in parent.children()
        if isinstance(child, nn.BatchNorm2d)
    )
    return describe.count_parameters(fused) + sum(opening)


def kernels(model: Backbone) -> str:
    """The large kernel of each stage."""
    return describe.commas(
        describe.only(
            (
                layer["large"].conv.kernel_size[0]
                for layer in describe.modules_of(stage, LargeKernel)
            ),
            "the kernel size",
        )
        for stage in model.stages
    )


def dw_ratio(model: Backbone) -> str:
    def out_channels(block: nn.Module, name: str) -> int:
        return describe.modules_of(block.get_submodule(name), nn.Conv2d)[0].out_channels

    ratios = (
        f"{out_channels(block, 'large_kernel') / out_channels(block, 'pw2'):g}"
        for block in model.modules()
        if hasattr(block, "large_kernel")
    )
    return describe.only(ratios, "the depthwise ratio")


def release(top1: float, file: str = "", note: str = "", input: Input | None = None) -> Release:
    base = "https://download.openmmlab.com/mmclassification/v0/replknet"
    return Release(
        top1,
        url=f"{base}/{file}.pth" if file else None,
        page="https://github.com/DingXiaoH/RepLKNet-pytorch",
        layout="openmmlab" if file else "released",
        sha256=file.rpartition("-")[2],
        input=input,
        note=note or "OpenMMLab's copy of the authors' file, with the keys renamed.",
    )


UNRELEASED = "Table 5's network of 120 epochs; the authors published no weights for it."
BASE = (128, 256, 512, 1024)

FAMILY = register(
    Family(
        network=RepLKNet,
        variants={  # Sections 4.2 and 4.3, Table 5
            "replknet_3": dict(kernels=(3, 3, 3, 3), channels=BASE, small_kernel=None),
            "replknet_7": dict(kernels=(7, 7, 7, 7), channels=BASE),
            "replknet_13": dict(kernels=(13, 13, 13, 13), channels=BASE),
            "replknet_25": dict(kernels=(25, 25, 25, 13), channels=BASE),
            "replknet_31b": dict(kernels=(31, 29, 27, 13), channels=BASE),
            "replknet_31l": dict(kernels=(31, 29, 27, 13), channels=(192, 384, 768, 1536)),
            "replknet_xl": dict(
                kernels=(27, 27, 27, 13),
                channels=(256, 512, 1024, 2048),
                small_kernel=None,
                depthwise_ratio=1.5,
            ),
        },
        paper=Paper(
            "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs",
            "Ding et al.",
            "CVPR",
            2022,
            arxiv="2203.06717",
        ),
        input=Input(size=224, crop=0.875, interpolation="bicubic"),
        parameters=parameters,
        macs_of="fused",
        described=(
            describe.channels,
            describe.depths,
            kernels,
            dw_ratio,
            describe.reduction,
        ),
        releases={
            "replknet_3": release(82.11, note=UNRELEASED),
            "replknet_7": release(82.73, note=UNRELEASED),
            "replknet_13": release(
                83.02,
                note="The authors' README links a 120-epoch file; fetch it and pass its path.",
            ),
            "replknet_25": release(83.0, note=UNRELEASED),
            "replknet_31b": release(83.5, "RepLKNet-31B_ImageNet-1K_224_20221024-debd6715"),
            "replknet_31l": release(
                86.6,
                "RepLKNet-31L_ImageNet-22K-to-1K_384_20221024-6f8ee74d",
                input=Input(size=384, crop=None),
            ),
            "replknet_xl": release(
                87.8,
                "RepLKNet-XL_MegData73M_ImageNet1K_20221024-664f2980",
                "OpenMMLab's copy of the authors' file; they measured 87.57 with it.",
                Input(size=320, crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            ),
        },
        layouts="paperrepro.weights.layouts:REPLKNET",
        normalised_maps=("replknet_xl",),
        dense_count=DenseCount(fused=True, per_norm=0),
        recipes="paperrepro.training.papers:replknet",
        small=dict(
            config=dict(channels=(24, 48, 96, 192), depths=(1, 1, 2, 1), drop_path_rate=0.0),
            lr=4e-3,
        ),
        color="#009E73",
    )
)
