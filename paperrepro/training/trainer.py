"""The training loop: one process or many, interrupted or not, the same weights.

A run is a folder. `last.pt` is the last checkpoint and `previous.pt` the one before; `log.csv` and
`log.json` hold a line per epoch, the latter with the data and the versions; `recipe.json` is the
recipe. When all epochs are done, `model.safetensors` is the network.

    train(find_recipe("mobileone_s0", "small"), load_data("digits"), "runs/digits")

Everything random follows from the recipe's seed and from where the training is (the epoch, the
step, the image), so that a checkpoint in the middle of an epoch has no generator's state to keep.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from ..datasets import Data, Prepared, ShardedSampler, mix_seed
from ..files import pick_device, write_atomically
from ..models import Backbone, Input
from ..models.registry import input_of
from ..networks import transform_of
from ..results import surroundings
from ..transforms import mixing, training_transform
from ..weights import create_model, save_model
from .checkpoint import LAST, has_checkpoint, load_checkpoint, save_checkpoint
from .distillation import Answers, load_teacher, loss_of
from .evaluation import Score, evaluate
from .recipe import Recipe, changes, from_json
from .schedules import learning_rate, weight_decay

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Diverged(ValueError):
    """The loss is no number any more."""


class Interrupted(Exception):
    """SIGTERM came, and the checkpoint is written."""


@dataclass(frozen=True)
class Place:
    """This process among all that train together, and what it computes on."""

    rank: int
    world: int
    device: torch.device


def train(
    recipe: Recipe,
    data: Data,
    run: str | os.PathLike,
    *,
    resume: bool = False,
    weights: str | os.PathLike | None = None,
    trunk_only: bool = False,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains a network by a recipe; under `torchrun`, in all its processes together.

    Args:
        run: the folder of the run.
        resume: goes on from the run's last checkpoint, or begins where there is none.
        weights: what to begin with in place of fresh weights: "released", or a file.
        trunk_only: takes all but the classifier from `weights`.
        workers: processes per training process that prepare images.
        device: "cpu" or "cuda"; None for a GPU where there is one.
        progress: shows a bar and a line per epoch.

    Returns:
        The log, a row per epoch.

    Raises:
        ValueError: settings that do not fit the data, the processes or the run to resume.
        OSError: a checkpoint that cannot be written or read.
        Diverged: the loss became infinite or no number.
        Interrupted: SIGTERM; the checkpoint is written.
    """
    run = Path(run)
    with process_group(device) as place, sigterm() as stop:
        if has_checkpoint(run) and not resume:
            raise ValueError(
                f"{run} holds a run; go on with it (--resume) or choose another folder"
            )
        torch.manual_seed(recipe.seed)
        model = starting_network(recipe, len(data.classes), weights, trunk_only)
        training = Training(recipe, data, model, place)
        run.mkdir(parents=True, exist_ok=True)
        if resume:
            training.resume(run)
        teacher = None
        if recipe.teacher:
            teacher = load_teacher(recipe.teacher, len(data.classes)).to(place.device)
        if place.rank == 0:
            write_atomically(run / "recipe.json", (recipe.to_json() + "\n").encode())
        board = tensorboard(run) if place.rank == 0 else None
        shown = progress and place.rank == 0
        mix = mixing(len(data.classes), mixup=recipe.mixup, cutmix=recipe.cutmix)

        while training.epoch < recipe.epochs:
            began = time.perf_counter()
            batches = training.batches(workers)
            with tqdm(
                desc=f"epoch {training.epoch + 1}/{recipe.epochs}",
                initial=training.step,
                total=training.steps,
                leave=False,
                disable=None if shown else True,
            ) as bar:
                while training.step < training.steps:
                    loss = training.take_step(batches, mix, teacher)
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    bar.update()
                    if anyone(stop, place) and training.step < training.steps:
                        if place.rank == 0:
                            save_checkpoint(run, training.state())
                        if place.world > 1:
                            dist.barrier()
                        raise Interrupted(
                            f"stopped in epoch {training.epoch + 1} after step {training.step}; "
                            f"{run / LAST} is written, go on with --resume"
                        )
            training.finish_epoch(workers, began)
            if place.rank == 0:
                save_checkpoint(run, training.state())
                write_log(run, training)
                row = training.rows[-1]
                if board:
                    for name in ("train_loss", "val_loss", "top1", "lr"):
                        board.add_scalar(name, row[name], row["epoch"])
                if shown:
                    say(line(row, recipe))
        if place.rank == 0:
            trained = training.kept()
            trained.input, trained.classes = input_for(recipe), tuple(data.classes)
            save_model(trained, run / "model.safetensors")
        return pd.DataFrame(training.rows)


class Training:
    """Everything that changes during a training: the weights, the optimizer, where it is.

    Attributes:
        steps: how many make an epoch.
        local_batch: the images of one forward pass of this process.
        epoch, step: how many epochs, and steps of the current one, are done.
        rows: the log so far.
        unreadable: the images that could not be read.
    """

    def __init__(self, recipe: Recipe, data: Data, model: Backbone, place: Place) -> None:
        self.recipe, self.data, self.place = recipe, data, place
        self.local_batch, rest = divmod(recipe.batch_size, place.world * recipe.accumulate)
        if rest or not self.local_batch:
            raise ValueError(
                f"batch_size {recipe.batch_size} is not a multiple of {place.world} processes x "
                f"{recipe.accumulate} accumulated steps; set another"
            )
        self.steps = steps = len(data.train) // recipe.batch_size
        if not steps:
            raise ValueError(
                f"batch_size {recipe.batch_size} is more than the {len(data.train)} images of "
                f"{data.name}; set a smaller one"
            )
        self.epoch = self.step = 0
        self.loss_sum = 0.0
        self.rows: list[dict] = []
        self.unreadable: set[str] = set()
        on_gpu = place.device.type == "cuda"
        if recipe.sync_bn and place.world > 1 and on_gpu:  # torch has it for GPUs only
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(place.device).to(memory_format=torch.channels_last).train()
        self.ema: AveragedModel | None = None
        if recipe.ema:
            average = get_ema_multi_avg_fn(recipe.ema)
            self.ema = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.answers: nn.Module = Answers(self.model)
        if place.world > 1:
            self.answers = DistributedDataParallel(self.answers)
        groups = parameter_groups(self.model, recipe)
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(groups, momentum=0.9)
            if recipe.optimizer == "sgd"
            else torch.optim.AdamW(groups)
        )
        self.scheduler = LambdaLR(
            self.optimizer, lambda step: learning_rate(recipe, step / steps) / recipe.lr
        )
        self.amp = recipe.amp and on_gpu
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=self.amp)

    def kept(self) -> Backbone:
        """The network that is validated and saved: the averaged one where there is one."""
        return cast(Backbone, self.ema.module) if self.ema else self.model

    def batches(self, workers: int) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """This process's part of the current epoch, from the current step on."""
        recipe, place = self.recipe, self.place
        sampler = ShardedSampler(
            len(self.data.train),
            epoch=self.epoch,
            seed=recipe.seed,
            repeats=recipe.repeats,
            rank=place.rank,
            world=place.world,
            start=self.step * recipe.accumulate * self.local_batch,
        )
        transform = transform_for_training(recipe, self.epoch, self.data.mirror)
        loader = DataLoader(
            Prepared(self.data.train, transform, recipe.seed),
            self.local_batch,
            sampler=sampler,
            num_workers=workers,
            pin_memory=place.device.type == "cuda",
        )
        return iter(loader)

    def take_step(
        self, batches: Iterator, mix: v2.Transform | None, teacher: nn.Module | None
    ) -> float:
        """One step of the optimizer.

        Args:
            batches: what `batches` returned.
            mix: MixUp and CutMix.
            teacher: gives its answers to the same images.

        Returns:
            The loss of this process's part of the batch.

        Raises:
            Diverged: before the weights are touched.
        """
        recipe, place = self.recipe, self.place
        decay = weight_decay(recipe, self.epoch + self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = decay if group["decays"] else 0.0
        self.optimizer.zero_grad()
        total = 0.0
        for part in range(recipe.accumulate):
            images, labels = self.readable(next(batches))
            torch.manual_seed(mix_seed(recipe.seed, self.epoch, self.step, part, place.rank))
            if mix:
                images, labels = mix(images, labels)
            images = images.to(place.device, memory_format=torch.channels_last, non_blocking=True)
            labels = labels.to(place.device, non_blocking=True)
            lesson = None
            last = part + 1 == recipe.accumulate
            alone: AbstractContextManager = nullcontext()
            if isinstance(self.answers, DistributedDataParallel) and not last:
                alone = self.answers.no_sync()
            with alone:
                with torch.autocast(place.device.type, torch.float16, enabled=self.amp):
                    if teacher:
                        with torch.no_grad():
                            lesson = teacher(images)
                    loss = loss_of(self.answers(images), labels, recipe, lesson)
                    loss = loss / recipe.accumulate
                self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise Diverged(self.remedy(total))
        if recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema:
            self.ema.update_parameters(self.model)
        self.step += 1
        self.loss_sum += total
        return total

    def readable(self, batch: tuple[Tensor, Tensor, list[str]]) -> tuple[Tensor, Tensor]:
        """The images and labels of a batch, after a look at what could not be read."""
        images, labels, unreadable = batch
        new = {name for names in unreadable for name in names.split("\n") if name} - self.unreadable
        for name in sorted(new):
            say(f"unreadable image, replaced by the next: {name}")
        self.unreadable |= new
        count, limit = len(self.unreadable), self.recipe.max_unreadable
        if count > limit * len(self.data.train):
            raise OSError(
                f"{count} of the {len(self.data.train)} images of {self.data.name} are unreadable "
                f"so far, more than max_unreadable={limit} allows: {min(self.unreadable)}, ... "
                "Mend or delete them, or set another limit"
            )
        if labels.max() >= self.model.num_classes or labels.min() < 0:
            raise ValueError(
                f"the data have the labels {labels.min()} to {labels.max()} and the network "
                f"classes 0 to {self.model.num_classes - 1}; give Data.classes every class"
            )
        return images, labels

    def remedy(self, loss: float) -> str:
        lr = self.scheduler.get_last_lr()[0]
        clip = "" if self.recipe.clip_grad else ", or clip the gradients (--set clip_grad=1)"
        return (
            f"the loss is {loss} in epoch {self.epoch + 1}, step {self.step + 1}, at a learning "
            f"rate of {lr:.3g}. Lower the rate (--set lr={self.recipe.lr / 2:.3g}), warm up longer "
            f"(--set warmup_epochs={self.recipe.warmup_epochs + 1}){clip}, in another folder"
        )

    def finish_epoch(self, workers: int, began: float) -> None:
        """Validates, adds a row to the log, and turns to the next epoch."""
        recipe, place = self.recipe, self.place
        mean_loss = torch.tensor(self.loss_sum / self.steps, dtype=torch.float64)
        if place.world > 1:
            mean_loss = mean_loss.to(place.device)
            dist.all_reduce(mean_loss)
            mean_loss /= place.world
            for network in (self.model, self.kept()):
                for buffer in network.buffers():
                    dist.broadcast(buffer, 0)
        seconds = time.perf_counter() - began

        def score(model: nn.Module) -> Score:
            return evaluate(
                model,
                self.data.val,
                transform_for_validation(recipe),
                batch_size=min(self.local_batch, 256),
                workers=workers,
                device=place.device,
                rank=place.rank,
                world=place.world,
            )

        kept = score(self.kept())
        self.epoch += 1
        self.rows.append(
            {
                "epoch": self.epoch,
                "steps": self.epoch * self.steps,
                "size": recipe.stage(self.epoch - 1)[0],
                "lr": self.scheduler.get_last_lr()[0],
                "weight_decay": weight_decay(recipe, self.epoch),
                "train_loss": mean_loss.item(),
                "val_loss": kept.loss,
                "top1": kept.top1,
                "top5": kept.top5,
                "top1_without_ema": score(self.model).top1 if self.ema else kept.top1,
                "unreadable": len(self.unreadable),
                "seconds": round(seconds, 3),
            }
        )
        self.step, self.loss_sum = 0, 0.0

    def state(self) -> dict:
        """What a checkpoint holds: tensors, numbers and strings only."""
        return {
            "recipe": self.recipe.to_json(),
            "classes": list(self.data.classes),
            "images": len(self.data.train),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "rows": self.rows,
            "unreadable": sorted(self.unreadable),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, run: Path) -> None:
        """Goes to where the run's last whole checkpoint was written, if it has one.

        Raises:
            ValueError: the checkpoint is another network's, recipe's or other data's.
        """
        data = self.data
        state, damaged = load_checkpoint(run)
        if self.place.world > 1:
            dist.barrier()
        if damaged and self.place.rank == 0:
            for path in damaged:
                say(f"{path} is damaged or cut off; going on from the one before it")
                path.replace(path.with_suffix(".damaged"))
        if state is None:
            return
        theirs = from_json(state["recipe"])
        network = (theirs.model, theirs.config, len(state["classes"]))
        ours = (self.recipe.model, self.recipe.config, len(data.classes))
        if network != ours:
            raise ValueError(
                f"{run} is a run of {described(*network)}, not of {described(*ours)}; resume it "
                "as it began, or choose another folder"
            )
        if different := changes(self.recipe, theirs):
            pairs = (f"{k} was {was!r}, now {now!r}" for k, (now, was) in different.items())
            raise ValueError(
                f"{run} was begun by another recipe: {', '.join(pairs)}; resume it as it began"
            )
        if (state["classes"], state["images"]) != (list(data.classes), len(data.train)):
            raise ValueError(
                f"{run} was begun on {state['images']} images of {len(state['classes'])} classes, "
                f"and {data.name} has {len(data.train)} of others; resume it on its own data"
            )
        for name in ("epoch", "step", "loss_sum", "rows"):
            setattr(self, name, state[name])
        self.unreadable = set(state["unreadable"])
        self.model.load_state_dict(state["model"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])


def described(model: str, config: dict, classes: int) -> str:
    return f"{model} with {config or 'no options'} and {classes} classes"


def starting_network(
    recipe: Recipe, num_classes: int, weights: str | os.PathLike | None, trunk_only: bool
) -> Backbone:
    """The recipe's network, fresh or with weights, which may have been trained with other drop
    rates than the recipe's."""
    model = create_model(
        recipe.model,
        num_classes=num_classes,
        weights=weights,
        trunk_only=trunk_only,
        **recipe.config,
    )
    if model.reparameterized:
        raise ValueError(f"{weights} is re-parameterized; training needs the weights as trained")
    return model


def parameter_groups(model: Backbone, recipe: Recipe) -> list[dict]:
    """The parameters by learning rate, which falls from the head to the stem by `layer_decay`, and
    by whether they decay: norms and biases, which are vectors, do not."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for depth, part in enumerate([model.head, *reversed(model.stages), model.stem]):
        for parameter in part.parameters():
            key = (recipe.lr * recipe.layer_decay**depth, parameter.dim() > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "decays": decays}
        for (lr, decays), parameters in groups.items()
    ]


def transform_for_training(recipe: Recipe, epoch: int, mirror: bool = True) -> v2.Transform:
    """The augmentation of an epoch, normalised as the network's released weights expect it."""
    size, factor = recipe.stage(epoch)
    prepared = input_of(recipe.model)
    return training_transform(
        size,
        crop_scale=recipe.crop_scale,
        flip=recipe.flip and mirror,
        rand_augment=recipe.rand_augment,
        auto_augment=recipe.auto_augment * factor,
        erasing=recipe.erasing,
        interpolation=recipe.interpolation,
        mean=prepared.mean,
        std=prepared.std,
    )


def input_for(recipe: Recipe) -> Input:
    """How the trained network's images are prepared: as the family's, at the recipe's size."""
    return replace(input_of(recipe.model), size=recipe.size, crop=recipe.test_crop)


def transform_for_validation(recipe: Recipe) -> v2.Transform:
    """`paperrepro.evaluation_transform` at the recipe's size."""
    return transform_of(input_for(recipe))


@contextmanager
def process_group(device: str | None) -> Iterator[Place]:
    """This process's place among those that `torchrun` started, or alone."""
    picked = pick_device(device)
    kind = picked.type
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield Place(0, 1, picked)
        return
    place = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), world, torch.device(place))
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def sigterm() -> Iterator[list[bool]]:
    """A list that is no longer empty once SIGTERM came."""
    came: list[bool] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    except ValueError:  # not in the main thread, which alone hears signals
        yield came
        return
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def anyone(stop: list[bool], place: Place) -> bool:
    """Whether any process was told to stop: they stop after the same step."""
    if place.world == 1:
        return bool(stop)
    flag = torch.tensor(float(bool(stop)), device=place.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def write_log(run: Path, training: Training) -> None:
    """`log.csv` and `log.json`, whole."""
    data = training.data
    table = pd.DataFrame(training.rows).to_csv(index=False, lineterminator="\n")
    write_atomically(run / "log.csv", table.encode())
    content = {
        "data": data.name,
        "classes": list(data.classes),
        "images": len(data.train),
        "processes": training.place.world,
        "device": str(training.place.device),
        "surroundings": surroundings(),
        "unreadable": sorted(training.unreadable),
        "epochs": training.rows,
    }
    write_atomically(run / "log.json", (json.dumps(content, indent=1) + "\n").encode())


def say(text: str) -> None:
    """Beside the progress bar."""
    tqdm.write(text, file=sys.stderr)


def line(row: dict, recipe: Recipe) -> str:
    return (
        f"epoch {row['epoch']}/{recipe.epochs}  loss {row['train_loss']:.3f}  "
        f"validation {row['val_loss']:.3f}  top-1 {row['top1']:.1f} %  {row['seconds']:.0f} s"
    )


def tensorboard(run: Path) -> "SummaryWriter | None":
    """TensorBoard's writer where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(os.fspath(run))
