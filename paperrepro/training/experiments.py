"""What runs the papers' ablations at a small scale, and what they gave.

The experiments themselves are data, in `training.studies`. Every run is a folder of the trainer's,
so that an experiment that was stopped goes on where it was.

    >>> outcome = run_experiment(find_experiment("fasternet-block"), "runs/fasternet-block")
    >>> summary(outcome.table)
"""

import json
import os
from collections.abc import Sized
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from ..datasets import Data, Kept, LabelledImages, load_data
from ..results import load_result, read_correct
from ..signals import hear_signals, stopping, unheard
from ..weights import load_model, save_model
from .answers import Answers, Array, answers_of
from .evaluation import evaluate
from .place import Machine
from .preparation import transform_for_validation
from .recipe import Recipe, changes
from .studies import EXPERIMENTS, TEACHER, Experiment
from .trainer import train

HELD_OUT = 10
"""Trials of the learning rate are judged on every tenth training image, held out."""

TRIAL_SEED = 1000
"""Of the trials; the runs have the seeds 0, 1, ..."""


Tasks: TypeAlias = dict[tuple[str, float], tuple[Recipe, Path]]
"""By variant and seed (or learning rate): the recipe, and the folder of the run."""


@dataclass
class Outcome:
    """What an experiment gave.

    Attributes:
        table: a row per run: variant, seed, network, parameters (thousands) in training, epochs,
            size, lr, top1, top5 (percent), train_loss, val_loss, seconds of training. The test
            accuracies and the test loss are of all test images.
        log: a row per run and epoch: variant, seed, epoch, train_loss, val_loss, top1; the latter
            two of the images that the experiment watches.
        correct: `(runs, images)`, which test images the networks classify rightly.
        trials: a row per trial of a learning rate: variant, rate (a multiple of the recipe's),
            top1 (percent of the held-out images), val_loss.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    log: pd.DataFrame = field(default_factory=pd.DataFrame)
    correct: Array = field(default_factory=lambda: np.zeros((0, 0), bool))
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def runs(self) -> list[tuple[str, int]]:
        """The variant and the seed of each row."""
        if self.table.empty:
            return []
        return list(zip(self.table["variant"], self.table["seed"], strict=True))


@dataclass(frozen=True)
class Source:
    """Where an experiment's images come from, and which of them it uses."""

    name: str
    root: str
    images: int | None = None
    watched: int | None = None

    def load(self, size: int, *, trial: bool = False) -> tuple[Data, LabelledImages]:
        """What to train on and to watch, both kept in memory, and the test images.

        Args:
            trial: watches held-out training images in the place of test images.
        """
        data = load_data(self.name, root=self.root, size=size)
        train: LabelledImages = Kept(thinned(data.train, self.images))
        if trial:
            held_out = [i % HELD_OUT == 0 for i in range(len(train))]
            kept, watched = (
                part(train, [i for i, held in enumerate(held_out) if held == which])
                for which in (False, True)
            )
            return replace(data, train=kept, val=watched), watched
        return replace(data, train=train, val=Kept(thinned(data.val, self.watched))), data.val


def source_of(
    experiment: Experiment, data: str | None = None, root: str | os.PathLike = "data"
) -> Source:
    """Where the experiment's images come from, or those named in their place."""
    name = data or experiment.data
    return Source(name, os.fspath(root), experiment.images, experiment.watched)


def part(images: LabelledImages, indices: list[int]) -> LabelledImages:
    return cast(LabelledImages, Subset(cast(Dataset, images), indices))


def thinned(images: LabelledImages, count: int | None) -> LabelledImages:
    """So many of the images, evenly spaced: where they lie class by class, the same of each."""
    total = len(cast(Sized, images))
    if count is None or count >= total:
        return images
    return part(images, [i * total // count for i in range(count)])


def find_experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        ValueError: naming those that there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def run_experiment(
    experiment: Experiment,
    runs: str | os.PathLike,
    *,
    data: str | None = None,
    root: str | os.PathLike = "data",
    download: bool = False,
    seeds: int = 3,
    jobs: int = 1,
    known: Outcome | None = None,
    progress: bool = True,
) -> Outcome:
    """Trains every variant with every seed; what is in `runs` already is not trained again.

    Args:
        runs: the folder that gets a run of the trainer per variant and seed.
        data: a name or a folder in the place of the experiment's own data.
        root, download: as for `load_data`.
        seeds: how many; they are 0, 1, ...
        jobs: runs at a time, each on one thread.
        known: what is known of the experiment from elsewhere (`load_outcome`). Its runs are taken
            as they are, and its trials choose the rates.

    Raises:
        ValueError, OSError: what `load_data` and `train` raise.
        Interrupted: SIGINT or SIGTERM; the same call goes on.
    """
    runs = Path(runs)
    source = Source(data or experiment.data, os.fspath(root), experiment.images, experiment.watched)
    test = load_data(source.name, root=root, download=download).val
    known = known or Outcome()
    if known.runs and known.correct.shape[1] != len(test):
        raise ValueError(
            f"the known runs answered {known.correct.shape[1]} test images and {source.name} has "
            f"{len(test)}: they are of other data"
        )
    teacher = None
    if experiment.teacher:
        folder = runs / TEACHER
        train_one(experiment.recipe(TEACHER), source, folder, show=progress)
        teacher = os.fspath(folder / "model.safetensors")
    trials = known.trials
    if trials.empty:
        trials = try_rates(experiment, source, runs / "trials", teacher, jobs, progress)
    rates = best_rates(trials)
    tasks: Tasks = {
        (label, seed): (
            experiment.recipe(label, seed, teacher, rates.get(label, 1.0)),
            runs / folder_name(label, seed),
        )
        for seed in range(seeds)
        for label in experiment.variants
        if (label, seed) not in known.runs
    }
    train_all(tasks, source, jobs, progress)
    if teacher and (TEACHER, 0) not in known.runs:
        tasks[TEACHER, 0] = experiment.recipe(TEACHER), runs / TEACHER
    found = [outcome_of(label, int(seed), *run) for (label, seed), run in tasks.items()]
    return joined([known, *found], [TEACHER, *experiment.variants], trials)


def joined(outcomes: list[Outcome], labels: list[str], trials: pd.DataFrame) -> Outcome:
    """The runs of several outcomes in one: those of a teacher, of seed 0, of seed 1, ..."""

    def place(key: tuple[str, int]) -> tuple[bool, int, int]:
        label, seed = key
        return label != TEACHER, seed, labels.index(label)

    runs = [key for one in outcomes for key in one.runs]
    order = sorted(range(len(runs)), key=lambda i: place(runs[i]))
    tables, logs, correct = (
        [getattr(one, name) for one in outcomes if one.runs] for name in ("table", "log", "correct")
    )
    log = pd.concat(logs).groupby(["variant", "seed"])
    return Outcome(
        pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True),
        pd.concat([log.get_group(runs[i]) for i in order], ignore_index=True),
        np.concatenate(correct)[order],
        trials,
    )


def load_outcome(experiment: Experiment, name: str, folder: Path) -> Outcome:
    """What `paperrepro experiment --out` wrote, as far as it is there.

    Raises:
        ValueError: the files are of other recipes.
    """
    stem = folder / f"experiment-{name}"
    recipes = stem.with_suffix(".json")
    if not recipes.exists():
        return Outcome()
    if recipes.read_text(encoding="utf-8") != recipes_json(experiment):
        raise ValueError(
            f"{recipes} holds other recipes than the experiment has now: its runs cannot be added "
            "to; take another folder"
        )
    table, log = (load_result(f"{stem}{part}.csv").table for part in ("", "-log"))
    outcome = Outcome(table, log, read_correct(Path(f"{stem}-correct.npz")))
    if experiment.rates:
        outcome.trials = load_result(f"{stem}-trials.csv").table
    return outcome


def try_rates(
    experiment: Experiment,
    source: Source,
    runs: Path,
    teacher: str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """How good each variant is with each of the experiment's `rates`.

    A trial trains on nine tenths of the training images and is judged on the last; no test image
    is seen.

    Returns:
        A row per trial; none where the experiment tries none.
    """
    tasks: Tasks = {}
    for rate in experiment.rates:
        for label in experiment.variants:
            recipe = experiment.recipe(label, TRIAL_SEED, teacher, rate)
            tasks[label, rate] = (
                replace(recipe, **experiment.trial),
                runs / f"{folder_name(label, TRIAL_SEED)}-{rate:g}",
            )
    train_all(tasks, source, jobs, progress, trial=True)
    rows: list[dict] = []
    for (label, rate), (_, run) in tasks.items():
        last = pd.read_csv(run / "log.csv").iloc[-1]
        top1 = round(float(last["top1"]), 2)
        rows.append(
            {"variant": label, "rate": rate, "top1": top1, "val_loss": round(last["val_loss"], 4)}
        )
    return pd.DataFrame(rows)


def best_rates(trials: pd.DataFrame) -> dict[str, float]:
    """By variant the rate of its best trial, the largest of equals.

    All runs of a variant share it: their scatter does not hold the choice's.
    """
    if trials.empty:
        return {}
    best = trials.sort_values(["top1", "rate"]).groupby("variant").tail(1)
    return dict(zip(best["variant"], best["rate"], strict=True))


def train_all(
    tasks: Tasks,
    source: Source,
    jobs: int,
    progress: bool,
    *,
    trial: bool = False,
) -> None:
    """Trains what is not trained yet, so many runs at a time.

    Raises:
        Interrupted: on a signal, after the processes have written their checkpoints.
    """
    shown = None if progress and tasks else True
    others = set(active_children())
    with (
        stopping() as stop,
        stop.deferred(),
        tqdm(total=len(tasks), desc="trials" if trial else "runs", disable=shown) as bar,
        processes(jobs) as pool,
    ):
        with unheard():
            waiting = {
                pool.submit(train_one, recipe, source, run, trial=trial)
                for recipe, run in tasks.values()
            }
        try:
            while waiting and not stop:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    bar.update()
        finally:
            if waiting:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in set(active_children()) - others:
                    process.terminate()
    if stop:
        raise stop.interrupted(
            "stopped; what is done is kept, and the same command goes on with the rest"
        )


def processes(jobs: int) -> Executor:
    """So many processes of one thread each."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=begin_process)


def begin_process() -> None:
    """In a process that trains: one thread, and signals heard for as long as it lives."""
    torch.set_num_threads(1)
    hear_signals()


def folder_name(label: str, seed: int) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in label.lower())
    return f"{plain}-{seed}"


def train_one(
    recipe: Recipe, source: Source, run: Path, *, trial: bool = False, show: bool = False
) -> None:
    """One run and its answers to the test images, as far as they are not there."""
    with stopping() as stop:
        if stop:  # the pool had handed this run out already
            raise stop.interrupted("stopped before it began")
    trained, answered = run / "model.safetensors", run / "answers.npz"
    if trained.exists() and (trial or answered.exists()):
        return
    data, test = source.load(recipe.size, trial=trial)
    if not trained.exists():
        train(recipe, data, run, resume=True, machine=Machine(device="cpu"), progress=show)
    if not trial:
        answers_of(load_model(trained), test, transform_for_validation(recipe)).write(answered)


def outcome_of(label: str, seed: int, recipe: Recipe, run: Path) -> Outcome:
    """What one run gave."""
    model = load_model(run / "model.safetensors")
    log, answers = pd.read_csv(run / "log.csv"), Answers.read(run / "answers.npz")
    row = {
        "variant": label,
        "seed": seed,
        "network": recipe.model,
        "kparams": round(sum(p.numel() for p in model.parameters()) / 1e3, 1),
        "epochs": recipe.epochs,
        "size": recipe.size,
        "lr": recipe.lr,
        "top1": round(100 * float(answers.correct.mean()), 2),
        "top5": round(100 * float(answers.among_five.mean()), 2),
        "train_loss": round(log["train_loss"].iloc[-1], 4),
        "val_loss": round(float(answers.loss.mean(dtype=float)), 4),
        "seconds": round(log["seconds"].sum(), 1),
    }
    epochs = log[["epoch", "train_loss", "val_loss", "top1"]].round(4)
    epochs.insert(0, "variant", label)
    epochs.insert(1, "seed", seed)
    return Outcome(pd.DataFrame([row]), epochs, answers.correct[None])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of each variant, in the experiment's order."""
    grouped = table.groupby("variant", sort=False)
    return pd.DataFrame(
        {
            "seeds": grouped["seed"].count(),
            "kparams": grouped["kparams"].first(),
            "top1": grouped["top1"].mean().round(2),
            "std": grouped["top1"].std().round(2),
            "train_loss": grouped["train_loss"].mean().round(3),
            "val_loss": grouped["val_loss"].mean().round(3),
        }
    ).reset_index()


def recipes_json(experiment: Experiment) -> str:
    """The recipes of all variants: the first in full, of the others what differs from it."""
    labels = [*([TEACHER] if experiment.teacher else []), *experiment.variants]
    first = experiment.recipe(labels[0])
    others = {
        label: {key: ours for key, (ours, _) in changes(experiment.recipe(label), first).items()}
        for label in labels[1:]
    }
    return json.dumps({labels[0]: json.loads(first.to_json())} | others, indent=1) + "\n"


def keep_weights(
    experiment: Experiment,
    name: str,
    runs: Path,
    folder: Path,
    *,
    data: str | None = None,
    root: str | os.PathLike = "data",
) -> pd.DataFrame:
    """Stores the networks of seed 0 in half precision, as `NAME-VARIANT.safetensors`.

    Returns:
        A row per file: file, network, kilobytes, top-1 (percent) as trained and as stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in experiment.variants:
        recipe = experiment.recipe(label)
        validation = load_data(data or experiment.data, root=root, size=recipe.size).val
        trained = load_model(runs / folder_name(label, 0) / "model.safetensors")
        path = folder / f"{name}-{label}.safetensors"
        save_model(trained.half(), path)
        stored = load_model(path)
        score = evaluate(stored, validation, transform_for_validation(recipe))
        answers = Answers.read(runs / folder_name(label, 0) / "answers.npz")
        rows.append(
            {
                "file": path.name,
                "network": recipe.model,
                "kilobytes": round(path.stat().st_size / 1000),
                "top1": round(100 * float(answers.correct.mean()), 2),
                "top1_stored": round(score.top1, 2),
            }
        )
    return pd.DataFrame(rows)
