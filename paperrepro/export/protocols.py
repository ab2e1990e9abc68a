"""How the papers turn many timed inferences on a phone into one latency.

RapidNet (Section 4.1) and MobileViGv2 (5.1) state three settings of the application ModelBench:
50 rounds, 50 inferences per round, a low/high trim of 10. ModelBench, as Apple published it with
MobileOne, loads the model anew for each round, runs it once untimed, drops the 10 fastest and the
10 slowest *inferences of each round*, and averages the rounds' means. MobileOne's own paper
(Section 3.5) reports the minimum of 1000 inferences instead.

Swift measures on the phone: `ios/` beside this file holds the same arithmetic. Both are held to one
file of cases, `ios/Tests/BackboneMathTests/cases.json`; `make swift` runs them in Swift.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter


@dataclass(frozen=True)
class TimingProtocol:
    """How many inferences are timed, and what becomes of the times.

    Attributes:
        rounds: how often the model is loaded anew.
        inferences: how many each round times, after one that it does not time.
        trim: how many of a round's fastest and of its slowest inferences are dropped before the
            mean; None: no mean is taken but the minimum.
    """

    rounds: int
    inferences: int
    trim: int | None


PROTOCOLS = {
    "trimmed_mean": TimingProtocol(rounds=50, inferences=50, trim=10),
    "minimum": TimingProtocol(rounds=1, inferences=1000, trim=None),
}


def time_inferences(
    timing: TimingProtocol,
    load: Callable[[], Callable[[], object]],
    clock: Callable[[], float] = perf_counter,
) -> list[list[float]]:
    """The time of each inference, a list per round, in the clock's unit.

    Args:
        timing: one of `PROTOCOLS`.
        load: loads the model and returns a function that runs it once.
        clock: the present time, by default in seconds.
    """
    times = []
    for _ in range(timing.rounds):
        infer = load()
        infer()
        times.append([timed(infer, clock) for _ in range(timing.inferences)])
    return times


def timed(infer: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    infer()
    return clock() - start


def latency(times: Sequence[Sequence[float]], timing: TimingProtocol) -> float:
    """The one number that a protocol makes of its times, in their unit.

    Returns:
        The mean over the rounds of each round's trimmed mean, or the minimum of all.

    Raises:
        ValueError: the protocol cannot have taken these times, or its trim leaves none.
    """
    check(times, timing)
    if timing.trim is None:
        return min(min(times_of_round) for times_of_round in times)
    kept = slice(timing.trim, timing.inferences - timing.trim)
    return fmean(fmean(sorted(times_of_round)[kept]) for times_of_round in times)


def check(times: Sequence[Sequence[float]], timing: TimingProtocol) -> None:
    if timing.trim is not None and not 0 <= 2 * timing.trim < timing.inferences:
        raise ValueError(f"trim {timing.trim} of {timing.inferences} inferences; it must leave one")
    if not 0 < len(times) == timing.rounds:
        raise ValueError(f"{len(times)} rounds; the protocol has {timing.rounds}, at least one")
    for number, times_of_round in enumerate(times, 1):
        if not 0 < len(times_of_round) == timing.inferences:
            raise ValueError(
                f"{len(times_of_round)} inferences in round {number}; the protocol has "
                f"{timing.inferences}, at least one"
            )
        if not all(math.isfinite(time) and time >= 0 for time in times_of_round):
            raise ValueError(f"a time of round {number} is negative or no number")
