"""What large kernels brought where every pixel needs an answer, by the rule of the experiments.

`training.dense_studies` states question, comparison, number of seeds and test; it was written
before the runs. Here is what the stored runs say: differences paired by seed, Student's t, 95 %.
The first comparison of each experiment decides and becomes an outcome; the others stand beside it.

    >>> dense_comparisons("camvid")[["statement", "seeds", "difference", "low", "high", "visible"]]
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..results import load_result
from .compare import Comparison, compare_runs

if TYPE_CHECKING:
    import pandas as pd

LARGE, SMALL = "K = 31", "K = 3"
FAR = (24, 32, 48, 64)
"""Distances of the first comparison of scenes, in pixels."""

LEAST = 3
"""Seeds; fewer are not compared."""

COLUMNS = (
    *("statement", "variant", "what", "distance", "seeds"),
    *("difference", "low", "high", "visible", "decides"),
)
EXPERIMENTS = ("camvid", "scenes")
CLAIMS = tuple(f"replknet-t5-replknet_{k}_with_upernet_on_ade20k-miou" for k in (31, 3))
MEASURED = {
    "camvid": "mIoU on CamVid's test pictures",
    "scenes": "shapes' pixels with the right class, the cue 24 to 64 pixels away",
}


def load_runs(name: str) -> "pd.DataFrame":
    """The stored runs of an experiment.

    Args:
        name: "camvid" or "scenes".

    Returns:
        A row for each variant, seed and value: `variant`, `seed`, `params`, `what`, `value` in
        percent; of scenes also `distance` in pixels.
    """
    return load_result(f"segmentation-{name}").table


def dense_comparisons(name: str, runs: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """Every comparison of an experiment with K = 3; the first row decides.

    Args:
        name: "camvid" or "scenes".
        runs: as `load_runs` gives them; the stored ones when None.

    Returns:
        A row each: `statement`, `variant`, `what`, `distance` (pixels; None where several are
        averaged), `seeds` that both variants have, `difference` (points), its 95 % interval `low`
        to `high`, `visible` (the smallest difference found in four of five cases), and `decides`.
        A comparison of fewer than three seeds is left out; without the first there is none.
    """
    import pandas as pd

    runs = load_runs(name) if runs is None else runs
    rows: list[dict[str, Any]] = []
    for variant, what, distance in questions(name, runs):
        found = difference(runs, variant, what, FAR if distance is None else (distance,))
        if found is None:
            if not rows:
                break  # the first decides; without it there is nothing to stand beside
            continue
        low, high = found.interval()
        rows.append(
            {
                "statement": f"{variant} against {SMALL}",
                "variant": variant,
                "what": what,
                "distance": distance,
                "seeds": found.seeds,
                "difference": found.difference,
                "low": low,
                "high": high,
                "visible": found.visible(),
                "decides": not rows,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def questions(name: str, runs: "pd.DataFrame") -> Iterator[tuple[str, str, int | None]]:
    """Variant, value and distance of each comparison; the one that decides comes first."""
    main = "miou" if name == "camvid" else "right"
    yield LARGE, main, None
    for variant in runs["variant"].unique():
        if variant not in (LARGE, SMALL):
            yield str(variant), main, None
    if name == "camvid":
        for what in runs["what"].unique():
            if what != main:
                yield LARGE, str(what), None
    else:
        for distance in sorted(map(int, runs["distance"].unique())):
            yield LARGE, main, distance


def difference(
    runs: "pd.DataFrame", variant: str, what: str, distances: tuple[int, ...]
) -> Comparison | None:
    """A variant less K = 3, over the seeds that both have; None where they are too few."""
    kept = runs[runs["what"] == what]
    if "distance" in kept:
        kept = kept[kept["distance"].isin(distances)]
    values = kept.groupby(["seed", "variant"])["value"].mean().unstack()
    if variant not in values or SMALL not in values:
        return None
    both = values[[variant, SMALL]].dropna()
    if len(both) < LEAST:
        return None
    return compare_runs(list(both[variant]), list(both[SMALL]))
