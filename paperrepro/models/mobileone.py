"""MobileOne: An Improved One millisecond Mobile Backbone (Vasu et al., CVPR 2023).

A plain chain of depthwise and pointwise convolutions at inference. In training every convolution
is a sum of parallel branches (Fig. 3): k convolutions, a 1x1 "scale" convolution and a BatchNorm
"skip", which `paperrepro.reparameterize` merges into one.

Where the released code differs from the paper we follow the code, so that its weights load:
- The stem is min(64, 64 alpha) wide. Table 2 says 64 alpha, which is 96 to 192 for S1 to S4. The
  parameters of S1 to S3 round the same either way; the paper's own MACs agree with the narrow stem
  only.
- S0's stem has one convolution branch; Table 2 gives it k = 4.
- Table 2's stages 4 and 5 are one stage of ten blocks. The SE of S4 ("SE-ReLU") stands in both
  halves, depthwise and pointwise, of the last five and of the final block.
- The paper counts parameters after re-parameterization: S0 trains with 5.3 M, not 2.1 M.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation, stochastic_depth

from . import describe
from .backbone import Backbone
from .layers import Branches, Chain, ConvNorm
from .registry import Family, Input, Paper, Release, register


class OverParameterized(Branches):
    """The branches of one convolution (Fig. 3), of which stochastic depth can leave the skip alone.

    Args:
        drop_path_rate: how often an image in training sees the skip only; neither the paper nor
            its code has this, timm has.
    """

    foldable = True

    def __init__(self, *, drop_path_rate: float = 0.0, **branches: nn.Module | None) -> None:
        super().__init__(**branches)
        self.drop_path_rate = drop_path_rate if "skip" in self else 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_path_rate:
            return super().forward(x)
        learned = reduce(add, [branch(x) for name, branch in self.items() if name != "skip"])
        return self["skip"](x) + stochastic_depth(
            learned, self.drop_path_rate, "row", self.training
        )


class MobileOneBlock(Chain):
    """One re-parameterizable convolution (Fig. 3): ReLU(SE(skip + scale + k convolutions)).

    Args:
        k: the over-parameterization factor, the number of K x K branches (Table 6).
        branches: False leaves a single convolution with BatchNorm (Table 7, "without").
        se: squeeze-and-excite with ratio 1/16 before the ReLU.
        drop_path_rate: see `OverParameterized`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        k: int = 1,
        branches: bool = True,
        se: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        keeps_shape = in_channels == out_channels and stride == 1
        skip = nn.BatchNorm2d(out_channels) if branches and keeps_shape else None
        scale = None
        if branches and kernel_size > 1:
            scale = ConvNorm(in_channels, out_channels, 1, stride, groups=groups)
        convs = {
            f"conv{i}": ConvNorm(in_channels, out_channels, kernel_size, stride, groups=groups)
            for i in range(k if branches else 1)
        }
        super().__init__(
            conv=OverParameterized(skip=skip, scale=scale, **convs, drop_path_rate=drop_path_rate),
            se=SqueezeExcitation(out_channels, out_channels // 16) if se else None,
            act=nn.ReLU(),
        )


class MobileOne(Backbone):
    """MobileOne (Section 3.3, Table 2).

    Args:
        widths: the multipliers alpha of the four stages, times 64, 128, 256 and 512 channels.
        blocks: how many depthwise + pointwise pairs each stage has.
        se_blocks: how many pairs at the end of each stage have squeeze-and-excite.
        k: the over-parameterization factor.
        branches: False trains the inference structure (Table 7).
        stem_width: the stem's channels; None for the released min(64, 64 alpha).
        drop_path_rate: stochastic depth of the last pair, see `OverParameterized`; the rates rise
            from 0.
    """

    modules_per_block = 2

    def __init__(
        self,
        widths: Sequence[float],
        blocks: Sequence[int] = (2, 8, 10, 1),
        se_blocks: Sequence[int] = (0, 0, 0, 0),
        k: int = 1,
        branches: bool = True,
        stem_width: int | None = None,
        drop_path_rate: float = 0.0,
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        if k < 0:
            raise ValueError(f"k is {k}; a block has no branch or more")
        channels = [
            int(base * width) for base, width in zip((64, 128, 256, 512), widths, strict=True)
        ]
        in_channels = stem_width or min(64, channels[0])
        stem = MobileOneBlock(in_chans, in_channels, 3, 2, branches=branches)
        pairs = sum(blocks)
        rates = iter(drop_path_rate * i / max(pairs - 1, 1) for i in range(pairs))
        stages = []
        for out_channels, count, with_se in zip(channels, blocks, se_blocks, strict=True):
            stage = []
            for i in range(count):
                block = partial(
                    MobileOneBlock,
                    k=k,
                    branches=branches,
                    se=i >= count - with_se,
                    drop_path_rate=next(rates),
                )
                stride = 2 if i == 0 else 1
                stage += [
                    block(in_channels, in_channels, 3, stride, groups=in_channels),
                    block(in_channels, out_channels, 1),
                ]
                in_channels = out_channels
            stages.append(Chain(blocks=nn.Sequential(*stage)))
        head = Chain(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(in_channels, num_classes),
        )
        super().__init__(stem, stages, head, channels, num_classes, in_chans)


# What the paper's tables state of a variant.


def parameters(model: Backbone, fused: Backbone) -> int:
    """Those of Table 8: after re-parameterization."""
    return describe.count_parameters(fused)


def depths(model: Backbone) -> str:
    """Table 2 counts the stem as the first stage."""
    return describe.commas([1, *describe.stage_depths(model)])


def width_multiplier(model: Backbone) -> str:
    bases = (64, 128, 256, 512)
    widths = (shape[1] for shape in describe.stage_maps(model))
    return describe.commas(f"{width / base:g}" for width, base in zip(widths, bases, strict=True))


def k(model: Backbone) -> str:
    """The branches of full kernel size in the stem and in each stage's blocks."""
    return describe.commas(
        describe.only(
            (
                sum(name.startswith("conv") for name in branches)
                for branches in describe.modules_of(part, Branches)
            ),
            "k",
        )
        for part in (model.stem, *model.stages)
    )


def se_blocks(model: Backbone) -> str:
    """Squeeze-and-excitation is in both halves of a block."""
    layers = (describe.modules_of(stage, SqueezeExcitation) for stage in model.stages)
    return describe.commas(len(stage) // 2 for stage in layers)


def release(variant: str, top1: float, input: Input | None = None) -> Release:
    base = "https://docs-assets.developer.apple.com/ml-research/datasets/mobileone"
    return Release(
        top1,
        url=f"{base}/mobileone_{variant}_unfused.pth.tar",
        page="https://github.com/apple/ml-mobileone",
        input=input,
        note="The authors do not state their evaluation transform; this is timm's. Their users "
        "measured 0.1 points below the paper with it.",
    )


FAMILY = register(
    Family(
        network=MobileOne,
        variants={  # Table 2
            "mobileone_s0": dict(widths=(0.75, 1.0, 1.0, 2.0), k=4),
            "mobileone_s1": dict(widths=(1.5, 1.5, 2.0, 2.5)),
            "mobileone_s2": dict(widths=(1.5, 2.0, 2.5, 4.0)),
            "mobileone_s3": dict(widths=(2.0, 2.5, 3.0, 4.0)),
            "mobileone_s4": dict(widths=(3.0, 3.5, 3.5, 4.0), se_blocks=(0, 0, 5, 1)),
        },
        paper=Paper(
            "MobileOne: An Improved One Millisecond Mobile Backbone",
            "Vasu et al.",
            "CVPR",
            2023,
            arxiv="2206.04040",
        ),
        input=Input(size=224, crop=0.9, interpolation="bilinear"),
        parameters=parameters,
        macs_of="fused",
        described=(
            describe.stem_channels,
            describe.channels,
            width_multiplier,
            depths,
            describe.reduction,
            describe.stem_strides,
            k,
            se_blocks,
            describe.head_channels,
        ),
        releases={
            "mobileone_s0": release("s0", 71.4, Input(crop=0.875, interpolation="bilinear")),
            "mobileone_s1": release("s1", 75.9),
            "mobileone_s2": release("s2", 77.4),
            "mobileone_s3": release("s3", 78.1),
            "mobileone_s4": release("s4", 79.4),
        },
        layouts="paperrepro.weights.layouts:MOBILEONE",
        fused_releases=True,
        recipes="paperrepro.training.papers:mobileone",
        small=dict(config=dict(widths=(0.5, 0.5, 0.5, 0.5), blocks=(1, 2, 3, 1)), lr=0.05),
        color="#0072B2",
    )
)
