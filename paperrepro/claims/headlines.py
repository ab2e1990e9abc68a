"""The claims that matter: what each paper's abstract and conclusion rest on, and what became of it.

A headline names what answers it: outcomes, rows of the claims, or a test that proves it. Its
verdict is derived from those; of several the least favourable counts.

    >>> headlines()[["paper", "statement", "verdict"]]
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .judged import judged_claims
from .outcomes import load_outcomes

if TYPE_CHECKING:
    import pandas as pd

FROM_WORST = (
    "opposite here",
    "differs",
    "inconclusive",
    "not tested",
    "order holds",
    "seen here",
    "recomputed",
    "proved",
)


@dataclass(frozen=True)
class Headline:
    """One claim that matters.

    Attributes:
        id: stable name.
        paper: the paper that makes it.
        statement: what it says, in our words.
        section: where the book tests it, `chapter` or `chapter#section`.
        outcomes: the outcomes that answer it.
        claims: the rows of the claims that answer it.
        proof: the test that proves it, `file::function`.
    """

    id: str
    paper: str
    statement: str
    section: str
    outcomes: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    proof: str = ""


HEADLINES = (
    Headline(
        "mobileone-same-function",
        "mobileone",
        "After training the branches merge into one convolution, and the function stays the same.",
        "reparameterization",
        proof="test_reparam.py::test_fused_equals_unfused",
    ),
    Headline(
        "mobileone-counts-and-latency",
        "mobileone",
        "On a CPU neither multiply-adds nor parameters tell the latency.",
        "why-flops-mislead",
        outcomes=(
            "correlation-mobileone-t1a-cpu_latency_and_flops-correlation",
            "correlation-mobileone-t1a-cpu_latency_and_parameters-correlation",
        ),
    ),
    Headline(
        "mobileone-squeeze-excite",
        "mobileone",
        "Squeeze-and-excite costs latency beyond its multiply-adds.",
        "why-flops-mislead",
        outcomes=("blocks-mobileone-t3-se_relu-latency_phone",),
    ),
    Headline(
        "mobileone-branches",
        "mobileone",
        "Branches in training raise the accuracy of the network that runs.",
        "ablations#mobileone-branches-in-training-tables-6-and-7-figure-4",
        outcomes=("mobileone-factor-k-4-against-no-branches",),
    ),
    Headline(
        "mobileone-k",
        "mobileone",
        "For S0, four copies of a branch are better than one.",
        "ablations#mobileone-branches-in-training-tables-6-and-7-figure-4",
        outcomes=("mobileone-factor-k-4-against-k-1",),
    ),
    Headline(
        "mobileone-annealing",
        "mobileone",
        "Annealing the weight decay raises the accuracy.",
        "training",
        outcomes=("mobileone-training-annealed-weight-decay-against-progressive-learning",),
    ),
    Headline(
        "mobileone-phone",
        "mobileone",
        "MobileOne-S0 runs in less than a millisecond on an iPhone 12, at 71.4 % on ImageNet.",
        "mobileone",
        claims=("mobileone-t8-mobileone_s0-latency_phone", "mobileone-t8-mobileone_s0-top1"),
    ),
    Headline(
        "fasternet-depthwise",
        "fasternet",
        "A depthwise convolution reaches a small part of a convolution's speed of arithmetic.",
        "why-flops-mislead",
        outcomes=("operators-fasternet-t1-dwconv_3x3_average_of_the_four_sizes-flops_cpu",),
    ),
    Headline(
        "fasternet-pconv",
        "fasternet",
        "A partial convolution keeps two thirds of a convolution's speed of arithmetic.",
        "why-flops-mislead",
        outcomes=("operators-fasternet-t1-pconv_3x3_r_1_4_average_of_the_four_sizes-flops_cpu",),
    ),
    Headline(
        "fasternet-speed",
        "fasternet",
        "FasterNet-T0 is 3.1 times as fast as MobileViT-XXS on a CPU.",
        "fasternet",
        outcomes=("tables-fasternet-abstract-fasternet_t0_against_mobilevit_xxs_on_cpu-speedup",),
    ),
    Headline(
        "fasternet-ratio",
        "fasternet",
        "A quarter of the channels is enough: an eighth loses accuracy.",
        "ablations#fasternet-ratio-norm-and-activation-table-5",
        outcomes=("fasternet-block-r-1-8-against-r-1-4",),
    ),
    Headline(
        "fasternet-approximation",
        "fasternet",
        "PConv and PWConv stand in for a convolution better than a depthwise pair does.",
        "what-kernels-learn",
        outcomes=(
            "approximation-cifar-fasternet-t2-dwconv_plus_pwconv_average_of_the_stages-error",
        ),
    ),
    Headline(
        "fasternet-sizes",
        "fasternet",
        "FasterNet-T0 to -L have the parameters and multiply-adds of Table 3.",
        "fasternet",
        claims=tuple(
            f"fasternet-t3-fasternet_{size}-{count}"
            for size in ("t0", "t1", "t2", "s", "m", "l")
            for count in ("params", "macs")
        ),
    ),
    Headline(
        "fasternet-accuracy",
        "fasternet",
        "FasterNet-L reaches 83.5 % on ImageNet.",
        "fasternet",
        claims=("fasternet-t3-fasternet_l-top1",),
    ),
    Headline(
        "replknet-slow",
        "replknet",
        "In a common framework a 31x31 depthwise convolution takes tens of times a 3x3's time.",
        "replknet",
        outcomes=(
            "depthwise-replknet-t1-pytorch_32x32_kernel_31x31_24_layers-latency_gpu",
            "depthwise-replknet-t1-pytorch_64x64_kernel_31x31_24_layers-latency_gpu",
        ),
    ),
    Headline(
        "replknet-shortcut",
        "replknet",
        "Large kernels need the shortcut more than small ones do.",
        "ablations#replknet-five-guidelines-tables-2-to-5-and-11",
        outcomes=(
            "mobilenetv2-kernels-13x13-no-shortcut-against-3x3-no-shortcut-against-13x13-against"
            "-3x3",
        ),
    ),
    Headline(
        "replknet-reparam",
        "replknet",
        "A parallel 3x3 kernel helps a large one.",
        "ablations#replknet-five-guidelines-tables-2-to-5-and-11",
        outcomes=(
            "mobilenetv2-kernels-13x13-3x3-against-13x13",
            "mobilenetv2-kernels-9x9-3x3-against-9x9",
        ),
    ),
    Headline(
        "replknet-kernel-size",
        "replknet",
        "Kernels of 31 are better than kernels of 3.",
        "ablations#kernel-sizes-in-replknet-itself-table-5-and-five-families-under-one-budget",
        outcomes=("cifar10-kernels-replknet-against-replknet-k3",),
    ),
    Headline(
        "replknet-field",
        "replknet",
        "Kernels of 31 give a network a larger effective receptive field than kernels of 3.",
        "receptive-fields",
        outcomes=("erf-seeds-k-31-against-k-3",),
    ),
    Headline(
        "replknet-dense",
        "replknet",
        "Kernels of 31 are better than kernels of 3 where every pixel needs an answer.",
        "dense-prediction#what-the-larger-runs-found",
        claims=("replknet-t5-replknet_31_with_upernet_on_ade20k-miou",),
    ),
    Headline(
        "replknet-merge",
        "replknet",
        "The parallel kernel merges into the large one, and the function stays the same.",
        "replknet",
        proof="test_reparam.py::test_fused_equals_unfused",
    ),
    Headline(
        "replknet-accuracy",
        "replknet",
        "RepLKNet-31B reaches 83.5 % on ImageNet at 224 pixels.",
        "replknet",
        claims=("replknet-t6-replknet_31b_224-top1",),
    ),
    Headline(
        "mobilevigv2-constant",
        "mobilevigv2",
        "MGC's connections do not grow with the map, SVGA's do.",
        "receptive-fields",
        proof="test_receptive_field.py::test_connections_grow_with_resolution_or_not",
    ),
    Headline(
        "mobilevigv2-stages",
        "mobilevigv2",
        "Graphs in three stages are better than in one.",
        "ablations#mobilevigv2-where-the-graph-stands-and-which-table-3",
        outcomes=(
            "mobilevigv2-graphs-svga-3-stages-against-svga-1-stage",
            "mobilevigv2-graphs-svga-cpe-3-stages-against-svga-cpe-1-stage",
        ),
    ),
    Headline(
        "mobilevigv2-phone",
        "mobilevigv2",
        "MobileViGv2-Ti reaches 77.7 % on ImageNet in 0.9 ms on an iPhone 13 Mini.",
        "mobilevigv2",
        claims=(
            "mobilevigv2-t1-mobilevigv2_ti-top1",
            "mobilevigv2-t1-mobilevigv2_ti-latency_phone",
        ),
    ),
    Headline(
        "rapidnet-field",
        "rapidnet",
        "A 3x3 kernel dilated by 3 spans 7x7, as far as the graph's connections.",
        "receptive-fields",
        proof="test_receptive_field.py::test_rapidnets_equations_2_and_3",
    ),
    Headline(
        "rapidnet-multi-level",
        "rapidnet",
        "Two dilations are better than one, and better than a graph.",
        "ablations#rapidnet-what-stands-in-the-dilated-block-tables-4-to-6",
        outcomes=(
            "rapidnet-mixers-mldc-against-sldc-cpe-lk-ffn",
            "rapidnet-mixers-mldc-against-svga",
        ),
    ),
    Headline(
        "rapidnet-phone",
        "rapidnet",
        "RapidNet-Ti reaches 76.3 % on ImageNet in 0.9 ms on an iPhone 13 Mini.",
        "rapidnet",
        claims=("rapidnet-t2-rapidnet_ti-top1", "rapidnet-t2-rapidnet_ti-latency_phone"),
    ),
)


def headlines() -> "pd.DataFrame":
    """Every headline with its verdict.

    Returns:
        A row each: the fields of `Headline`, `verdict`, a key of `LADDER`, and `by`, the outcome or
        the claim that decided it; empty where a test proves it.
    """
    import pandas as pd

    of_outcome = load_outcomes().set_index("id")["verdict"]
    of_claim = judged_claims().set_index("id")["verdict"]
    rows = []
    for headline in HEADLINES:
        found = {name: str(of_outcome[name]) for name in headline.outcomes}
        found |= {name: str(of_claim[name]) for name in headline.claims}
        found |= {"": "proved"} if headline.proof else {}
        by = min(found, key=lambda name: FROM_WORST.index(found[name]))
        rows.append(vars(headline) | {"verdict": found[by], "by": by})
    return pd.DataFrame(rows)
