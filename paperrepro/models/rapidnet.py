"""RapidNet: Multi-Level Dilated Convolution Based Mobile Backbone (Munir et al., WACV 2025).

MobileViG without its graph: inverted residuals, then in stages 3 and 4 dilated convolution blocks
(DCB, Fig. 3e) of a Multi-Level Dilated Convolution (MLDC) and a large-kernel FFN.

Where the released code differs from the paper we follow the code, so that its weights load:
- Eq. 6 sums the two dilated convolutions and then applies GELU. In the code, as in the prose of
  Section 3.2, each branch has its own BatchNorm and GELU, and then they are summed.
- Eq. 7 leaves out the BatchNorm after FC1.
- Section 3.3 puts the large-kernel FFN into the first two stages. In the code, as in Table 1 and
  Fig. 3, it stands in the DCBs of stages 3 and 4 only.
- The dilated convolutions are dense, with a bias, and every residual branch ends in a layer scale.
- The hidden width of the classifier (512, 512, 512, 768) is not in the paper; the paper's
  parameters count both classifiers of the distilled network, and are truncated (B has 30.56 M).
- The drop rate of 0.1 is never reached (see `released_drop_rates`).
- Table 6's row with 5x5 kernels has 8.6 M parameters, which is one 5x5 branch; two make 10.6 M.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from . import describe
from .backbone import Backbone
from .layers import (
    Branches,
    Chain,
    ConvNorm,
    LayerScale,
    Residual,
    choose,
    drop_path,
)
from .local_global import (
    ONE_HEAD,
    LocalGlobalNet,
    MaxRelative,
    conditional_position_encoding,
    feed_forward,
    irb_blocks,
    mixer_blocks,
    released_drop_rates,
    sldgroup,
)
from .registry import Family, Input, Paper, register


def multi_level_dilated_conv(
    channels: int, dilations: Sequence[int] = (2, 3), kernels: Sequence[int] = (3, 3)
) -> Branches:
    """MLDC (Section 3.2, Eq. 6): GELU(BN(conv)) per dilation, summed."""
    branches = {
        f"dilated{i}": ConvNorm(channels, channels, kernel, dilation=d, bias=True, act="gelu")
        for i, (d, kernel) in enumerate(zip(dilations, kernels, strict=True), start=1)
    }
    return Branches(**branches)


class DeformableConv(DeformConv2d):
    """torchvision's deformable convolution with offsets predicted by a 3x3 convolution."""

    foldable = True

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation)
        self.offset = nn.Conv2d(channels, 18, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, self.offset(x))


def deformable(channels: int, dilations: Sequence[int]) -> Branches:
    """One deformable and one plain dilated branch.

    The paper's Table 6 states 0.1 M more parameters than MLDC, "the learnable offsets"; that is
    one predictor of offsets per block, not two.
    """
    first, second = dilations
    return Branches(
        dilated1=Chain(
            conv=DeformableConv(channels, first), norm=nn.BatchNorm2d(channels), act=nn.GELU()
        ),
        dilated2=ConvNorm(channels, channels, 3, dilation=second, bias=True, act="gelu"),
    )


def svga(channels: int) -> Chain:
    """The graph convolution of MobileViG (K = 2) in MLDC's place."""
    return Chain(
        neighbours=MaxRelative("svga", 2, reverse=True),
        nn=ConvNorm(2 * channels, channels, bias=True, act="gelu"),
    )


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "mldc": multi_level_dilated_conv,
    "dilated": lambda channels, dilations, kernels: multi_level_dilated_conv(
        channels, dilations[:1], kernels[:1]
    ),
    "conv3x3": lambda channels, dilations, kernels: multi_level_dilated_conv(channels, (1,), (3,)),
    "pointwise": lambda channels, dilations, kernels: multi_level_dilated_conv(
        channels, (1,), (1,)
    ),
    "svga": lambda channels, dilations, kernels: svga(channels),
    "deformable": lambda channels, dilations, kernels: deformable(channels, dilations),
}


class RapidNet(LocalGlobalNet):
    """RapidNet (Section 3.4, Table 1), and the variants of Tables 4 to 6.

    Args:
        channels: the channels of the four stages.
        local: the inverted residual blocks (IRB) of the stages.
        dilated: the dilated convolution blocks (DCB) of the stages.
        embed_dim: the hidden channels of the classifier.
        mixer: "mldc", or in its place "dilated" (the first dilation alone: SLDC), "conv3x3",
            "pointwise", "svga" or "deformable".
        dilations, kernels: of the two branches of MLDC; (5, 5) are Table 6's larger kernels.
        cpe: the 7x7 depthwise convolution with its skip before the mixer (Eq. 4).
        lk_ffn: the 7x7 depthwise convolution in the FFN (Eq. 7).
        drop_path_rate: the nominal stochastic depth (see `released_drop_rates`).
        distilled: two classifiers, whose mean is the answer, or one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        local: Sequence[int],
        dilated: Sequence[int],
        embed_dim: int,
        mixer: str = "mldc",
        dilations: Sequence[int] = (2, 3),
        kernels: Sequence[int] = (3, 3),
        cpe: bool = True,
        lk_ffn: bool = True,
        drop_path_rate: float = 0.1,
        distilled: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        make_mixer = choose("mixer", MIXERS, mixer)

        def dilated_conv_block(stage: int, width: int, rate: float) -> Chain:
            mix = Residual(
                cpe=conditional_position_encoding(width) if cpe else None,
                fc1=ConvNorm(width, width, bias=True),
                mldc=make_mixer(width, dilations, kernels),
                fc2=ConvNorm(width, width, bias=True),
                scale=LayerScale(width),
                drop=drop_path(rate),
            )
            ffn = feed_forward(width, rate, depthwise_kernel=7 if lk_ffn else None)
            return Chain(mixer=mix, ffn=ffn)

        rates = released_drop_rates(local, dilated, drop_path_rate)
        super().__init__(
            channels, rates, dilated_conv_block, embed_dim, distilled, num_classes, in_chans
        )


# What the paper's tables state of a variant.


def parameters(model: Backbone, fused: Backbone) -> int:
    """Those of Table 2: all, both heads included. The table truncates."""
    return describe.count_parameters(model)


def dcb_blocks(model: Backbone) -> str:
    return mixer_blocks(model)


FAMILY = register(
    Family(
        network=RapidNet,
        variants={  # Table 1
            "rapidnet_ti": dict(
                channels=(32, 64, 112, 224), local=(2, 2, 6, 2), dilated=(0, 0, 2, 2), embed_dim=512
            ),
            "rapidnet_s": dict(
                channels=(32, 64, 112, 224), local=(3, 3, 9, 3), dilated=(0, 0, 3, 3), embed_dim=512
            ),
            "rapidnet_m": dict(
                channels=(32, 64, 160, 320), local=(3, 3, 9, 3), dilated=(0, 0, 3, 3), embed_dim=512
            ),
            "rapidnet_b": dict(
                channels=(64, 128, 224, 416),
                local=(3, 3, 9, 3),
                dilated=(0, 0, 3, 3),
                embed_dim=768,
            ),
        },
        paper=Paper(
            "RapidNet: Multi-Level Dilated Convolution Based Mobile Backbone",
            "Munir et al.",
            "WACV",
            2025,
            arxiv="2412.10995",
        ),
        input=Input(size=224, crop=0.9, interpolation="bicubic"),
        parameters=parameters,
        macs_of="training",
        described=(
            describe.channels,
            irb_blocks,
            dcb_blocks,
            describe.reduction,
            describe.stem_strides,
        ),
        releases=sldgroup(
            "RapidNet",
            {"rapidnet_ti": 76.3, "rapidnet_s": 78.6, "rapidnet_m": 81.0, "rapidnet_b": 82.8},
            {
                "rapidnet_ti": "RapidNet_Ti.pth",
                "rapidnet_s": "RapidNet_S.pth",
                "rapidnet_m": "RapidNet_M.pth",
                "rapidnet_b": "RapidNet_B.pth",
            },
        ),
        layouts="paperrepro.weights.layouts:RAPIDNET",
        recipes="paperrepro.training.papers:local_global",
        small=dict(
            config=dict(
                channels=(16, 32, 64, 128), local=(1, 1, 2, 1), dilated=(0, 0, 1, 1), **ONE_HEAD
            )
        ),
        color="#D55E00",
    )
)
