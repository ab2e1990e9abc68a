"""Every experiment of the book: what it asks, how much of it is stored, and what it costs.

>>> listing()[["experiment", "stored", "core_hours"]]
"""

import json

import pandas as pd

from ..files import data_folder
from ..results import load_result
from .dense_studies import STUDIES
from .studies import EXPERIMENTS, TEACHER


def listing() -> pd.DataFrame:
    """The experiments, those of classifiers first.

    Returns:
        A row each: `experiment`, `data`, `variants` and `seeds` of the design, `stored` (the seeds
        whose results are in data/results), `core_hours` (of one core for the whole design, from the
        seconds of the stored runs, whose processor the result names; None where there are none)
        and `source`.
    """
    rows = []
    for name, one in EXPERIMENTS.items():
        seconds, seeds = stored_runs(name)
        rows.append(row(name, one.data, len(one.variants), one.seeds, seeds, seconds, one.source))
    for name, study in STUDIES.items():
        seconds, seeds = stored_segmenters(name)
        source = "RepLKNet, Table 5, in small."
        rows.append(row(name, study.data, len(study.variants), study.seeds, seeds, seconds, source))
    return pd.DataFrame(rows)


def row(
    name: str,
    data: str,
    variants: int,
    seeds: int,
    stored: int,
    seconds: "pd.Series[float]",
    source: str,
) -> dict[str, object]:
    hours = round(seconds.mean() * variants * seeds / 3600, 1) if len(seconds) else None
    return {
        "experiment": name,
        "data": data.split(":")[0],
        "variants": variants,
        "seeds": seeds,
        "stored": stored,
        "core_hours": hours,
        "source": source,
    }


def stored_runs(name: str) -> tuple["pd.Series[float]", int]:
    """The seconds of an experiment's stored runs, and how many seeds there are."""
    try:
        table = load_result(f"experiment-{name}").table
    except FileNotFoundError:
        return pd.Series(dtype=float), 0
    table = table[table["variant"] != TEACHER]
    return table["seconds"], table["seed"].nunique()


def stored_segmenters(name: str) -> tuple["pd.Series[float]", int]:
    try:
        told = (data_folder("results") / f"segmentation-{name}.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return pd.Series(dtype=float), 0
    runs = json.loads(told)["runs"]
    seeds = {run.rsplit(" ", 1)[1] for run in runs}
    return pd.Series([run["seconds"] for run in runs.values()], dtype=float), len(seeds)
