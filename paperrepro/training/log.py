"""What a run writes of itself: a row per epoch, a row per step, and the curves elsewhere."""

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..files import write_atomically
from ..results import surroundings
from .place import Machine

Board = tuple[Callable[[dict[str, float], int], None], Callable[[], None]]
"""What shows the values of a step elsewhere, and what ends it."""

STEP_COLUMNS = ("step", "loss", "lr", "images_per_second", "memory_mb")


class Log:
    """The files of a run in its folder, written by the first process.

    `log.csv` and `log.json` hold a row per epoch, written whole each time; `steps.csv` a row per
    step, added to. TensorBoard's events appear where TensorBoard is installed.

    Args:
        facts: what stands above the epochs in `log.json`.
        machine: whether Weights & Biases get the log.
        steps: how many are done; what `steps.csv` holds beyond them is dropped.
    """

    def __init__(self, run: Path, facts: dict[str, Any], machine: Machine, steps: int) -> None:
        self.run, self.facts = run, facts
        path = run / "steps.csv"
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        kept = [row for row in rows if is_whole(row) and int(row.partition(",")[0]) <= steps]
        write_atomically(path, "\n".join([",".join(STEP_COLUMNS), *kept]) + "\n")
        self.file = path.open("a", encoding="utf-8", newline="")
        self.boards = [board for board in (tensorboard(run), wandb(machine, run, facts)) if board]

    def add_steps(self, rows: list[dict[str, float]]) -> None:
        """Adds what `Losses.look` gave."""
        csv.DictWriter(self.file, STEP_COLUMNS, lineterminator="\n").writerows(rows)
        self.file.flush()
        for show, _ in self.boards:
            for row in rows:
                values = {f"step/{name}": row[name] for name in STEP_COLUMNS[1:]}
                show(values, int(row["step"]))

    def write_epochs(self, rows: list[dict], unreadable: Iterable[str]) -> None:
        """Writes `log.csv` and `log.json` whole."""
        table = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        write_atomically(self.run / "log.csv", table)
        content = self.facts | {"surroundings": told_once()}
        content |= {"unreadable": sorted(unreadable), "epochs": rows}
        write_atomically(self.run / "log.json", json.dumps(content, indent=1) + "\n")

    def add_epoch(self, row: dict) -> None:
        values = {name: value for name, value in row.items() if value is not None}
        for show, _ in self.boards:
            show(values, row["steps"])

    def close(self) -> None:
        self.file.close()
        for _, end in self.boards:
            end()


class Losses:
    """The losses of the steps, at which nobody looks before it is time: a GPU would have to wait.

    Args:
        device: where they are.
        images: of a step, in all processes.
    """

    def __init__(self, device: torch.device, images: int) -> None:
        self.device, self.images = device, images
        self.exact = torch.float32 if device.type == "mps" else torch.float64
        self.sum = self.zero()
        self.unseen: list[tuple[int, float, Tensor]] = []
        self.since = time.perf_counter()

    def zero(self) -> Tensor:
        return torch.zeros((), dtype=self.exact, device=self.device)

    def add(self, step: int, rate: float, loss: Tensor) -> None:
        """Takes the loss of a step with its number and its learning rate."""
        self.sum += loss
        self.unseen.append((step, rate, loss))

    def look(self) -> list[dict[str, float]]:
        """The steps since the last look: their number, loss and rate, and of all of them together
        the images per second and the most memory so far."""
        if not self.unseen:
            return []
        losses = torch.stack([loss for _, _, loss in self.unseen]).tolist()
        now = time.perf_counter()
        speed = round(len(losses) * self.images / (now - self.since), 1)
        memory = peak_memory(self.device)
        rows = [
            dict(zip(STEP_COLUMNS, (step, loss, rate, speed, memory), strict=True))
            for (step, rate, _), loss in zip(self.unseen, losses, strict=True)
        ]
        self.unseen, self.since = [], now
        return rows


def peak_memory(device: torch.device) -> int:
    """The most memory so far, in megabytes: the GPU's, or this process's."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def is_whole(row: str) -> bool:
    """Whether a line of `steps.csv` was written to its end."""
    return row.count(",") == len(STEP_COLUMNS) - 1 and row.partition(",")[0].isdigit()


@cache
def told_once() -> dict[str, str]:
    return surroundings()


def tensorboard(run: Path) -> Board | None:
    """TensorBoard, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(os.fspath(run))

    def show(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return show, writer.close


def wandb(machine: Machine, run: Path, facts: dict[str, Any]) -> Board | None:
    """Weights & Biases, where somebody asked for it.

    Raises:
        ValueError: it is asked for and not installed.
    """
    if machine.wandb is None:
        return None
    try:
        from wandb import init
    except ImportError as error:
        raise ValueError("--wandb needs wandb: pip install wandb") from error
    session = init(
        project=machine.wandb, dir=os.fspath(run), name=run.name, config=facts, resume="allow"
    )
    return lambda values, step: session.log(values, step=step), session.finish


def say(text: str) -> None:
    """Beside the progress bar."""
    tqdm.write(text, file=sys.stderr)
