"""The papers' ablations at a small scale: controlled experiments as data, and what runs them.

An experiment holds everything but one thing: the same data, the same recipe, the same seeds. Its
variants are recipes "small" with some fields replaced. Every run is a folder of the trainer's, so
that an experiment that was stopped goes on where it was.

    >>> experiment = EXPERIMENTS["mobileone-branches"]
    >>> list(experiment.variants)
    ['no branches', 'k = 1', 'k = 2', 'k = 4']
    >>> experiment.recipe("k = 4", seed=1).config["k"]
    4
"""

import json
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from ..datasets import load_data
from ..weights import load_model, save_model
from .evaluation import evaluate
from .place import Machine
from .preparation import transform_for_validation
from .recipe import Recipe, changes, find_recipe
from .signals import Stop, hear_signals, stopping, unheard
from .trainer import train

TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One question, asked with several variants of a network or of its training.

    Attributes:
        source: the tables and figures of the paper that ask it.
        data: what the networks are trained on, a name of `load_data`.
        common: fields of the recipe that all variants share.
        variants: by its label, the network and the fields in which it differs.
        teacher: a network that is trained first, for the variants that distil.
        differs: how this is smaller than the paper's experiment, where that matters.
    """

    source: str
    data: str
    common: dict
    variants: dict[str, tuple[str, dict]]
    teacher: tuple[str, dict] | None = None
    differs: str = ""

    def recipe(self, label: str, seed: int = 0, teacher: str | None = None) -> Recipe:
        """The recipe of a variant; of the teacher too, by the label "teacher".

        Args:
            teacher: the file of the teacher, for a variant that distils.
        """
        variant = self.teacher if label == TEACHER else self.variants[label]
        if variant is None:
            raise ValueError("the experiment has no teacher")
        network, fields = variant
        base = find_recipe(network, "small")
        fields = self.common | fields
        fields["config"] = base.config | fields.get("config", {})
        if fields.get("distillation", "none") != "none":
            fields["teacher"] = teacher or "the experiment's teacher"
        return replace(base, **fields, seed=seed)


# Networks of about 200 thousand parameters; sixteen of them are kept in data/weights.
TINY = {
    "mobileone": (
        "mobileone_s0",
        {"widths": (0.375, 0.375, 0.25, 0.25), "blocks": (1, 2, 3, 1)},
    ),
    "fasternet": ("fasternet_t0", {"embed_dim": 12, "depths": (1, 1, 3, 1)}),
    "replknet": ("replknet_31b", {"channels": (16, 24, 48, 64), "depths": (1, 1, 2, 1)}),
    "mobilevigv2": (
        "mobilevigv2_ti",
        {
            "channels": (16, 24, 32, 64),
            "local": (1, 1, 2, 1),
            "graphs": (0, 1, 1, 1),
            "distances": (8, 4, 2, 1),
            "embed_dim": 32,
        },
    ),
    "rapidnet": (
        "rapidnet_ti",
        {
            "channels": (16, 24, 32, 64),
            "local": (1, 1, 2, 1),
            "dilated": (0, 0, 1, 1),
            "embed_dim": 32,
        },
    ),
}
SMALL_KERNELS = {
    "replknet-k3": "replknet_3",
    "replknet-k7": "replknet_7",
    "replknet-k13": "replknet_13",
}
FAMILIES = {family: (name, {"config": config}) for family, (name, config) in TINY.items()} | {
    label: (name, {"config": TINY["replknet"][1]}) for label, name in SMALL_KERNELS.items()
}


def tiny(family: str, **fields: Any) -> tuple[str, dict]:
    """The family's tiny network with other options: `config` and further fields of the recipe."""
    name, config = TINY[family]
    return name, fields | {"config": config | fields.get("config", {})}


def rapid(
    mixer: str = "mldc", *, cpe: bool = True, lk_ffn: bool = True, **more: Any
) -> tuple[str, dict]:
    config = {"local": (1, 1, 1, 1), "dilated": (2, 1, 0, 0), "mixer": mixer}
    fields = more.pop("fields", {})
    return tiny("rapidnet", config=config | {"cpe": cpe, "lk_ffn": lk_ffn} | more, **fields)


def graphs(graph: str, stages: int, *, cpe: bool) -> tuple[str, dict]:
    config = {
        "local": (1, 1, 1, 1),
        "graphs": (1, 1, 1, 0) if stages == 3 else (0, 0, 3, 0),
        "distances": (2, 2, 2, 2) if graph == "svga" else (8, 4, 2, 1),
        "graph": graph,
        "cpe": cpe,
    }
    return tiny("mobilevigv2", config=config)


def large_kernel(kernel_size: int, **config: Any) -> tuple[str, dict]:
    return "mobilenetv2", {"config": {"kernel_size": kernel_size} | config}


PLAIN = {"ema": 0.0, "final_weight_decay": None}
PROGRESSIVE = {"progressive": ((0, 32, 1.0), (1, 36, 1.0), (2, 40, 1.0))}
ANNEALED = {"final_weight_decay": 1e-5}

EXPERIMENTS: dict[str, Experiment] = {
    "shapes": Experiment(
        source="The five families, and RepLKNet's kernel sizes (its Table 5), under one budget.",
        data="shapes",
        common={"size": 64, "epochs": 4},
        variants=FAMILIES,
    ),
    "cifar10": Experiment(
        source="The five families, and RepLKNet's kernel sizes (its Table 5), under one budget.",
        data="cifar10",
        common={"size": 64, "epochs": 5},
        variants=FAMILIES,
    ),
    "mobileone-branches": Experiment(
        source="MobileOne, Tables 6, 7 and 11, Figure 4.",
        data="cifar10",
        common={"epochs": 5},
        variants={
            "no branches": tiny("mobileone", config={"branches": False, "k": 1}),
            "k = 1": tiny("mobileone", config={"k": 1}),
            "k = 2": tiny("mobileone", config={"k": 2}),
            "k = 4": tiny("mobileone", config={"k": 4}),
        },
    ),
    "mobileone-training": Experiment(
        source="MobileOne, Tables 5 and 10.",
        data="cifar10",
        common={"epochs": 4, "size": 40, "batch_size": 32},
        variants={
            "baseline": tiny("mobileone", **PLAIN),
            "+ progressive learning": tiny("mobileone", **PLAIN | PROGRESSIVE),
            "+ annealed weight decay": tiny("mobileone", **PLAIN | PROGRESSIVE | ANNEALED),
            "+ EMA": tiny("mobileone", **PROGRESSIVE | ANNEALED),
        },
        differs="Sizes 32, 36 and 40 for the paper's 160, 192 and 224, from about the same "
        "fractions of the training; no AutoAugment, so its strength is not progressive; S0 for S2.",
    ),
    "fasternet-block": Experiment(
        source="FasterNet, Table 5.",
        data="cifar10",
        common={"epochs": 4, "batch_size": 32},
        variants={
            "r = 1/2": tiny("fasternet", config={"embed_dim": 24, "n_div": 2}),
            "r = 1/4": tiny("fasternet", config={"embed_dim": 24, "n_div": 4}),
            "r = 1/8": tiny("fasternet", config={"embed_dim": 24, "n_div": 8}),
            "LayerNorm": tiny("fasternet", config={"embed_dim": 24, "norm": "layer"}),
            "ReLU": tiny("fasternet", config={"embed_dim": 24, "act": "relu"}),
        },
        differs="The widths stay the same for every r, where the paper adapts them to the FLOPs.",
    ),
    "rapidnet-mixers": Experiment(
        source="RapidNet, Tables 4, 5 and 6.",
        data="cifar10",
        common={"epochs": 3},
        variants={
            "pointwise": rapid("pointwise", cpe=False, lk_ffn=False),
            "3x3": rapid("conv3x3", cpe=False, lk_ffn=False),
            "SVGA": rapid("svga"),
            "SLDC": rapid("dilated", cpe=False, lk_ffn=False),
            "SLDC + CPE": rapid("dilated", lk_ffn=False),
            "SLDC + CPE + LK-FFN": rapid("dilated"),
            "MLDC": rapid(),
            "MLDC, dilations 3 and 4": rapid(dilations=(3, 4)),
            "MLDC, 5x5": rapid(kernels=(5, 5)),
            "deformable": rapid("deformable"),
            "MLDC, distilled": rapid(
                distilled=True, fields={"distillation": "hard", "distillation_weight": 0.5}
            ),
        },
        teacher=("mobileone_s0", {"epochs": 12}),
        differs="Images of 32 pixels, so the dilated blocks stand in stages 1 and 2, whose maps "
        "have 8 and 4 pixels; the teacher is a MobileOne of the recipe 'small'.",
    ),
    "mobilevigv2-graphs": Experiment(
        source="MobileViGv2, Table 3.",
        data="cifar10",
        common={"epochs": 3, "size": 64, "batch_size": 32},
        variants={
            "SVGA, 1 stage": graphs("svga", 1, cpe=False),
            "SVGA, 3 stages": graphs("svga", 3, cpe=False),
            "SVGA + CPE, 1 stage": graphs("svga", 1, cpe=True),
            "SVGA + CPE, 3 stages": graphs("svga", 3, cpe=True),
            "fully connected, 3 stages": graphs("fc", 3, cpe=False),
            "MGC + CPE, 3 stages": graphs("mgc", 3, cpe=True),
        },
        differs="Images of 64 pixels, so the graphs stand in stages 1 to 3 (maps of 16, 8 and 4 "
        "pixels) or in stage 3 alone.",
    ),
    "mobilenetv2-kernels": Experiment(
        source="RepLKNet, Tables 2, 3 and 11.",
        data="cifar10",
        common={"epochs": 5, "batch_size": 32},
        variants={
            "3x3": large_kernel(3),
            "13x13": large_kernel(13),
            "3x3, no shortcut": large_kernel(3, shortcut=False),
            "13x13, no shortcut": large_kernel(13, shortcut=False),
            "9x9": large_kernel(9),
            "9x9 + 3x3": large_kernel(9, small_kernel=3),
            "13x13 + 3x3": large_kernel(13, small_kernel=3),
            "3x3 dilated by 4": large_kernel(3, dilation=4),
            "3x3 dilated by 6": large_kernel(3, dilation=6),
        },
        differs="Images of 32 pixels and a network of 12 blocks that halves the map three times: "
        "maps of 16, 8 and 4 pixels, so that most of a 13x13 kernel, and all but the centre of a "
        "dilated one, often meets padding.",
    ),
    "mobilenetv2-last-stage": Experiment(
        source="RepLKNet, Table 4.",
        data="cifar10",
        common={"epochs": 4, "size": 56, "batch_size": 32},
        variants={
            "3x3": large_kernel(3),
            "7x7": large_kernel(7, last_stage_only=True, small_kernel=3),
            "13x13": large_kernel(13, last_stage_only=True, small_kernel=3),
        },
        differs="Images of 56 pixels and a network of 12 blocks that halves the map three times: "
        "the last stage's map has 7 pixels, as the paper's at 224.",
    ),
}


@dataclass
class Outcome:
    """What an experiment gave.

    Attributes:
        table: a row per run: variant, seed, network, parameters (thousands) in training and
            re-parameterized, top1, top5 (percent), train_loss, val_loss, seconds.
        log: a row per run and epoch: variant, seed, epoch, train_loss, val_loss, top1.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    log: pd.DataFrame = field(default_factory=pd.DataFrame)


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
    progress: bool = True,
) -> Outcome:
    """Trains every variant with every seed; what is in `runs` already is not trained again.

    Args:
        runs: the folder that gets a run of the trainer per variant and seed.
        data: a name or a folder in the place of the experiment's own data.
        root, download: as for `load_data`.
        seeds: how many; they are 0, 1, ...
        jobs: runs at a time, each on one thread.

    Raises:
        ValueError, OSError: what `load_data` and `train` raise.
        Interrupted: SIGINT or SIGTERM; the same call goes on.
    """
    runs = Path(runs)
    source = (data or experiment.data, os.fspath(root))
    load_data(source[0], root=root, download=download)
    teacher = None
    if experiment.teacher:
        folder = runs / TEACHER
        train_one(experiment.recipe(TEACHER), source, folder, progress)
        teacher = os.fspath(folder / "model.safetensors")
    tasks = {
        (label, seed): (experiment.recipe(label, seed, teacher), runs / folder_name(label, seed))
        for seed in range(seeds)
        for label in experiment.variants
    }
    with stopping() as stop, stop.deferred():
        run_all(list(tasks.values()), source, jobs, stop, progress)
    if teacher:
        tasks = {(TEACHER, 0): (experiment.recipe(TEACHER), runs / TEACHER)} | tasks
    logs = {key: pd.read_csv(run / "log.csv") for key, (_, run) in tasks.items()}
    return Outcome(
        pd.DataFrame([row_of(*key, *task, logs[key]) for key, task in tasks.items()]),
        pd.concat(
            [
                log[["epoch", "train_loss", "val_loss", "top1"]].assign(variant=label, seed=seed)
                for (label, seed), log in logs.items()
            ]
        )[["variant", "seed", "epoch", "train_loss", "val_loss", "top1"]].round(4),
    )


def run_all(
    tasks: list[tuple[Recipe, Path]],
    source: tuple[str, str],
    jobs: int,
    stop: Stop,
    progress: bool,
) -> None:
    """Every run that is not done, so many at a time, each in a process of one thread.

    Raises:
        Interrupted: on a signal, after the processes have written their checkpoints.
    """
    with (
        tqdm(total=len(tasks), desc="runs", disable=None if progress else True) as bar,
        ProcessPoolExecutor(jobs, get_context("spawn"), initializer=begin_process) as pool,
    ):
        others = set(active_children())
        with unheard():
            waiting = {pool.submit(train_one, recipe, source, run) for recipe, run in tasks}
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


def begin_process() -> None:
    """In a process that trains: one thread, and signals heard for as long as it lives."""
    torch.set_num_threads(1)
    hear_signals()


def folder_name(label: str, seed: int) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in label.lower())
    return f"{plain}-{seed}"


def train_one(recipe: Recipe, source: tuple[str, str], run: Path, progress: bool = False) -> None:
    """One run, unless it is done."""
    with stopping() as stop:
        if stop:  # the pool had handed this run out already
            raise stop.interrupted("stopped before it began")
    if not (run / "model.safetensors").exists():
        name, root = source
        data = load_data(name, root=root, size=recipe.size)
        train(recipe, data, run, resume=True, machine=Machine(device="cpu"), progress=progress)


def row_of(label: str, seed: int, recipe: Recipe, run: Path, log: pd.DataFrame) -> dict:
    model = load_model(run / "model.safetensors")
    last = log.iloc[-1]
    return {
        "variant": label,
        "seed": seed,
        "network": recipe.model,
        "kparams": round(sum(p.numel() for p in model.parameters()) / 1e3, 1),
        "epochs": recipe.epochs,
        "size": recipe.size,
        "top1": round(last["top1"], 2),
        "top5": round(last["top5"], 2),
        "train_loss": round(last["train_loss"], 4),
        "val_loss": round(last["val_loss"], 4),
        "seconds": round(log["seconds"].sum(), 1),
    }


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
        log = pd.read_csv(runs / folder_name(label, 0) / "log.csv")
        rows.append(
            {
                "file": path.name,
                "network": recipe.model,
                "kilobytes": round(path.stat().st_size / 1000),
                "top1": round(log["top1"].iloc[-1], 2),
                "top1_stored": round(score.top1, 2),
            }
        )
    return pd.DataFrame(rows)
