"""Which of several ways to compute the same is taken: PyTorch's, a table's, or the fastest here.

Two processors differ by more than a factor of two in which way is fastest. A measured choice is
therefore the fastest, and a choice by a table is the same everywhere. The ways agree but for the
last digits, and those digits would depend on the machine and on the moment of the measurement. So
nothing is measured unless `tuning("auto")` asks for it, as with `torch.backends.cudnn.benchmark`.
"""

import json
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch

from ..files import processor, write_atomically

MODES = ("off", "static", "auto")
# A measurement takes a warming call of each way, and then no round that begins later than this.
BUDGET_SECONDS = 0.06
ROUNDS = 15
# What a first call may take beyond the others without being given up.
WARMING_SECONDS = 0.02
# A way replaces the one that the table names only where it is faster by this factor.
MARGIN = 1.03


class tuning:
    """Sets how the operators choose their way; as a context manager, until the context ends.

    `torch.use_deterministic_algorithms(True)` turns "auto" into "static". What is trained, that is
    computed with gradients, always goes by the table: a training that is resumed elsewhere must not
    depend on a measurement.

        >>> from paperrepro.ops import tuning
        >>> with tuning("auto"):
        ...     pass  # the first call of a shape measures, the others take what was fastest

    Args:
        mode: "off", PyTorch's own operators; "static", the default, the way that a table names for
            the shape, the same on every machine; or "auto", the way that was the fastest at the
            first call of its shape, memory format, dtype and number of threads. The choice is kept
            in the process, and for other processes in `folder()`.

    Raises:
        ValueError: for another mode.
    """

    mode = "static"

    def __init__(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown tuning {mode!r}; use one of {', '.join(MODES)}")
        self.before = tuning.mode
        tuning.mode = mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        tuning.mode = self.before


def measures() -> bool:
    """Whether an operator may measure now."""
    return tuning.mode == "auto" and not torch.are_deterministic_algorithms_enabled()


# The choices of this process, by key.
chosen: dict[str, str] = {}


def fastest(key: str, ways: Mapping[str, Callable[[], object]]) -> str:
    """The name of the fastest way: from this process, else from the disk, else measured now.

    Args:
        key: what is computed, in full; it becomes a file's name.
        ways: by name, the one that the table names first.
    """
    if key not in chosen:
        path = folder() / f"{key}.json"
        choice = read(path)
        if choice is None or choice not in ways:
            seconds = measure(ways)
            choice = min(seconds, key=lambda way: seconds[way])
            first = next(iter(ways))
            if seconds[first] < MARGIN * seconds[choice]:
                choice = first
            write(path, choice, seconds)
        chosen[key] = choice
    return chosen[key]


def measure(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest seconds of each way. The first call of each warms up: it may compile. One that
    takes three times as long as another is not measured further."""
    seconds = {name: timed(way) for name, way in ways.items()}
    end = time.perf_counter() + BUDGET_SECONDS
    grace = WARMING_SECONDS
    for _ in range(ROUNDS):
        limit = 3 * min(seconds.values()) + grace
        for name, way in ways.items():
            if seconds[name] <= limit:
                seconds[name] = min(seconds[name], timed(way))
        grace = 0.0
        if time.perf_counter() > end:
            break
    return seconds


def timed(way: Callable[[], object]) -> float:
    """Seconds of one call; with one thread the processor's: other programs do not lengthen them."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    way()
    return clock() - start


def folder() -> Path:
    """Where choices are kept, one file each: `paperrepro/tuning` in the user's cache folder
    (`$XDG_CACHE_HOME`, else `~/.cache`), by processor and version of PyTorch. It may be deleted."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "paperrepro" / "tuning" / machine()


@cache
def machine() -> str:
    return re.sub(r"[^\w.]+", "-", f"{processor()} torch {torch.__version__}")


def read(path: Path) -> str | None:
    """A kept choice; None where there is none, or a damaged one, of which a warning tells."""
    try:
        choice = json.loads(path.read_text(encoding="utf-8"))["choice"]
        if isinstance(choice, str):
            return choice
        raise TypeError(f"the choice is {choice!r}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error!r}); the choice is measured anew", stacklevel=2)
        return None


def write(path: Path, choice: str, seconds: Mapping[str, float]) -> None:
    text = json.dumps({"choice": choice, "milliseconds": {k: 1e3 * v for k, v in seconds.items()}})
    try:
        write_atomically(path, text)
    except OSError as error:
        warnings.warn(
            f"{error}. The choice holds for this process only; $XDG_CACHE_HOME names another place",
            stacklevel=2,
        )
