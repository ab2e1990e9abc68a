"""Rows of the papers that are speeds: which of our timings stand for them, and against what.

Milliseconds of another processor cannot be compared. Ratios inside one interleaved measurement can:
each row is held against the first of its table, the paper's ratio beside ours.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from ..results import Result, load_result


@dataclass(frozen=True)
class Ratio:
    """How a measured value stands to the reference's, with the noise of the measurement.

    Attributes:
        claims: the row's claim, then the reference's.
        pair: what is compared, in words.
        ours: our ratio.
        low, high: its interval.
        result: the stored result.
        where: what was measured, where it is not what the paper measured.
        paper: the paper's ratio, where the claim itself is one.
    """

    claims: tuple[str, ...]
    pair: str
    ours: float
    low: float
    high: float
    result: str
    where: str = ""
    paper: float | None = None


SHAPES = ("96x56x56", "192x28x28", "384x14x14", "768x7x7")
OPERATORS = {
    "Conv": "conv_3x3",
    "GConv": "gconv_3x3_16_groups",
    "DWConv": "dwconv_3x3",
    "PConv": "pconv_3x3_r_1_4",
}
FASTERNETS = ("t0", "t1", "t2", "s", "m", "l")
# What else a comparison answers: the same network's other rows, and the time that it saves.
ALSO = {
    "fasternet-t5-fasternet_t0_w_ln-latency_cpu": (
        "fasternet-t5-fasternet_t0_w_r_1_4-latency_cpu",
    ),
    "fasternet-t5-fasternet_t0_w_relu-latency_cpu": (
        "fasternet-t5-fasternet_t0_w_gelu-latency_cpu",
    ),
} | {
    f"fasternet-t9-fasternet_{size}_slicing-latency_cpu": (
        f"fasternet-t9-fasternet_{size}_slicing_against_split_cat_on_cpu-time_saved",
    )
    for size in ("m", "l")
}
# FasterNet's abstract: by its claim, the paper's ratio of times, and the networks of its Table 3.
ABSTRACT = "fasternet-abstract-fasternet_{}_on_cpu-{}"
HEADLINES = (
    (ABSTRACT.format("t0_against_mobilevit_xxs", "speedup"), 3.1, "mobilevit_xxs", "fasternet_t0"),
    (ABSTRACT.format("l_against_swin_b", "time_saved"), 0.58, "fasternet_l", "swin_b"),
)
# By the stored result, the kernels that are taken from it, against the first.
KERNELS = {"depthwise": (3, 5, 7, 9, 13, 17, 21, 31), "depthwise-amd": (3, 27, 29)}
ACTIVATIONS = {
    "ReLU": "relu",
    "GELU": "gelu",
    "SE-ReLU": "se_relu",
    "SiLU": "silu",
    "Dynamic Shift-Max": "dynamic_shift_max",
    "DynamicReLU-A": "dynamicrelu_a",
    "DynamicReLU-B": "dynamicrelu_b",
}


def ratios() -> Iterator[Ratio]:
    """Every row that a stored timing answers."""
    yield from operators()
    yield from networks()
    yield from forms()
    yield from blocks()
    yield from depthwise()


def compared(
    rows: dict[str, tuple[str, pd.Series]], result: str, value: str = "ms", where: str = ""
) -> Iterator[Ratio]:
    """Each row against the first.

    Args:
        rows: by claim, its name in words and the row of the result, with a spread and a null.
        value: the column that is compared.
    """
    (reference, (base, first)), *others = rows.items()
    for claim, (name, row) in others:
        ours = float(row[value] / first[value])
        noise = math.exp(noise_of(row, first))
        yield Ratio(
            (claim, reference),
            f"{name} against {base}",
            ours,
            ours / noise,
            ours * noise,
            result,
            where,
        )


def noise_of(*rows: pd.Series) -> float:
    """How far the logarithm of a ratio may be off: the interquartile ranges of its timings, each
    2.4 standard errors of a median of five rounds, and what the null is off by."""
    return math.hypot(*(float(row["spread"]) for row in rows)) + abs(math.log(rows[0]["null"]))


def operators() -> Iterator[Ratio]:
    """FasterNet's Table 1 on a CPU."""
    table = as_the_paper(load_result("operators"))
    for shape in SHAPES:
        side = int(shape.split("x")[1])
        of = table[table["side"] == side].set_index("operator")
        for value, quantity in (("ms", "latency_cpu"), ("gmacs_per_s", "flops_cpu")):
            rows = {
                f"fasternet-t1-{name}_at_{shape}_10_layers-{quantity}": (
                    f"{operator} at {shape}",
                    row_of(of, operator),
                )
                for operator, name in OPERATORS.items()
            }
            yield from compared(rows, "operators", value)
    means = {}
    for operator, name in OPERATORS.items():
        of = table[table["operator"] == operator]
        claim = f"fasternet-t1-{name}_average_of_the_four_sizes-flops_cpu"
        mean = of[["gmacs_per_s", "spread", "null"]].mean()
        means[claim] = (f"{operator}, mean of the sizes", mean)
    yield from compared(means, "operators", "gmacs_per_s")
    averages = [f"fasternet-t1-{OPERATORS[name]}_average" for name in ("DWConv", "PConv")]
    two = {claim: row for claim, row in means.items() if claim.startswith(tuple(averages))}
    [higher] = compared(two, "operators", "gmacs_per_s")
    text = "fasternet-section_4.1-pconv_against_dwconv_on_cpu-speedup"
    yield replace(higher, claims=(text, *higher.claims), paper=7.5)


def networks() -> Iterator[Ratio]:
    """The rows of `paperrepro benchmark tables`, and FasterNet's abstract."""
    table = load_result("tables").table.set_index("claim", drop=False)
    for reference, rows in table.groupby("reference", sort=False):
        phone = str(reference).endswith("latency_phone")
        where = "on a CPU; the paper's phone" if phone else ""
        # Where the paper prints the same number twice, it states no order.
        stated = rows[(rows["claim"] == reference) | (rows["paper"] != rows.paper[reference])]
        named = {str(row["claim"]): (row["subject"], row) for _, row in stated.iterrows()}
        for one in compared(named, "tables", where=where):
            yield replace(one, claims=(*one.claims, *ALSO.get(one.claims[0], ())))
    for claim, paper, numerator, denominator in HEADLINES:
        names = [f"fasternet-t3-{name}-latency_cpu" for name in (denominator, numerator)]
        pair = {name: (str(table.subject[name]), row_of(table, name)) for name in names}
        [one] = compared(pair, "tables")
        yield replace(one, claims=(claim,), pair=f"time of {one.pair}", paper=paper)


def forms() -> Iterator[Ratio]:
    """FasterNet's Table 9 on a CPU: slicing against splitting and concatenating; the share of time
    that it saves is the same comparison."""
    table = as_the_paper(load_result("operators-forms"))
    names = {f"PConv x10, {shape}": f"pconv_at_{shape}_10_layers" for shape in SHAPES}
    names |= {f"fasternet_{size}": f"fasternet_{size}" for size in FASTERNETS}
    for network, name in names.items():
        of = table[table["network"] == network].set_index("form")
        if {"split_cat", "slicing"} <= set(of.index):
            rows = {
                f"fasternet-t9-{name}_{form}-latency_cpu": (f"{network}, {form}", row_of(of, form))
                for form in ("split_cat", "slicing")
            }
            [one] = compared(rows, "operators-forms")
            saved = f"fasternet-t9-{name}_slicing_against_split_cat_on_cpu-time_saved"
            yield replace(one, claims=(*one.claims, saved))


def blocks() -> Iterator[Ratio]:
    """MobileOne's Tables 1b and 3, on a CPU; the interval holds those of both networks."""
    table = as_the_paper(load_result("blocks"))
    where = "on a CPU, in networks of plain and of separable convolutions; the paper's iPhone 12"
    plain = {
        f"mobileone-t3-{name}-latency_phone": (act, False) for act, name in ACTIVATIONS.items()
    }
    parts = {
        "mobileone-t1b-baseline-latency_phone": ("ReLU", False),
        "mobileone-t1b-plus_squeeze_excite-latency_phone": ("SE-ReLU", False),
        "mobileone-t1b-plus_skip_connections-latency_phone": ("ReLU", True),
    }
    for claims in (plain, parts):
        both: list[list[Ratio]] = []
        for network in ("dense", "separable"):
            of = table[table["network"] == network].set_index(["activation", "skip"])
            rows = {
                claim: (act + (" with skip connections" if skip else ""), row_of(of, (act, skip)))
                for claim, (act, skip) in claims.items()
            }
            both.append(list(compared(rows, "blocks", where=where)))
        for one, other in zip(*both, strict=True):
            yield Ratio(
                one.claims,
                one.pair,
                math.sqrt(one.ours * other.ours),
                min(one.low, other.low),
                max(one.high, other.high),
                "blocks",
                where,
            )


def depthwise() -> Iterator[Ratio]:
    """RepLKNet's Table 1, PyTorch's own convolution, on a CPU instead of a GPU."""
    where = "PyTorch's convolution on a CPU; the paper's GPU"
    for result, kernels in KERNELS.items():
        table = load_result(result).table
        for side in (16, 32, 64):
            of = table[(table["pass"] == "inference") & (table["side"] == side)].set_index("kernel")
            rows = {
                f"replknet-t1-pytorch_{side}x{side}_kernel_{k}x{k}_24_layers-latency_gpu": (
                    f"{k}x{k} at {side} px",
                    row_of(of, k),
                )
                for k in kernels
            }
            yield from compared(rows, result, "nchw_ms", where)


def row_of(table: pd.DataFrame, key: object) -> pd.Series:
    """The one row of that index."""
    return table.loc[[key]].iloc[0]


def as_the_paper(result: Result) -> pd.DataFrame:
    """The rows of PyTorch's default memory format and of batch 1."""
    table = result.table
    return table[(table["memory_format"] == "nchw") & (table["batch"] == 1)]
