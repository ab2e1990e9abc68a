"""A long measurement in steps: its table is written after each, and goes on where it was stopped.

    >>> steps = Steps(Path("executorch.csv"), command="paperrepro benchmark executorch")
    >>> for name in names:
    ...     steps.take({"network": name}, partial(measure, name))
    >>> steps.table

Until the command writes the whole table its file says `# unfinished: yes`. Such a file is gone on
with by the same command on the same machine with the same versions, and begun anew by any other.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..results import load_result, rounded, save_result, surroundings

Row = Mapping[str, object]


class Steps:
    """The rows of a table, written down as they come.

    Args:
        path: the CSV file; None writes nothing.
        conditions: what `save_result` takes.

    Attributes:
        before: how many rows an earlier, stopped run left.
    """

    def __init__(self, path: Path | None = None, *, command: str = "", **conditions: object):
        self.path, self.command, self.conditions = path, command, conditions
        self.rows: list[Row] = []
        if path is not None and path.exists():
            self.rows = self.unfinished(path)
        self.before = len(self.rows)

    def unfinished(self, path: Path) -> list[Row]:
        """The rows of a run of the same command, here, that was stopped."""
        try:
            stored = load_result(path)
        except ValueError:  # not a result of ours, or an empty one
            return []
        wanted = {"command": self.command, "unfinished": "yes"} | surroundings()
        wanted |= {key: str(value) for key, value in self.conditions.items()}
        del wanted["date"]
        if any(stored.provenance.get(key) != value for key, value in wanted.items()):
            return []
        return [{str(k): v for k, v in row.items()} for row in stored.table.to_dict("records")]

    def take(self, key: Row, measure: Callable[[], Iterable[Row]]) -> None:
        """Measures the rows of one step, unless they are there; `key` stands before each."""
        if any(key.items() <= row.items() for row in self.rows):
            return
        self.rows += [{**key, **row} for row in measure()]
        if self.path is not None:
            facts = self.conditions | {"unfinished": "yes"}
            save_result(self.path, rounded(self.table), command=self.command, **facts)

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)
