"""Our value of each exact claim, read off the networks themselves.

`recompute` maps a row of data/claims to its value; the command line, the tests and
`update_claims`, the only writer of the column `ours`, share it. Networks are built on the meta
device: shapes and counts without memory.
"""

import csv
import io
import json
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import filter as matching
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ..complexity import paper_macs, paper_parameters
from ..dense import build_detector, build_segmenter
from ..dense.counts import paper_dense_macs, paper_dense_parameters
from ..dense.segmenter import HEADS as SEGMENTERS
from ..files import write_atomically
from ..models import Backbone, build_model, family_of, list_models
from ..models.describe import only
from .table import COLUMNS, QUANTITIES, claims_folder, parse_claim, read_rows

UNITS = {"M": 10**6, "G": 10**9}


@cache
def network(name: str, config: str = "") -> Backbone:
    """A registered network on the meta device, in eval mode.

    Args:
        config: options of create_model as a JSON object, or empty.

    Raises:
        ValueError: unknown name or option.
    """
    with torch.device("meta"):
        return build_model(name, **json.loads(config or "{}")).eval()


@cache
def dense_network(name: str, head: str, num_classes: int) -> nn.Module:
    """A detector or segmenter of a registered network on the meta device."""
    build = build_segmenter if head in SEGMENTERS else build_detector
    with torch.device("meta"):
        return build(name, head, num_classes)


def recompute(row: Mapping[str, str]) -> str:
    """Our value for one exact claim, in the form in which the file holds it.

    Counts are in the row's unit, with two digits more than the paper prints; configurations are
    the network's own.

    Args:
        row: the texts of one row, as `claims.read_rows` yields them.

    Raises:
        ValueError: no network of that name, networks of a pattern that do not agree, a quantity
            that cannot be computed, or multiply-adds without an input size.
    """
    names = matching(list_models(), row["model"]) or [row["model"]]
    value = only(
        (_compute(name, row["config"], row["quantity"], row["size"]) for name in names),
        row["quantity"],
    )
    if isinstance(value, str):
        return value
    printed = len(row["paper_value"].partition(".")[2])
    return f"{Decimal(value) / UNITS[row['unit']]:.{printed + 2}f}"


@cache
def _compute(name: str, config: str, quantity: str, size: str) -> int | str:
    options = json.loads(config or "{}")
    if "head" in options:
        dense = dense_network(name, options["head"], options["num_classes"])
        if quantity == "params":
            return paper_dense_parameters(dense)
        return paper_dense_macs(dense, tuple(options["image"]))
    model = network(name, config)
    if quantity == "params":
        return paper_parameters(model)
    if quantity == "macs":
        if not size:
            raise ValueError("multiply-adds need an input size; fill in size")
        return paper_macs(model, int(size))
    for described in family_of(name).described:
        if described.__name__ == quantity:
            return described(model)
    known = ", ".join(["params", "macs", *configuration(name)])
    raise ValueError(
        f"{quantity!r} of {name} cannot be computed; its family describes {known}: add a function "
        "of that name to described= of the Family record"
    )


def configuration(name: str) -> dict[str, tuple[str, str]]:
    """What the paper's tables state of a network: by the quantity, our value and the meaning."""
    model = network(name)
    return {
        described.__name__: (described(model), QUANTITIES[described.__name__].meaning)
        for described in family_of(name).described
    }


def update_claims(folder: str | Path | None = None) -> list[str]:
    """Recompute `ours` of every exact claim and rewrite the files in which one changed.

    A file is replaced as a whole, after all its rows passed the checks of `claims.parse_claim`.

    Returns:
        The ids of the claims whose value changed.

    Raises:
        ValueError: a bad row, such as a new value outside the tolerance without a reason.
        FileNotFoundError: there is no folder, or no CSV file in it.
    """
    folder = claims_folder() if folder is None else Path(folder)
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"no claims (*.csv) in {folder}")
    changed = []
    for path in paths:
        rows, stale = [], []
        for where, row in read_rows(path):
            if row["mode"] == "exact":
                try:
                    value = recompute(row)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if value != row["ours"]:
                    stale.append(row["id"])
                    row["ours"] = value
            parse_claim(row, where)
            rows.append(row)
        if stale:
            _replace(path, rows)
            changed += stale
    return changed


def _replace(path: Path, rows: list[dict[str, str]]) -> None:
    draft = io.StringIO(newline="")
    writer = csv.DictWriter(draft, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, draft.getvalue())
