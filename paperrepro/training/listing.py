"""Every experiment of the book: what it asks, how much of it is stored, and what it costs.

>>> listing()[["experiment", "stored", "hours", "core_hours"]]
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from ..datasets import Data, Images
from ..files import data_folder
from ..results import load_result
from .dense_studies import STUDIES
from .experiments import HELD_OUT
from .place import Machine
from .recipe import Recipe
from .studies import EXPERIMENTS, TEACHER, Experiment
from .trainer import train

IMAGES = {"cifar10": 50_000, "shapes": 8_192, "cues": 8_192, "tiny_imagenet_50": 25_000}
"""Training images of an experiment that takes all."""

MEASURED = 512
"""Training images of the epoch that is measured for an estimate."""

STEPS = "experiment-steps"
"""The stored result with the seconds of that epoch."""


def listing() -> pd.DataFrame:
    """The experiments, those of classifiers first.

    Returns:
        A row each: `experiment`, `data`, `variants` and `seeds` of the design, `stored` (the seeds
        of which results are in data/results, if not of every variant), `hours` (that the stored
        runs took by the clock, beside whatever else their machine did), `core_hours` (of the whole
        design, on a core that does nothing else: an ESTIMATE, right to a factor of two or so) and
        `source`. The estimate is made of a measured step of each variant (`measure_steps`), of a
        segmenter of its fastest stored run; None where neither is there. The stored files name the
        processor.
    """
    steps = stored_steps()
    rows = []
    for name, one in EXPERIMENTS.items():
        runs = stored_runs(name)
        measured = set(one.variants) <= set(steps.get(name, ()))
        core_hours = estimated_hours(one, steps[name]) if measured else None
        rows.append(row(name, one.data, one.seeds, len(one.variants), runs, core_hours, one.source))
    for name, study in STUDIES.items():
        runs = stored_segmenters(name)
        fastest = runs.groupby("variant")["seconds"].min()
        core_hours = fastest.mean() * len(study.variants) * study.seeds / 3600
        source = "RepLKNet, Table 5, in small."
        rows.append(
            row(name, study.data, study.seeds, len(study.variants), runs, core_hours, source)
        )
    return pd.DataFrame(rows)


def row(
    name: str,
    data: str,
    seeds: int,
    variants: int,
    runs: pd.DataFrame,
    core_hours: float | None,
    source: str,
) -> dict[str, object]:
    return {
        "experiment": name,
        "data": data.split(":")[0],
        "variants": variants,
        "seeds": seeds,
        "stored": runs["seed"].nunique(),
        "hours": round(runs["seconds"].sum() / 3600, 1) if len(runs) else None,
        "core_hours": None if core_hours is None else round(core_hours, 1),
        "source": source,
    }


def estimated_hours(experiment: Experiment, seconds: dict[str, float]) -> float:
    """An ESTIMATE of an experiment's core-hours, with the trials of its learning rates.

    Args:
        seconds: of a training image in an epoch, validation with it, by variant.
    """
    images = experiment.images or IMAGES[experiment.data]
    total = 0.0
    for label in experiment.variants:
        recipe = experiment.recipe(label)
        trial = replace(recipe, **experiment.trial)
        tried = len(experiment.rates) * trial.epochs * images * (1 - 1 / HELD_OUT)
        total += seconds[label] * (experiment.seeds * recipe.epochs * images + tried)
    return total / 3600


def measure_steps(names: list[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """The seconds of a training image, by experiment and variant, with its share of validation.

    The trainer trains on random pictures of 64 pixels (of 32 for CIFAR-10), on one thread, for one
    epoch and for two; the second epoch is the difference, in the processor's seconds, which
    other programs on the machine disturb less than the clock's. A teacher's answers are not
    counted.

    Args:
        names: of the experiments; all by default.

    Returns:
        A row each: `experiment`, `variant`, `ms_per_image`.
    """
    chosen = names or list(EXPERIMENTS)
    asked = [(name, label) for name in chosen for label in EXPERIMENTS[name].variants]
    rows = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, label in tqdm(asked, desc="steps", disable=None if progress else True):
            seconds = seconds_per_image(EXPERIMENTS[name], label)
            rows.append({"experiment": name, "variant": label, "ms_per_image": 1e3 * seconds})
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def seconds_per_image(experiment: Experiment, label: str, images: int = MEASURED) -> float:
    whole = IMAGES[experiment.data]
    watched = images * (experiment.watched or whole // 5) // (experiment.images or whole)
    size = 32 if experiment.data == "cifar10" else 64
    generator = torch.Generator().manual_seed(0)
    train_set, val = (
        Images(
            torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8),
            torch.arange(count) % 10,
        )
        for count in (images, watched)
    )
    data = Data("random pictures", train_set, val, tuple("0123456789"))
    one, two = (
        seconds_of(short_recipe(experiment.recipe(label), epochs), data) for epochs in (1, 2)
    )
    return (two - one) / images


def short_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """Of so few epochs, at the last epoch's size, without a teacher."""
    return replace(
        recipe, epochs=epochs, warmup_epochs=0, progressive=(), distillation="none", teacher=None
    )


def seconds_of(recipe: Recipe, data: Data) -> float:
    """The processor's seconds of a training, on this thread."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        train(recipe, data, Path(folder) / "run", machine=Machine(device="cpu"), progress=False)
        return time.process_time() - began


def stored_steps() -> dict[str, dict[str, float]]:
    """The measured seconds of a training image, by experiment and variant."""
    try:
        table = load_result(STEPS).table
    except FileNotFoundError:
        return {}
    return {
        str(name): dict(zip(rows["variant"], rows["ms_per_image"] / 1e3, strict=True))
        for name, rows in table.groupby("experiment", sort=False)
    }


def stored_runs(name: str) -> pd.DataFrame:
    """An experiment's stored runs: variant, seed, seconds; none where it was not run."""
    try:
        table = load_result(f"experiment-{name}").table
    except FileNotFoundError:
        return pd.DataFrame(columns=["variant", "seed", "seconds"])
    return table.loc[table["variant"] != TEACHER, ["variant", "seed", "seconds"]]


def stored_segmenters(name: str) -> pd.DataFrame:
    """As `stored_runs`, of an experiment on segmentation."""
    told = (data_folder("results") / f"segmentation-{name}.json").read_text(encoding="utf-8")
    rows = [
        (*key.rsplit(", seed ", 1), run["seconds"]) for key, run in json.loads(told)["runs"].items()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "seconds"])
