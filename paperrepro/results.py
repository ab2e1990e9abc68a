"""Measured results: tables in `data/results`, each with how, where and when it was measured.

A result is a CSV file that opens with its provenance, one `# key: value` per line: the command, the
date, the processor and its minutes, the versions, the commit, and what else the measurement depends
on. The chapters draw such files and name the command beside them; `pandas.read_csv(path,
comment="#")` reads them without us.

    >>> from paperrepro.results import load_result
    >>> result = load_result("depthwise")
    >>> result.provenance["command"]
    'paperrepro benchmark depthwise'
"""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .files import data_folder, processor, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from torch import Tensor

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Result:
    """A measured table and its provenance."""

    table: "pd.DataFrame"
    provenance: dict[str, str]


def save_result(
    path: str | Path, table: "pd.DataFrame", *, command: str, **conditions: object
) -> None:
    """Write a table with its provenance; whole, or not at all.

    Args:
        path: the CSV file.
        command: what measures the table again.
        conditions: what else the numbers depend on, such as `threads=1`; one line of text each.

    Raises:
        OSError: naming the file, where it cannot be written.
    """
    provenance = {"command": command} | surroundings() | checkout() | conditions
    lines = [f"# {key}: {' '.join(str(value).split())}\n" for key, value in provenance.items()]
    write_atomically(path, "".join(lines) + table.to_csv(index=False, lineterminator="\n"))


def need_finite(tensors: "Iterable[tuple[str, Tensor]]") -> None:
    """Refuses tensors with NaN or infinity.

    Args:
        tensors: with their names, as `model.state_dict().items()` gives them.

    Raises:
        ValueError: naming the first.
    """
    for name, value in tensors:
        if not value.isfinite().all():
            wrong = value.numel() - int(value.isfinite().sum())
            raise ValueError(
                f"{name} has {wrong:,} of {value.numel():,} numbers that are not finite, so "
                "nothing can be said of this network; load or train its weights again"
            )


def load_result(name: str | Path) -> Result:
    """A result by its name in `data/results`, or by the path of its file.

    Raises:
        FileNotFoundError: naming the results that there are.
        ValueError: for a file without provenance.
    """
    import pandas as pd

    path = Path(name)
    if path.suffix != ".csv":
        folder = data_folder("results")
        path = folder / f"{name}.csv"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
            raise FileNotFoundError(f"no result {name!r} in {folder}; there are: {known}")
    text = path.read_text(encoding="utf-8")
    provenance = dict(re.findall(r"^# ([\w ]+): (.*)$", text, flags=re.MULTILINE))
    if "command" not in provenance:
        raise ValueError(f"{path} does not open with '# command: …': it is not a result of ours")
    return Result(pd.read_csv(StringIO(text), comment="#"), provenance)


def save_correct(path: Path, correct: "Array") -> None:
    """Stores booleans `(runs, images)`, a bit each, in the order of the experiment's table."""
    import numpy as np

    memory = BytesIO()
    images = np.array(correct.shape[1])
    np.savez_compressed(memory, correct=np.packbits(correct, axis=1), images=images)
    write_atomically(path, memory.getvalue())


def read_correct(path: Path) -> "Array":
    """The booleans `(runs, images)` that `save_correct` stored."""
    import numpy as np

    with np.load(path) as file:
        return np.unpackbits(file["correct"], axis=1, count=int(file["images"])).astype(bool)


def load_correct(experiment: str, folder: Path | None = None) -> "dict[str, Array]":
    """Which images the networks of a stored experiment classify rightly.

    Args:
        experiment: its name.
        folder: where `experiment-NAME.csv` and `experiment-NAME-correct.npz` lie; the project's
            own results by default.

    Returns:
        By variant, booleans `(seeds, images)`, in the order of the seeds.

    Raises:
        FileNotFoundError: the experiment ran before answers were stored.
    """
    folder = folder or data_folder("results")
    table = load_result(folder / f"experiment-{experiment}.csv").table
    correct = read_correct(folder / f"experiment-{experiment}-correct.npz")
    return {
        str(label): correct[runs.sort_values("seed").index.to_numpy()]
        for label, runs in table.groupby("variant", sort=False)
    }


def surroundings() -> dict[str, str]:
    """The date, the machine and the versions; the minutes are this process's and its children's,
    of all cores together, from its start."""
    import torch
    import torchvision

    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor(),
        "processor_minutes": f"{sum(os.times()[:4]) / 60:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def checkout() -> dict[str, str]:
    """The commit of the checkout that this library lies in; nothing where it was installed."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return {"commit": git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def rounded(table: "pd.DataFrame") -> "pd.DataFrame":
    """Fractional numbers with four significant digits: more were not measured."""
    fractional = table.select_dtypes("float")
    return table.assign(
        **{
            str(name): [float(f"{value:.4g}") for value in column]
            for name, column in fractional.items()
        }
    )
