"""MobileViGv2: Scaling Graph Convolutions for Mobile Vision (Avery et al., CVPRW 2024).

Inverted residuals, then Mobile Graph Convolutions (MGC, Section 4.1) in stages 2 to 4: every pixel
is connected to itself and to four others at a fixed distance K along its row and its column.

Where the released code says more than the paper, or differs, we follow it, so that its weights
load:
- The paper gives no table of widths or depths; those here are the code's. So are K = 8, 4, 2 in
  stages 2, 3, 4 (the paper's "L", of which it states only L = 2 at 7x7), the 7x7 kernel of the
  CPE, and the graph convolution 2C to C with BatchNorm and GELU.
- Connections wrap around the border. On a map smaller than K they join each pixel to itself.
- Every residual branch ends in a layer scale, which the paper does not mention.
- The drop rate of 0.1 is never reached (see `released_drop_rates`).
- The paper's parameters come from a counter of convolutions only: Ti has 5.70 M, not 5.6 M.
"""

from collections.abc import Sequence

from . import describe
from .backbone import Backbone
from .layers import (
    Chain,
    ConvNorm,
    LayerScale,
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
    released_drop_rates,
    sldgroup,
)
from .registry import Family, Input, Paper, register


def mobile_graph_conv(channels: int, graph: str, distance: int, cpe: bool, rate: float) -> Residual:
    """MRConv((X + CPE(X)) W_in) W_out + X (Eq. 4).

    `graph="fc"` puts a fully connected layer, that is a 1x1 convolution, in the graph's place.
    """
    if graph == "fc":
        mix = Chain(nn=ConvNorm(channels, channels, bias=True, act="gelu"))
    else:
        mix = Chain(
            neighbours=MaxRelative(graph, distance),
            nn=ConvNorm(2 * channels, channels, bias=True, act="gelu"),
        )
    return Residual(
        cpe=conditional_position_encoding(channels) if cpe else None,
        fc1=ConvNorm(channels, channels, bias=True),
        graph_conv=mix,
        fc2=ConvNorm(channels, channels, bias=True),
        scale=LayerScale(channels),
        drop=drop_path(rate),
    )


class MobileViGv2(LocalGlobalNet):
    """MobileViGv2 (Section 4.2, Fig. 2), and the variants of Table 3.

    Args:
        channels: the channels of the four stages.
        local: N_i, the inverted residuals of the stages.
        graphs: M_i, the graph blocks of the stages; (0, 0, 0, n) uses the graph in one stage.
        embed_dim: the hidden channels of the classifier.
        graph: "mgc", "svga", or "fc" for a fully connected layer in the graph's place.
        distances: K, the distance of the connections in each stage.
        cpe: conditional position encodings before the graph.
        drop_path_rate: the nominal stochastic depth (see `released_drop_rates`).
        distilled: two classifiers, whose mean is the answer, or one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        local: Sequence[int],
        graphs: Sequence[int],
        embed_dim: int,
        graph: str = "mgc",
        distances: Sequence[int] = (16, 8, 4, 2),
        cpe: bool = True,
        drop_path_rate: float = 0.1,
        distilled: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        def graph_block(stage: int, width: int, rate: float) -> Chain:
            mixer = mobile_graph_conv(width, graph, distances[stage], cpe, rate)
            return Chain(mixer=mixer, ffn=feed_forward(width, rate))

        rates = released_drop_rates(local, graphs, drop_path_rate)
        super().__init__(channels, rates, graph_block, embed_dim, distilled, num_classes, in_chans)


def graph_blocks(model: Backbone) -> str:
    return mixer_blocks(model)


FAMILY = register(
    Family(
        network=MobileViGv2,
        variants={  # the released configurations; Fig. 2 gives none
            "mobilevigv2_ti": dict(
                channels=(32, 64, 128, 256), local=(2, 2, 6, 2), graphs=(0, 2, 2, 2), embed_dim=512
            ),
            "mobilevigv2_s": dict(
                channels=(32, 64, 128, 256), local=(3, 3, 9, 3), graphs=(0, 3, 3, 3), embed_dim=512
            ),
            "mobilevigv2_m": dict(
                channels=(32, 64, 192, 384), local=(3, 3, 9, 3), graphs=(0, 3, 3, 3), embed_dim=512
            ),
            "mobilevigv2_b": dict(
                channels=(64, 128, 256, 512), local=(3, 3, 9, 3), graphs=(0, 3, 3, 3), embed_dim=768
            ),
        },
        paper=Paper(
            "Scaling Graph Convolutions for Mobile Vision",
            "Avery et al.",
            "CVPR Workshops",
            2024,
            arxiv="2406.05850",
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
            "MobileViGv2",
            {
                "mobilevigv2_ti": 77.7,
                "mobilevigv2_s": 79.8,
                "mobilevigv2_m": 81.7,
                "mobilevigv2_b": 83.4,
            },
        ),
        layouts="paperrepro.weights.layouts:MOBILEVIGV2",
        recipes="paperrepro.training.papers:local_global",
        small=dict(
            config=dict(
                channels=(16, 32, 64, 128), local=(1, 1, 2, 1), graphs=(0, 1, 1, 1), **ONE_HEAD
            )
        ),
        color="#CC79A7",
    )
)
