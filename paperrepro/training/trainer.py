"""The trainer: set up, fit, step, validate, save; one process or many, interrupted or not.

A run is a folder. `last.pt` is the last checkpoint and `previous.pt` the one before; `log.csv` and
`log.json` hold a line per epoch, `steps.csv` one per step; `recipe.json` is the recipe;
`best.safetensors` the network with the best validation and, when all epochs are done,
`model.safetensors` the last one.

    train(find_recipe("mobileone_s0", "small"), load_data("digits"), "runs/digits")

Everything random follows from the recipe's seed and from where the training is (the epoch, the
step, the image), so that a checkpoint in the middle of an epoch has no generator's state to keep.
"""

import math
import os
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..datasets import Data
from ..files import locked, write_atomically
from ..seeds import mix_seed
from ..signals import Stop, stopping
from .checkpoint import (
    BEST,
    LAST,
    MODEL,
    has_checkpoint,
    keep_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from .loader import Order, Stateful, batches_of, begin, length, make_loader, moved
from .log import Log, Losses, say
from .norms import has_batch_norm, synchronised
from .optimizers import Average, make_optimizer, parameter_groups
from .place import Consensus, Machine, Place, backends, mixed_precision, process_group
from .recipe import Recipe
from .resuming import check_same
from .schedules import learning_rate, weight_decay
from .task import Classification, Task


class Diverged(ValueError):
    """The loss is no number any more."""


def train(
    recipe: Recipe,
    data: Data,
    run: str | os.PathLike,
    *,
    weights: str | Path | None = None,
    trunk_only: bool = False,
    resume: bool = False,
    allow: Collection[str] = (),
    machine: Machine = Machine(),
    progress: bool = True,
) -> pd.DataFrame:
    """Trains a network to classify, by a recipe; under `torchrun`, in all its processes together.

    Args:
        run: the folder of the run.
        weights: what to begin with in place of fresh weights: "released", or a file.
        trunk_only: takes all but the classifier from `weights`.
        resume: goes on from the run's last checkpoint, or begins where there is none.
        allow: what may be other than when the run was begun: fields of the recipe, "data" or
            "processes".
        machine: how the computing is done.
        progress: shows a bar and a line per epoch.

    Returns:
        The log, a row per epoch.

    Raises:
        ValueError: settings that do not fit the data, the processes or the run to resume.
        OSError: a checkpoint that cannot be written or read, or a run that another process trains.
        Diverged: the loss became infinite or no number.
        Interrupted: SIGINT or SIGTERM; the checkpoint is written.
    """
    task = Classification(recipe, data, weights=weights, trunk_only=trunk_only)
    return fit(task, run, resume=resume, allow=allow, machine=machine, progress=progress)


def fit(
    task: Task,
    run: str | os.PathLike,
    *,
    resume: bool = False,
    allow: Collection[str] = (),
    machine: Machine = Machine(),
    progress: bool = True,
) -> pd.DataFrame:
    """Trains for a task, whatever it is; for the rest see `train`."""
    run = Path(run)
    with stopping() as stop, process_group(machine.device) as place, backends(machine, place):
        check_free(run, resume)
        trainer = Trainer(task, place, machine)
        alone = locked(run / ".lock") if place.rank == 0 else nullcontext()
        with alone, stop.deferred():
            check_free(run, resume)
            if resume:
                trainer.resume(run, allow)
            trainer.open_log(run)
            trainer.run_epochs(stop, progress)
    return pd.DataFrame(trainer.rows)


class Trainer:
    """Everything that changes during a training: the weights, the optimizer, where it is.

    >>> trainer = Trainer(Classification(recipe, data))
    >>> for batches in trainer.epoch_batches():
    ...     trainer.step(batches)
    >>> trainer.validate()

    Attributes:
        model: the network that learns.
        average: its moving average, where the recipe has one.
        steps: how many make an epoch.
        local_batch: the images of one forward pass of this process.
        epoch, done: how many epochs, and steps of the current one, are done.
        rows: the log so far.
        unreadable: the images that could not be read.
    """

    def __init__(
        self,
        task: Task,
        place: Place = Place(0, 1, torch.device("cpu")),
        machine: Machine = Machine(),
    ) -> None:
        recipe = task.recipe
        self.task, self.recipe, self.place, self.machine = task, recipe, place, machine
        images = length(task.train)
        self.local_batch, self.steps = batches_of(images, task.name, recipe, place)
        self.epoch = self.done = 0
        self.rows: list[dict] = []
        self.unreadable: set[str] = set()
        self.best: float | None = None
        self.log: Log | None = None
        self.consensus = Consensus(place)
        # The network
        torch.manual_seed(recipe.seed)
        with place.first_alone():
            model = task.build()
        if self.local_batch == 1 and isinstance(task, Classification) and has_batch_norm(model):
            raise ValueError(
                f"batch_size={recipe.batch_size} leaves one image to a pass, of which BatchNorm "
                "has no statistics; take more, or a smaller accumulate"
            )
        if recipe.sync_bn and place.world > 1:
            model = synchronised(model, place)
        elif place.world > 1 and place.rank == 0 and has_batch_norm(model):
            say(
                f"BatchNorm takes its statistics over the {self.local_batch} images of each of "
                f"{place.world} processes, not over all; set sync_bn=true for the network of one"
            )
        if machine.grad_checkpointing:
            if not hasattr(model, "set_grad_checkpointing"):
                raise ValueError(f"{type(model).__name__} cannot checkpoint its gradients")
            cast(Any, model).set_grad_checkpointing()
        layout = torch.channels_last if machine.channels_last else torch.contiguous_format
        self.model = model.to(place.device).to(memory_format=layout).train()
        self.average = None
        if recipe.ema:
            self.average = Average(self.model, recipe.ema, warmup=recipe.ema_warmup)
        self.objective = task.objective(self.model, place)
        if machine.compile:
            self.objective.compile()
        if place.world > 1:
            self.objective = DistributedDataParallel(self.objective)
        # What moves it
        groups = parameter_groups(task.parts(self.model), recipe)
        self.optimizer = make_optimizer(groups, recipe, place.device)
        self.precision = mixed_precision(recipe, place.device)
        if recipe.amp and self.precision != getattr(torch, recipe.amp_dtype) and place.rank == 0:
            say(f"amp: a {place.device.type} computes in bfloat16, not in {recipe.amp_dtype}")
        self.scaler = torch.amp.GradScaler(
            place.device.type, enabled=self.precision == torch.float16
        )
        # The images
        self.order = Order(task.train, recipe, place)
        self.loader = make_loader(
            task.train,
            self.local_batch,
            machine,
            place.device,
            keys=self.order,
            collate=task.collate,
        )
        self.val_loader = make_loader(
            task.val,
            min(self.local_batch, 256),
            machine,
            place.device,
            keys=[(0, index, 0) for index in range(place.rank, length(task.val), place.world)],
            collate=task.collate,
        )
        self.losses = Losses(place.device, recipe.batch_size)
        self.saved = time.perf_counter()

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.average.module if self.average else self.model

    def run_epochs(self, stop: Stop, progress: bool = True) -> None:
        """All epochs that are left, with everything that is written.

        Raises:
            Interrupted: with the checkpoint written.
        """
        recipe, first = self.recipe, self.place.rank == 0
        trained = self.epoch < recipe.epochs
        while self.epoch < recipe.epochs:
            began = time.perf_counter()
            with tqdm(
                desc=f"epoch {self.epoch + 1}/{recipe.epochs}",
                initial=self.done,
                total=self.steps,
                leave=False,
                disable=None if progress and first else True,
            ) as bar:
                for batches in self.interruptible(self.epoch_batches(), stop):
                    loss = self.step(batches)
                    if loss is not None:
                        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    bar.update()
                    if time.perf_counter() - self.saved > 60 * self.machine.minutes:
                        self.save()
            seconds = time.perf_counter() - began
            self.validate(stop, seconds)
            self.save()
            if progress and first:
                say(line(self.rows[-1], recipe, self.task.headline))
        if first and self.log:
            if trained or not (self.log.run / MODEL).exists():
                self.task.save(self.kept, self.log.run / MODEL)
            self.log.close()

    def interruptible(self, batches: Iterator[Any], stop: Stop) -> Iterator[Any]:
        """The batches until a signal comes to any process; what follows a batch is done by then.

        Raises:
            Interrupted: with the checkpoint written.
            OSError: a worker that prepares images died.
        """
        while True:
            if self.consensus.any(bool(stop)):
                self.end(stop)
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if stop:
                    self.end(stop)
                if "DataLoader worker" not in str(error):
                    raise
                self.save()
                raise OSError(
                    f"a worker that prepares images was killed, perhaps for want of memory "
                    f"({' '.join(str(error).split())}); {self.where()}, with fewer --workers"
                ) from error
            if batch is None:
                return
            yield batch

    def end(self, stop: Stop) -> None:
        """Writes a checkpoint and ends the training, on a signal."""
        self.save()
        self.place.barrier()
        raise stop.interrupted(self.where())

    def where(self) -> str:
        at = f"in epoch {self.epoch + 1} after step {self.done}"
        written = f"{self.log.run / LAST} is written, go on with --resume" if self.log else ""
        return f"stopped {at}; {written}"

    # An epoch

    def epoch_batches(self) -> Iterator[list[Any]]:
        """This process's part of the current epoch from the current step on: for each step as many
        batches as the recipe accumulates."""
        if isinstance(self.task.train, Stateful) and not self.done:
            self.task.train.set_epoch(self.epoch)
        if self.done == self.steps:
            return
        self.order.epoch, self.order.start, self.order.stop = self.epoch, self.done, self.steps
        batches = begin(self.loader)
        while self.done < self.steps:
            yield list(islice(batches, self.recipe.accumulate))

    def step(self, batches: list[Any]) -> float | None:
        """One step of the optimizer.

        Args:
            batches: as many as the recipe accumulates.

        Returns:
            The loss of this process's part of the batch, where it was looked at: at every step on
            a CPU, at some on a GPU, which would have to wait for it.

        Raises:
            Diverged: on a CPU before the weights are touched, on a GPU some steps later.
        """
        recipe, place = self.recipe, self.place
        rate = self.set_schedules()
        self.optimizer.zero_grad()
        total = self.losses.zero()
        for part, batch in enumerate(batches):
            self.count_unreadable(batch)
            torch.manual_seed(mix_seed(recipe.seed, self.epoch, self.done, part, place.rank))
            batch = moved(batch, place.device, self.machine.channels_last)
            batch = self.task.augment(batch, self.epoch)
            alone: AbstractContextManager = nullcontext()
            if isinstance(self.objective, DistributedDataParallel) and part + 1 < len(batches):
                alone = self.objective.no_sync()
            with alone:
                with self.autocast():
                    loss = self.objective(batch) / recipe.accumulate
                self.scaler.scale(loss).backward()
            total += loss.detach()
        seen = total.item() if place.device.type == "cpu" else None
        if seen is not None and not math.isfinite(seen):
            raise Diverged(self.remedy(seen, self.done))
        if recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        if self.average and self.total_steps % recipe.ema_every == 0:
            self.average.update()
        self.losses.add(self.total_steps, rate, total)
        if len(self.losses.unseen) >= self.machine.log_every:
            seen = self.look()
        return seen

    @property
    def total_steps(self) -> int:
        """Those of all epochs that are done."""
        return self.epoch * self.steps + self.done

    def set_schedules(self) -> float:
        """Gives the optimizer this step's rate, which is returned, and weight decay."""
        recipe = self.recipe
        share = learning_rate(recipe, self.total_steps / self.steps) / recipe.lr
        decay = weight_decay(recipe, self.epoch + self.done / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest_lr"] * share
            group["weight_decay"] = decay if group["decays"] else 0.0
        return self.optimizer.param_groups[0]["lr"]

    def autocast(self) -> torch.autocast:
        kind = self.place.device.type
        return torch.autocast(kind, self.precision, enabled=self.precision is not None)

    def count_unreadable(self, batch: Any) -> None:
        """Tells what could not be read of a batch, and stops where it is too much.

        Raises:
            OSError: more than the recipe's share.
        """
        new = set(self.task.inspect(batch)) - self.unreadable
        for name in sorted(new):
            say(f"unreadable image, replaced by the next: {name}")
        self.unreadable |= new
        count, limit = len(self.unreadable), self.recipe.max_unreadable
        if count > limit * length(self.task.train):
            raise OSError(
                f"{count} of the {length(self.task.train)} images of {self.task.name} are "
                f"unreadable so far, more than max_unreadable={limit} allows: "
                f"{min(self.unreadable)}, ... Mend or delete them, or set another limit"
            )

    def look(self) -> float | None:
        """Looks at the losses since the last time, and logs them; the last one is returned.

        Raises:
            Diverged: one of them is no number.
        """
        rows = self.losses.look()
        for row in rows:
            if not math.isfinite(row["loss"]):
                step = int(row["step"]) - self.epoch * self.steps - 1
                raise Diverged(self.remedy(row["loss"], step))
        if self.log:
            self.log.add_steps(rows)
        return rows[-1]["loss"] if rows else None

    def remedy(self, loss: float, step: int) -> str:
        recipe = self.recipe
        clip = "" if recipe.clip_grad else ", clip the gradient (--set clip_grad=1)"
        rate = self.optimizer.param_groups[0]["lr"]
        return (
            f"the loss is {loss} in epoch {self.epoch + 1}, step {step + 1}, at a learning "
            f"rate of {rate:.3g}. Lower the rate (--set lr={recipe.lr / 2:.3g}), warm up longer "
            f"(--set warmup_epochs={recipe.warmup_epochs + 1}){clip}, in another folder"
        )

    # Between two epochs

    def validate(self, stop: Stop | None = None, seconds: float = 0.0) -> None:
        """Evaluates, adds a row to the log, and turns to the next epoch.

        The network without average is evaluated beside the averaged one after the last epoch.

        Args:
            stop: ends the evaluation, and the training with it; of one process alone.
            seconds: what the epoch took.

        Raises:
            Interrupted: with the checkpoint written.
        """
        recipe, place, task = self.recipe, self.place, self.task
        self.look()
        mean_loss = place.sum(self.losses.sum / self.steps).item() / place.world
        if place.world > 1:
            for network in (self.model, self.kept):
                for buffer in network.buffers():
                    torch.distributed.broadcast(buffer, 0)

        def metrics(network: nn.Module) -> dict[str, float]:
            network.eval()
            batches: Iterator[Any] = map(self.told, begin(self.val_loader))
            if stop is not None and place.world == 1:
                batches = self.interruptible(batches, stop)
            with torch.no_grad(), self.autocast():
                found = task.evaluate(network, batches, place)
            network.train()
            return found

        found = metrics(self.kept)
        last, plain = self.epoch + 1 == recipe.epochs, None
        if not self.average:
            plain = found[task.headline]
        elif last:
            plain = metrics(self.model)[task.headline]
        self.epoch, self.done = self.epoch + 1, 0
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "steps": self.total_steps,
            "size": recipe.stage(self.epoch - 1)[0],
            "lr": self.set_schedules(),
            "weight_decay": weight_decay(recipe, self.epoch),
            "train_loss": mean_loss,
            **found,
            f"{task.headline}_without_ema": plain,
            "unreadable": len(self.unreadable),
            "seconds": round(seconds, 3),
        }
        self.rows.append(row)
        self.losses.sum.zero_()
        sign = 1 if task.larger_is_better else -1
        if self.best is None or sign * (row[task.headline] - self.best) > 0:
            self.best = row[task.headline]
            if place.rank == 0 and self.log:
                task.save(self.kept, self.log.run / BEST)

    def told(self, batch: Any) -> Any:
        """A batch of the validation, after what could not be read of it is reported."""
        new = set(self.task.inspect(batch)) - self.unreadable
        for name in sorted(new):
            say(f"unreadable image, left out of the validation: {name}")
        self.unreadable |= new
        return batch

    # What is written

    def open_log(self, run: Path) -> None:
        """Begins or goes on with the files of the run; afterwards `save` writes there."""
        if self.place.rank:
            return
        write_atomically(run / "recipe.json", self.recipe.to_json() + "\n")
        facts = self.task.identity() | {
            "processes": self.place.world,
            "device": str(self.place.device),
            "precision": str(self.precision or torch.float32).removeprefix("torch."),
        }
        self.log = Log(run, facts, self.machine, self.total_steps)
        if self.rows:
            self.log.write_epochs(self.rows, self.unreadable)

    def save(self) -> None:
        """Writes the checkpoint and the log; the first process does."""
        self.look()
        self.saved = time.perf_counter()
        if self.log is None:
            return
        save_checkpoint(self.log.run, self.state())
        if not self.done and self.rows:
            self.log.write_epochs(self.rows, self.unreadable)
            self.log.add_epoch(self.rows[-1])
            if self.machine.keep:
                keep_checkpoint(self.log.run, self.epoch, self.machine.keep)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors, numbers and strings only."""
        train = self.task.train
        samples = self.done * self.recipe.batch_size
        return {
            "recipe": self.recipe.to_json(),
            "identity": self.task.identity() | {"processes": self.place.world},
            "epoch": self.epoch,
            "step": self.done,
            "samples": samples,
            "loss_sum": self.losses.sum.item(),
            "best": self.best,
            "rows": self.rows,
            "unreadable": sorted(self.unreadable),
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "images": train.state_dict(samples) if isinstance(train, Stateful) else None,
        }

    def resume(self, run: Path, allow: Collection[str] = ()) -> None:
        """Goes to where the run's last whole checkpoint was written, if it has one.

        Raises:
            ValueError: the checkpoint is another network's, recipe's or other data's.
        """
        state, damaged = load_checkpoint(run)
        self.place.barrier()
        if self.place.rank == 0:
            for path in damaged:
                say(f"{path} is damaged or cut off; going on from the one before it")
                path.replace(path.with_suffix(".damaged"))
        if state is None:
            return
        identity = self.task.identity() | {"processes": self.place.world}
        check_same(run, state, self.recipe, identity, allow)
        self.restore(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where `state` was taken."""
        self.epoch, self.rows, self.best = state["epoch"], state["rows"], state["best"]
        self.done = state["samples"] // self.recipe.batch_size
        self.losses.sum.fill_(state["loss_sum"])
        self.unreadable = set(state["unreadable"])
        self.model.load_state_dict(state["model"])
        if self.average and state["average"]:
            self.average.load_state_dict(state["average"])
        highest = [group["highest_lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, highest, strict=True):
            group["highest_lr"] = rate
        self.scaler.load_state_dict(state["scaler"])
        if isinstance(self.task.train, Stateful) and state["images"] is not None:
            self.task.train.set_epoch(self.epoch)
            self.task.train.load_state_dict(state["images"])


def check_free(run: Path, resume: bool) -> None:
    """Refuses to write over a run.

    Raises:
        ValueError: naming the folder.
    """
    if has_checkpoint(run):
        if not resume:
            raise ValueError(
                f"{run} holds a run; go on with it (--resume) or choose another folder"
            )
    elif (run / MODEL).exists():
        raise ValueError(f"{run} holds a finished run without checkpoints; choose another folder")


def line(row: dict, recipe: Recipe, headline: str) -> str:
    validation = f"  validation {row['val_loss']:.3f}" if "val_loss" in row else ""
    return (
        f"epoch {row['epoch']}/{recipe.epochs}  loss {row['train_loss']:.3f}{validation}  "
        f"{headline} {row[headline]:.4g}  {row['seconds']:.0f} s"
    )
