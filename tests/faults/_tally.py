"""What the scripts of this folder share: the count, and its line."""

import argparse
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """How many faults were tried, and what came of those that were not told as they should."""

    name: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    uncaught: list[str] = field(default_factory=list)

    @contextmanager
    def one(self, what: object, *known: type[Exception]):
        """One fault; the errors named are how it may be told."""
        self.tried += 1
        try:
            yield
        except known:
            pass
        except Exception:
            self.uncaught.append(f"{what}\n{traceback.format_exc(limit=-4)}")

    def report(self) -> int:
        for kind in ("wrong", "uncaught"):
            for text in getattr(self, kind)[:20]:
                print(f"{kind}: {text}", file=sys.stderr)
        counts = f"wrong={len(self.wrong)} uncaught={len(self.uncaught)}"
        print(f"{self.name} tried={self.tried} {counts}", flush=True)
        return bool(self.wrong or self.uncaught)


def main(attempt: Callable[[int, int], Tally], count: int) -> None:
    """Runs `attempt(count, seed)`, both from the command line, and ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(attempt(arguments.count, arguments.seed).report())
