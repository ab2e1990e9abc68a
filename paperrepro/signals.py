"""SIGINT and SIGTERM as one flag: what is at work ends at the next point where nothing is lost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came, and what there was to save is saved.

    Attributes:
        code: what a shell calls such an end, 128 and the signal's number.
    """

    def __init__(self, text: str, code: int = 128 + signal.SIGTERM) -> None:
        super().__init__(text)
        self.code = code


class Stop:
    """Whether a signal came.

    Attributes:
        came: its number, or 0.
        waiting: whether somebody looks at `came`. Otherwise a signal is raised as `Interrupted`
            wherever the process is.
    """

    def __init__(self) -> None:
        self.came, self.waiting = 0, False

    def __bool__(self) -> bool:
        return self.came != 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = number
        if not self.waiting:
            raise self.interrupted("stopped before there was anything to save")

    def interrupted(self, text: str) -> Interrupted:
        return Interrupted(text, 128 + (self.came or signal.SIGTERM))

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal is only noted."""
        before, self.waiting = self.waiting, True
        try:
            yield
        finally:
            self.waiting = before


active: Stop | None = None
"""Of the outermost `stopping` of this process."""


@contextmanager
def stopping() -> Iterator[Stop]:
    """Handles SIGINT and SIGTERM within the block; blocks within it share the flag."""
    global active
    if active is not None:
        yield active
        return
    stop = Stop()
    try:
        before = [signal.signal(number, stop) for number in SIGNALS]
    except ValueError:  # not in the main thread, which alone hears signals
        yield stop
        return
    active = stop
    try:
        yield stop
    finally:
        active = None
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def hear_signals() -> None:
    """From now on this process notes both signals, and raises neither."""
    global active
    active = Stop()
    active.waiting = True
    for number in SIGNALS:
        signal.signal(number, active)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def unheard() -> Iterator[None]:
    """Processes that are started within the block hear neither signal: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals(worker: int = 0) -> None:
    """For a process that another one ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
