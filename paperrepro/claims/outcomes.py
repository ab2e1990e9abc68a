"""What became of each claim: one ladder of verdicts, each derived from a stored result.

An outcome is a difference, a ratio or a correlation of ours with its interval, beside the paper's,
and the result file that it was computed from. `data/results/outcomes.csv` holds them all;
`paperrepro outcomes --update` derives and writes them, and a test derives every one again. No
verdict is typed.

    >>> from paperrepro.claims.outcomes import load_outcomes
    >>> load_outcomes()[["statement", "paper", "ours", "low", "high", "verdict"]]
"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import data_folder
from ..results import load_result, save_result
from .compare import call, level_of
from .table import load_claims

if TYPE_CHECKING:
    import pandas as pd

RULES = {
    "comparisons": "claims.compare: seeds and test images as errors, all judged together",
    "timings": "claims.timings: ratios inside one interleaved measurement, its noise and its null",
    "correlations": "claims.outcomes.correlations: Spearman's, the interval of Bonett and Wright",
    "errors": "claims.outcomes.errors: mean ratio over the layers, t interval",
    "fields": "claims.outcomes.fields: ratio of two networks of one seed, t interval of 95 %",
    "segmentation": "training.dense_studies: paired by seed, t interval of 95 %, one comparison of "
    "each experiment decides",
}

ROUNDS = {"depthwise": 9, "depthwise-amd": 20}
"""Of a stored timing; of all others 5."""

COLUMNS = {
    "id": "stable name of the outcome",
    "claims": "the claims that it is about, the first one's value first, separated by spaces",
    "kind": "difference, ratio or correlation",
    "statement": "what is compared",
    "unit": "of the numbers",
    "paper": "the paper's number",
    "ours": "our number",
    "low": "lower end of its interval",
    "high": "upper end of its interval",
    "visible": "the smallest effect that this design finds in four cases of five; of a timing, "
    "what its noise hides",
    "n": "what it rests on",
    "verdict": "a key of LADDER, derived",
    "rule": "a key of RULES",
    "fixed": "whether the rule was written before or after the runs",
    "result": "the stored result, a name of load_result",
    "command": "what measures it again",
    "processor": "where it was measured",
    "date": "when",
    "commit": "of the code that measured it; empty in results from before it was kept",
    "note": "what differs from the paper's measurement",
}


@dataclass(frozen=True)
class Outcome:
    """One row of the outcomes; the fields are those of `COLUMNS`."""

    id: str
    claims: str
    kind: str
    statement: str
    unit: str
    paper: float
    ours: float
    low: float
    high: float
    visible: float
    n: str
    verdict: str
    rule: str
    fixed: str
    result: str
    command: str
    processor: str
    date: str
    commit: str = ""
    note: str = ""


def derive() -> "pd.DataFrame":
    """Every outcome, computed from the stored results."""
    import pandas as pd

    rows = [asdict(one) for part in PARTS for one in part()]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["paper", "ours", "low", "high", "visible"]
    table[numbers] = table[numbers].map(lambda value: float(f"{value:.4g}"))
    return table


@cache
def paper_values() -> dict[str, float]:
    claims = load_claims()
    numbers = claims[~claims["paper_value"].map(lambda value: isinstance(value, str))]
    values = numbers.set_index("id")["paper_value"].astype(float)
    return {str(claim): float(value) for claim, value in values.items()}


def provenance(result: str) -> dict[str, str]:
    told = load_result(result).provenance
    known = {key: told[key] for key in ("command", "processor", "date")}
    return {"result": result} | known | {"commit": told.get("commit", "")}


def ablations() -> Iterator[Outcome]:
    """Every difference between trained variants, judged together."""
    from .ablations import differences

    found = list(differences())
    level = level_of([one.ours.p for one in found])
    for one in found:
        signed = zip(one.signs, one.claims, strict=True)
        paper = round(sum(sign * paper_values()[claim] for sign, claim in signed), 4)
        low, high = one.ours.interval(level)
        visible = one.ours.visible(level)
        images = f", {one.ours.images} test images" if one.ours.images else ""
        notes = {
            True: "",
            False: "the answers to the test images were not kept: their part is a bound",
        }
        yield Outcome(
            id=named(one.experiment, one.pair),
            claims=" ".join(one.claims),
            kind="difference",
            statement=one.pair,
            unit="points" if one.what == "top1" else "%",
            paper=paper,
            ours=one.ours.difference,
            low=low,
            high=high,
            visible=visible,
            n=f"{one.ours.seeds} seeds{images}",
            verdict=call(paper, low, high, visible),
            rule="comparisons",
            fixed="before" if one.answers and images else "after",
            note=notes[one.answers],
            **provenance(f"experiment-{one.experiment}"),
        )


def speeds() -> Iterator[Outcome]:
    """Every ratio of timings."""
    from .timings import ratios

    for one in ratios():
        paper = one.paper
        if paper is None:
            paper = paper_values()[one.claims[0]] / paper_values()[one.claims[1]]
        yield Outcome(
            id=named(one.result, one.claims[0]),
            claims=" ".join(one.claims),
            kind="ratio",
            statement=one.pair,
            unit="x",
            paper=paper,
            ours=one.ours,
            low=one.low,
            high=one.high,
            visible=one.high / one.ours,
            n=f"{ROUNDS.get(one.result, 5)} rounds",
            verdict=ratio_call(paper, one.low, one.high),
            rule="timings",
            fixed="after",
            note=one.where,
            **provenance(one.result),
        )


def ratio_call(paper: float, low: float, high: float) -> str:
    """One of LADDER for a ratio with its interval."""
    if low <= 1 <= high:
        return "inconclusive"
    if (low > 1) != (paper > 1) or paper == 1:
        return "opposite here"
    reaches = high >= paper if paper > 1 else low <= paper
    return "seen here" if reaches else "order holds"


def correlations() -> Iterator[Outcome]:
    """MobileOne's Table 1a on a CPU, where the paper finds that neither count tells the time."""
    from scipy import stats

    table = load_result("correlation").table
    ours = table[(table["networks"] == "measured, MobileOne's peers") & (table["device"] == "cpu")]
    for row in ours.to_dict("records"):
        count = {"macs": "flops", "params": "parameters"}[row["count"]]
        claims = [f"mobileone-t1a-cpu_latency_and_{count}-{q}" for q in ("correlation", "p_value")]
        rho, n = float(row["rho"]), int(row["n"])
        error = math.sqrt((1 + rho**2 / 2) / (n - 3))
        half = stats.norm.ppf(0.975) * error
        low, high = (math.tanh(math.atanh(rho) + sign * half) for sign in (-1, 1))
        related = paper_values()[claims[1]] < 0.05
        paper = paper_values()[claims[0]]
        visible = math.tanh((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * error)
        yield Outcome(
            id=named("correlation", claims[0]),
            claims=" ".join(claims),
            kind="correlation",
            statement=f"latency on a CPU and {count}",
            unit="",
            paper=paper,
            ours=rho,
            low=low,
            high=high,
            visible=visible,
            n=f"{n} networks",
            verdict=call(paper if related else 0.0, low, high, visible),
            rule="correlations",
            fixed="after",
            note="eager PyTorch, the networks that timm or torchvision has; the paper had 21",
            **provenance("correlation"),
        )


def errors() -> Iterator[Outcome]:
    """FasterNet's Table 2: how well a pair of convolutions stands in for a convolution."""
    last = "pconv_r_1_4_plus_pwconv"
    where = ("average_of_the_stages", *(f"stage_{number}" for number in (1, 2, 3, 4)))
    for result, networks, images in (
        ("approximation-cifar", "two ResNets", "ResNet-20 and -56 on CIFAR-10"),
        ("approximation-photos", "SqueezeNet", "SqueezeNet, ImageNet's, on 33 photos of COCO"),
    ):
        table = load_result(result).table
        fits = table[table["found"] == "adam"]
        errors = fits.pivot(index=["network", "conv"], columns="form", values="mse")
        for form, name in (
            ("DWConv+PWConv", "dwconv_plus_pwconv"),
            ("GConv+PWConv", "gconv_16_groups_plus_pwconv"),
        ):
            claims = [
                f"fasternet-t2-{part}_{place}-error" for part in (name, last) for place in where
            ]
            yield paired_ratio(
                errors[form],
                errors["PConv+PWConv"],
                paper_values()[claims[0]] / paper_values()[claims[5]],
                id=named(result, claims[0]),
                claims=" ".join(claims),
                statement=f"error of {form} against PConv+PWConv, {networks}",
                n=f"{len(errors)} layers of {networks}",
                rule="errors",
                note=f"layers of {images}, the stages together; the paper's ResNet-50",
                **provenance(result),
            )


def fields() -> Iterator[Outcome]:
    """RepLKNet's Table 10: how much of the image holds half of the contribution scores."""
    table = load_result("erf-seeds").table
    table[["kernel", "seed"]] = table["network"].str.extract(r"/(replknet(?:-k3)?)-(\d+)/")
    areas = table.pivot(index="seed", columns="kernel", values="ratio_50")
    claims = [f"replknet-t10-{name}-t50-area_ratio" for name in ("replknet-31", "resnet-101")]
    yield paired_ratio(
        areas["replknet"],
        areas["replknet-k3"],
        paper_values()[claims[0]] / paper_values()[claims[1]],
        id=named("erf-seeds", "K = 31 against K = 3"),
        claims=" ".join(claims),
        statement="area with half of the contribution scores, K = 31 against K = 3",
        n=f"{len(areas)} seeds, {table['images'].min()} images",
        rule="fields",
        note="small RepLKNets at 256 pixels; the paper's network with kernels of 3 is ResNet-101, "
        "its images have 1024 pixels",
        **provenance("erf-seeds"),
    )


def paired_ratio(first: "pd.Series", second: "pd.Series", paper: float, **facts: str) -> Outcome:
    """The mean ratio of paired positive values, judged by their logarithms.

    Args:
        first, second: a value of each pair, in the same order.
        facts: the outcome's other fields.
    """
    from .compare import compare_runs

    found = compare_runs(*([math.log(value) for value in side] for side in (first, second)))
    low, high = (math.exp(end) for end in found.interval())
    return Outcome(
        kind="ratio",
        unit="x",
        paper=paper,
        ours=math.exp(found.difference),
        low=low,
        high=high,
        visible=math.exp(found.visible()),
        verdict=ratio_call(paper, low, high),
        fixed="after",
        **facts,
    )


def segmentation() -> Iterator[Outcome]:
    """RepLKNet's Guideline 4: what large kernels bring where every pixel needs an answer."""
    from .dense import CLAIMS, EXPERIMENTS, MEASURED, dense_comparisons

    paper = round(paper_values()[CLAIMS[0]] - paper_values()[CLAIMS[1]], 4)
    for name in EXPERIMENTS:
        compared = dense_comparisons(name)
        if compared.empty:  # fewer than three seeds are stored
            continue
        found = compared.iloc[0]
        yield Outcome(
            id=named(f"segmentation-{name}", found["statement"]),
            claims=" ".join(CLAIMS),
            kind="difference",
            statement=f"{found['statement']}: {MEASURED[name]}",
            unit="points",
            paper=paper,
            ours=found["difference"],
            low=found["low"],
            high=found["high"],
            visible=found["visible"],
            n=f"{found['seeds']} seeds",
            verdict=call(paper, found["low"], found["high"], found["visible"]),
            rule="segmentation",
            fixed="before",
            note="small networks trained from nothing; the paper's difference is mIoU on ADE20K, "
            "after ImageNet",
            **provenance(f"segmentation-{name}"),
        )


PARTS = (ablations, speeds, correlations, errors, fields, segmentation)


def named(result: str, text: str) -> str:
    """A stable name: the result, and the words of the text."""
    words = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")
    return f"{result}-{words}"


def load_outcomes(path: Path | None = None) -> "pd.DataFrame":
    """The stored outcomes, a row each; the columns are those of `COLUMNS`."""
    table = load_result(path or "outcomes").table
    texts = ["unit", "commit", "note"]
    return table.assign(**{name: table[name].astype(object).fillna("") for name in texts})


def power(outcomes: "pd.DataFrame") -> "pd.DataFrame":
    """How many differences between trained networks are decided, and which designs could decide.

    Args:
        outcomes: rows of `load_outcomes`; those of another kind are left out.

    Returns:
        A row per paper: `differences`; `decided`, whose interval leaves out zero; `powered`, which
        are not, though an effect as large as the paper's is found in four cases of five; and
        `weak`, whose design would miss it more often.
    """
    trained = outcomes[outcomes["kind"] == "difference"]
    decided = trained["verdict"] != "inconclusive"
    enough = trained["visible"] <= trained["paper"].abs()
    counted = {"decided": decided, "powered": ~decided & enough, "weak": ~decided & ~enough}
    papers = trained["claims"].str.partition("-")[0].rename("paper")
    table = trained.assign(differences=1, **counted).groupby(papers, sort=False)
    return table[["differences", *counted]].sum().reset_index()


def update_outcomes(path: Path | None = None) -> list[str]:
    """Derives every outcome and writes the file, where one changed.

    Returns:
        The ids of those that changed, came or went.
    """
    path = path or data_folder("results") / "outcomes.csv"
    table = derive()
    new = {str(row["id"]): row for row in table.to_dict("records")}
    old = {}
    if path.exists():
        old = {str(row["id"]): row for row in load_outcomes(path).to_dict("records")}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        save_result(path, table, command="paperrepro outcomes --update")
    return changed
