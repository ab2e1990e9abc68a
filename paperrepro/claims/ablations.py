"""Which two variants of a stored experiment stand for which two rows of a paper's table.

`differences` gives them all, by the one rule of `claims.compare`: each pair once, our difference
with its error, the paper's beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from ..results import load_correct, load_result
from .compare import Comparison, compare, compare_accuracies, compare_runs

Names = dict[str, str]


@dataclass(frozen=True)
class Pairs:
    """The comparisons that one experiment makes.

    Attributes:
        experiment: its name; the result is `experiment-NAME`.
        claims: by variant, the claim about its accuracy, without "-top1".
        pairs: the variants that are compared, the first against the second.
    """

    experiment: str
    claims: Names
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Difference:
    """One comparison of the ablations.

    Attributes:
        experiment: the stored experiment.
        pair: what is compared, in words.
        claims: the claims that it is about, that of the first variant first.
        signs: of the claims, whose weighted sum is the paper's difference.
        ours: the difference that was found.
        what: "top1", or the name of a loss.
        answers: whether each network's answers to the test images are known.
    """

    experiment: str
    pair: str
    claims: tuple[str, ...]
    signs: tuple[int, ...]
    ours: Comparison
    what: str = "top1"
    answers: bool = True


def _named(pattern: str, names: Names) -> Names:
    return {label: pattern.format(name) for label, name in names.items()}


MOBILEONE = _named(
    "mobileone-t6-mobileone_s0_k_{}", {f"k = {k}": str(k) for k in (1, 2, 3, 4, 5)}
) | {"no branches": "mobileone-t7-mobileone_s0_without_re_parameterization"}
RAPIDNET = _named(
    "rapidnet-{}",
    {
        "MLDC": "t4-rnet_ti_mldc",
        "SVGA": "t4-mvig_ti_svga",
        "3x3": "t4-rnet_ti_3x3_conv",
        "pointwise": "t4-rnet_ti_pw_conv",
        "SLDC": "t5-rnet_ti_sldc",
        "SLDC + CPE": "t5-rnet_ti_sldc_cpe",
        "SLDC + CPE + LK-FFN": "t5-rnet_ti_sldc_cpe_lkffn",
        "MLDC, dilations 3 and 4": "t6-rnet_ti_dilation_3_4",
        "MLDC, 5x5": "t6-rnet_ti_5x5_kernels",
        "deformable": "t6-rnet_ti_deformable",
    },
)
# One experiment for three tables, which repeat some networks.
SHORTCUTS = _named(
    "replknet-t2-mobilenet_v2_{}",
    {
        "3x3": "3x3_with_shortcut",
        "13x13": "13x13_with_shortcut",
        "3x3, no shortcut": "3x3_without_shortcut",
        "13x13, no shortcut": "13x13_without_shortcut",
    },
)
PARALLEL = _named(
    "replknet-t3-mobilenet_v2_{}",
    {
        "3x3": "3x3",
        "9x9": "9x9_without_re_param",
        "13x13": "13x13_without_re_param",
        "9x9 + 3x3": "9x9_with_3x3_re_param",
        "13x13 + 3x3": "13x13_with_3x3_re_param",
    },
)
DILATED = _named(
    "replknet-t11-mobilenet_v2_{}",
    {
        "9x9": "9x9",
        "13x13": "13x13",
        "3x3 dilated by 4": "3x3_dilated_by_4",
        "3x3 dilated by 6": "3x3_dilated_by_6",
    },
)
SIZES = _named(
    "replknet-t5-replknet_{}",
    {"replknet-k3": "3", "replknet-k7": "7", "replknet-k13": "13", "replknet": "31"},
)
KERNELS = tuple((label, "replknet-k3") for label in ("replknet-k7", "replknet-k13", "replknet"))

COMPARED = (
    Pairs(
        "mobileone-factor",
        MOBILEONE,
        (("k = 4", "no branches"), *((f"k = {k}", "k = 1") for k in (2, 3, 4, 5))),
    ),
    Pairs(
        "mobileone-widths",
        _named(
            "mobileone-t7-mobileone_{}_re_parameterization",
            {
                "S1, with branches": "s1_with",
                "S1, no branches": "s1_without",
                "S3, with branches": "s3_with",
                "S3, no branches": "s3_without",
            },
        ),
        (("S1, with branches", "S1, no branches"), ("S3, with branches", "S3, no branches")),
    ),
    Pairs(
        "mobileone-training",
        _named(
            "mobileone-t5-mobileone_s2_{}",
            {
                "baseline": "baseline",
                "+ progressive learning": "progressive_learning",
                "+ annealed weight decay": "annealing_weight_decay",
            },
        ),
        (
            ("+ progressive learning", "baseline"),
            ("+ annealed weight decay", "+ progressive learning"),
        ),
    ),
    Pairs(
        "fasternet-block",
        _named(
            "fasternet-t5-fasternet_t0_{}",
            {
                "r = 1/2": "star_w_r_1_2",
                "r = 1/4": "w_r_1_4",
                "r = 1/8": "star_w_r_1_8",
                "LayerNorm": "w_ln",
                "ReLU": "w_relu",
            },
        ),
        tuple((label, "r = 1/4") for label in ("r = 1/2", "r = 1/8", "LayerNorm", "ReLU")),
    ),
    Pairs(
        "rapidnet-mixers",
        RAPIDNET,
        (
            ("MLDC", "SVGA"),
            ("MLDC", "3x3"),
            ("MLDC", "pointwise"),
            ("SLDC + CPE", "SLDC"),
            ("SLDC + CPE + LK-FFN", "SLDC + CPE"),
            ("MLDC", "SLDC + CPE + LK-FFN"),
            ("MLDC, dilations 3 and 4", "MLDC"),
            ("MLDC, 5x5", "MLDC"),
            ("deformable", "MLDC"),
        ),
    ),
    Pairs(
        "rapidnet-mixers",
        {"MLDC, distilled": "rapidnet-t4-rnet_ti_mldc", "MLDC": "rapidnet-t4-rnet_ti_mldc_no_kd"},
        (("MLDC, distilled", "MLDC"),),
    ),
    Pairs(
        "mobilevigv2-graphs",
        _named(
            "mobilevigv2-t3-mobilevig{}",
            {
                "SVGA, 1 stage": "_b_svga_1_stage",
                "SVGA, 3 stages": "_b_svga_3_stage",
                "SVGA + CPE, 1 stage": "_b_svga_cpe_1_stage",
                "SVGA + CPE, 3 stages": "_b_svga_cpe_3_stage",
                "fully connected, 3 stages": "_b_fully_connected_3_stage",
                "MGC + CPE, 3 stages": "v2_b_mgc_cpe_3_stage",
            },
        ),
        (
            ("SVGA, 3 stages", "SVGA, 1 stage"),
            ("SVGA + CPE, 3 stages", "SVGA + CPE, 1 stage"),
            ("SVGA + CPE, 1 stage", "SVGA, 1 stage"),
            ("SVGA + CPE, 3 stages", "SVGA, 3 stages"),
            ("MGC + CPE, 3 stages", "SVGA + CPE, 3 stages"),
            ("SVGA, 3 stages", "fully connected, 3 stages"),
            ("MGC + CPE, 3 stages", "fully connected, 3 stages"),
        ),
    ),
    Pairs(
        "mobilenetv2-kernels",
        SHORTCUTS,
        (
            ("13x13", "3x3"),
            ("13x13, no shortcut", "3x3, no shortcut"),
            ("3x3, no shortcut", "3x3"),
            ("13x13, no shortcut", "13x13"),
        ),
    ),
    Pairs(
        "mobilenetv2-kernels",
        PARALLEL,
        (("9x9", "3x3"), ("9x9 + 3x3", "9x9"), ("13x13 + 3x3", "13x13")),
    ),
    Pairs(
        "mobilenetv2-kernels",
        DILATED,
        (("3x3 dilated by 4", "9x9"), ("3x3 dilated by 6", "13x13")),
    ),
    Pairs(
        "mobilenetv2-last-stage",
        _named(
            "replknet-t4-mobilenet_v2_{}_in_the_last_stage",
            {"3x3": "3x3", "7x7": "7x7", "13x13": "13x13"},
        ),
        (("7x7", "3x3"), ("13x13", "3x3")),
    ),
    Pairs("shapes", SIZES, KERNELS),
    Pairs("cifar10-full", SIZES, KERNELS),
    Pairs("cifar10-kernels", SIZES, KERNELS[2:]),
    Pairs("tiny-imagenet", SIZES, KERNELS[2:]),
)

# Guideline 2 of RepLKNet: large kernels lose more than small ones where the shortcuts are missing.
GUIDELINE_2 = {"13x13, no shortcut": 1, "3x3, no shortcut": -1, "13x13": -1, "3x3": 1}

# Figure 4 of MobileOne: how much lower the loss of the first ends, in percent of the second's.
LOSSES = (
    ("train_loss", "k = 1", "no branches"),
    ("train_loss", "k = 4", "k = 1"),
    ("val_loss", "k = 4", "no branches"),
)


def differences() -> Iterator[Difference]:
    """Every comparison, in the order of the tables."""
    for block in COMPARED:
        for first, second in block.pairs:
            yield difference(block.experiment, block.claims, {first: 1, second: -1})
    yield difference("mobilenetv2-kernels", SHORTCUTS, GUIDELINE_2)
    yield from losses("mobileone-factor")


def difference(experiment: str, claims: Names, contrast: dict[str, int]) -> Difference:
    """The difference between the variants of a contrast, as well as what is stored tells it."""
    labels = list(contrast)
    pair = f"{labels[0]} against {labels[1]}"
    if len(labels) == 4:
        pair = f"({pair}) against ({labels[2]} against {labels[3]})"
    answers = True
    try:
        ours = compare(load_correct(experiment), contrast)
    except FileNotFoundError:
        answers = False
        ours = by_accuracies(experiment, contrast)
    names = tuple(f"{claims[label]}-top1" for label in labels)
    return Difference(experiment, pair, names, tuple(contrast.values()), ours, answers=answers)


def by_accuracies(experiment: str, contrast: dict[str, int]) -> Comparison:
    """From the accuracies alone, of runs whose answers were not kept."""
    result = load_result(f"experiment-{experiment}")
    top1 = result.table.pivot(index="seed", columns="variant", values="top1")
    images = int(result.provenance["images"].split("training, ")[1].split()[0])
    first, second = (
        sum((top1[label] for label, sign in contrast.items() if sign == side), 0 * top1.iloc[:, 0])
        for side in (1, -1)
    )
    pairs = len(contrast) // 2
    found = compare_accuracies(list(first / pairs), list(second / pairs), images)
    if pairs == 1:
        return found
    # Of two networks' mean the images' part is at most one network's, as here.
    return Comparison(
        pairs * found.difference,
        pairs * found.error,
        found.freedom,
        found.seeds,
        images,
        pairs * found.error_of_images,
    )


def losses(experiment: str) -> Iterator[Difference]:
    """Figure 4's three comparisons; no image carries a training loss, so seeds are all."""
    log = load_result(f"experiment-{experiment}-log").table
    last = log[log["epoch"] == log["epoch"].max()]
    for loss, first, second in LOSSES:
        runs: pd.DataFrame = last.pivot(index="seed", columns="variant", values=loss)
        percent = 100 / runs[second].mean()
        name = f"{loss}_{first}_to_{second}".replace(" = ", "_").replace(" ", "_")
        yield Difference(
            experiment,
            f"{loss}, {first} below {second}",
            (f"mobileone-f4-mobileone_s0_{name}-loss_drop",),
            (1,),
            compare_runs(list(-percent * runs[first]), list(-percent * runs[second])),
            what=loss,
        )
