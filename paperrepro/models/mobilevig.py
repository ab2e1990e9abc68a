"""MobileViG: Graph-Based Sparse Attention for Mobile Vision Applications (Munir et al., CVPR
Workshops 2023).

The predecessor that MobileViGv2 and RapidNet start from and compare themselves with: inverted
residuals in all stages, and in the last stage graph convolutions over a static graph, Sparse
Vision Graph Attention (SVGA).

Where the released code differs from the papers we follow the code, so that its weights load:
- The max-relative features are max(0, x_i - x_j). Eq. 2 of MobileViGv2, which restates MobileViG's
  operation, has x_j - x_i.
- The graph convolution widens C to 2C, and the pointwise convolution after it narrows again.
- Only the inverted residuals have a layer scale.
- The papers' parameters come from a counter of convolutions only: Ti has 5.27 M, not 5.2 M.
"""

from collections.abc import Sequence

import torch

from . import describe
from .backbone import Backbone
from .layers import (
    Chain,
    ConvNorm,
    Residual,
    drop_path,
)
from .local_global import (
    ONE_HEAD,
    LocalGlobalNet,
    MaxRelative,
    conditional_position_encoding,
    conv_parameters,
    feed_forward,
    irb_blocks,
    mixer_blocks,
    sldgroup,
)
from .registry import Family, Input, Paper, register


def grapher(channels: int, graph: str, distance: int, cpe: bool, rate: float) -> Residual:
    """1x1, graph convolution C to 2C, 1x1 back (MobileViGv2, Eqs. 1-3), as a residual.

    `graph="fc"` puts a fully connected layer, that is a 1x1 convolution, in the graph's place.
    """
    if graph == "fc":
        mix = Chain(nn=ConvNorm(channels, 2 * channels, bias=True, act="gelu"))
    else:
        mix = Chain(
            neighbours=MaxRelative(graph, distance, reverse=True),
            nn=ConvNorm(2 * channels, 2 * channels, bias=True, act="gelu"),
        )
    return Residual(
        cpe=conditional_position_encoding(channels) if cpe else None,
        fc1=ConvNorm(channels, channels, bias=True),
        graph_conv=mix,
        fc2=ConvNorm(2 * channels, channels, bias=True),
        drop=drop_path(rate),
    )


class MobileViG(LocalGlobalNet):
    """MobileViG, and the variants of MobileViGv2's Table 3.

    Args:
        channels: the channels of the four stages.
        local: the inverted residuals of the stages.
        graphs: the graph blocks of the stages; (0, 0, 0, n) is MobileViG, and three stages with
            graphs are Table 3's "3-Stage".
        embed_dim: the hidden channels of the classifier.
        graph: "svga", "mgc", or "fc" for a fully connected layer in the graph's place.
        distance: K, the spacing of the connections.
        cpe: adds conditional position encodings (Table 3).
        drop_path_rate: stochastic depth of the last block; the rates rise from 0.
        distilled: two classifiers, whose mean is the answer, or one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        local: Sequence[int],
        graphs: Sequence[int],
        embed_dim: int,
        graph: str = "svga",
        distance: int = 2,
        cpe: bool = False,
        drop_path_rate: float = 0.1,
        distilled: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        def graph_block(stage: int, width: int, rate: float) -> Chain:
            mixer = grapher(width, graph, distance, cpe, rate)
            return Chain(mixer=mixer, ffn=feed_forward(width, rate, scale=False))

        count = sum(local) + sum(graphs)
        rising = iter(torch.linspace(0, drop_path_rate, count, device="cpu").tolist())
        rates = [
            ([next(rising) for _ in range(locals_here)], [next(rising) for _ in range(graphs_here)])
            for locals_here, graphs_here in zip(local, graphs, strict=True)
        ]
        super().__init__(channels, rates, graph_block, embed_dim, distilled, num_classes, in_chans)


def graph_blocks(model: Backbone) -> str:
    return mixer_blocks(model)


FAMILY = register(
    Family(
        network=MobileViG,
        variants={  # the released configurations
            "mobilevig_ti": dict(
                channels=(42, 84, 168, 256), local=(2, 2, 6, 0), graphs=(0, 0, 0, 2), embed_dim=512
            ),
            "mobilevig_s": dict(
                channels=(42, 84, 176, 256), local=(3, 3, 9, 0), graphs=(0, 0, 0, 3), embed_dim=512
            ),
            "mobilevig_m": dict(
                channels=(42, 84, 224, 400), local=(3, 3, 9, 0), graphs=(0, 0, 0, 3), embed_dim=768
            ),
            "mobilevig_b": dict(
                channels=(42, 84, 240, 464), local=(5, 5, 15, 0), graphs=(0, 0, 0, 5), embed_dim=768
            ),
        },
        paper=Paper(
            "MobileViG: Graph-Based Sparse Attention for Mobile Vision Applications",
            "Munir et al.",
            "CVPR Workshops",
            2023,
            arxiv="2307.00395",
        ),
        input=Input(size=224, crop=0.9, interpolation="bicubic"),
        parameters=conv_parameters,
        macs_of="training",
        described=(
            describe.channels,
            irb_blocks,
            graph_blocks,
            describe.reduction,
            describe.stem_strides,
        ),
        releases=sldgroup(
            "MobileViG",
            {"mobilevig_ti": 75.7, "mobilevig_s": 78.2, "mobilevig_m": 80.6, "mobilevig_b": 82.6},
        ),
        layouts="paperrepro.weights.layouts:MOBILEVIG",
        recipes="paperrepro.training.papers:local_global",
        small=dict(
            config=dict(
                channels=(16, 32, 64, 128), local=(1, 1, 2, 0), graphs=(0, 0, 0, 1), **ONE_HEAD
            )
        ),
        color="#56B4E9",
    )
)
