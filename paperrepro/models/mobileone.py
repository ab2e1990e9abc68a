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

from torch import nn
from torchvision.ops import SqueezeExcitation

from .layers import Backbone, Branches, Chain, ConvNorm
from .registry import register


class MobileOneBlock(Chain):
    """One re-parameterizable convolution (Fig. 3): ReLU(SE(skip + scale + k convolutions)).

    Args:
        k: the over-parameterization factor, the number of K x K branches (Table 6).
        branches: False leaves a single convolution with BatchNorm (Table 7, "without").
        se: squeeze-and-excite with ratio 1/16 before the ReLU.
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
            conv=Branches(skip=skip, scale=scale, **convs),
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
    """

    def __init__(
        self,
        widths: Sequence[float],
        blocks: Sequence[int] = (2, 8, 10, 1),
        se_blocks: Sequence[int] = (0, 0, 0, 0),
        k: int = 1,
        branches: bool = True,
        stem_width: int | None = None,
        num_classes: int = 1000,
    ) -> None:
        channels = [
            int(base * width) for base, width in zip((64, 128, 256, 512), widths, strict=True)
        ]
        in_channels = stem_width or min(64, channels[0])
        stem = MobileOneBlock(3, in_channels, 3, 2, branches=branches)
        stages = []
        for out_channels, count, with_se in zip(channels, blocks, se_blocks, strict=True):
            stage = []
            for i in range(count):
                options = {"k": k, "branches": branches, "se": i >= count - with_se}
                stride = 2 if i == 0 else 1
                stage += [
                    MobileOneBlock(
                        in_channels, in_channels, 3, stride, groups=in_channels, **options
                    ),
                    MobileOneBlock(in_channels, out_channels, 1, **options),
                ]
                in_channels = out_channels
            stages.append(Chain(blocks=nn.Sequential(*stage)))
        head = Chain(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(in_channels, num_classes),
        )
        super().__init__(stem, stages, head, stage_channels=channels, num_classes=num_classes)


@register(MobileOne)
def mobileone_s0(**config) -> MobileOne:
    return MobileOne(**(dict(widths=(0.75, 1.0, 1.0, 2.0), k=4) | config))


@register(MobileOne)
def mobileone_s1(**config) -> MobileOne:
    return MobileOne(**(dict(widths=(1.5, 1.5, 2.0, 2.5)) | config))


@register(MobileOne)
def mobileone_s2(**config) -> MobileOne:
    return MobileOne(**(dict(widths=(1.5, 2.0, 2.5, 4.0)) | config))


@register(MobileOne)
def mobileone_s3(**config) -> MobileOne:
    return MobileOne(**(dict(widths=(2.0, 2.5, 3.0, 4.0)) | config))


@register(MobileOne)
def mobileone_s4(**config) -> MobileOne:
    return MobileOne(**(dict(widths=(3.0, 3.5, 3.5, 4.0), se_blocks=(0, 0, 5, 1)) | config))
