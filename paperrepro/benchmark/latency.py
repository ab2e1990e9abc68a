"""The one protocol of every timing here.

Two timings taken one after the other on a shared machine differ by 5 to 25 % for no reason. So the
candidates of a comparison run interleaved: every round measures each of them once, in a new order,
because what ran before leaves its traces in the caches. The medians over the rounds are compared.
The first candidate runs a second time under another name: the ratio of the two, which should be 1,
says how far any other ratio may be trusted.
"""

import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from timeit import Timer
from typing import Generic, TypeVar

import numpy as np
import torch
from tqdm import tqdm

Name = TypeVar("Name", bound=Hashable)

FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Timing:
    """The seconds that one call took, one mean per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def least(self) -> float:
        """What is left where nothing else disturbed."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range over the median."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float((high - low) / self.median)


@dataclass(frozen=True)
class Comparison(Generic[Name]):
    """Interleaved timings of several candidates.

    Attributes:
        timings: by the candidates' names.
        again: the first candidate once more.
    """

    timings: dict[Name, Timing]
    again: Timing

    @property
    def null(self) -> float:
        """The first candidate's second median over its first; 1 without noise."""
        return self.again.median / next(iter(self.timings.values())).median

    def __getitem__(self, name: Name) -> Timing:
        return self.timings[name]

    def speed_up(self, name: Name, over: Name) -> float:
        """How many times faster a candidate is than another."""
        return self[over].median / self[name].median


def compare(
    candidates: Mapping[Name, Callable[[], object]],
    *,
    rounds: int = 9,
    min_seconds: float = 0.02,
    threads: int = 1,
    progress: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison[Name]:
    """Time functions without arguments against each other.

    Args:
        candidates: by name; what a function returns is thrown away. One that uses a GPU
            has to wait for it itself.
        rounds: how often each is measured.
        min_seconds: how long one measurement lasts at least; a fast function is called as often as
            that takes. A slow one is called once.
        threads: of PyTorch, during the calls.
        progress: the label of a progress bar; None shows none.
        clock: what the seconds are of; `time.process_time` leaves out what other programs took from
            a candidate with one thread.

    Raises:
        ValueError: where there is nothing to compare, or no round.
    """
    if not candidates or rounds < 1:
        raise ValueError(f"{len(candidates)} candidates, {rounds} rounds: nothing to measure")
    names = [*candidates, None]
    timers = [Timer(function, timer=clock) for function in candidates.values()]
    timers.append(timers[0])
    seconds: list[list[float]] = [[] for _ in timers]
    total = len(timers) * (rounds + 1)
    shuffle = np.random.default_rng(0)
    with (
        torch_threads(threads),
        tqdm(total=total, desc=progress, leave=False, disable=progress is None) as bar,
    ):
        calls = []
        for timer in timers:
            timer.timeit(1)  # warms up: caches, memory, kernels that are compiled at the first call
            calls.append(max(1, round(min_seconds / timer.timeit(1))))
            bar.update()
        for _ in range(rounds):
            for index in shuffle.permutation(len(timers)):
                seconds[index].append(timers[index].timeit(calls[index]) / calls[index])
                bar.update()
    timings = [Timing(tuple(times)) for times in seconds]
    return Comparison(
        {name: timing for name, timing in zip(names, timings, strict=True) if name is not None},
        again=timings[-1],
    )


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """PyTorch with this many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
