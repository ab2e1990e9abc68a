"""The papers' claims beside our own values: one table, checked on load.

Each row of ``data/claims/*.csv`` is one number (or one short configuration text) of one of the
five papers, with our value where there is one, and how it was obtained. The book's chapters, the
command line and the tests all read this table, so that no number is written down twice.

    >>> from paperrepro.claims import load_claims
    >>> claims = load_claims(paper="fasternet", mode="exact")
    >>> claims[["subject", "quantity", "unit", "paper_value", "ours", "verdict"]]

This module reads and checks. Our values are computed by
``paperrepro.claims.reproduce`` and written by ``paperrepro claims --update``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import data_folder

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "id": "stable name of the claim: paper, table, subject, quantity",
    "paper": "the paper that makes the claim",
    "item": "where in the paper, such as 'Table 3'",
    "subject": "the row of the table, in the paper's spelling",
    "model": "our network of that name, or a pattern such as 'fasternet_*' for every variant; "
    "empty for operators and for others' networks",
    "config": "options of create_model as a JSON object, for an ablation; or a head, its "
    "num_classes and the image's [height, width]; empty for the defaults",
    "size": "side of the square input in pixels; empty where the claim has none",
    "quantity": "what is claimed, a key of QUANTITIES",
    "unit": "its unit, one that QUANTITIES allows",
    "paper_value": "the paper's value, with the paper's digits",
    "ours": "our value, in the same unit; empty where nothing was run",
    "tolerance": "the largest difference that still agrees: half a unit of the paper's last digit, "
    "one unit where the paper cuts instead of rounding; empty for texts",
    "mode": "how far the claim can be reproduced here, a key of MODES",
    "how": "how our value was obtained, or what obtaining it would need",
    "why": "the reason for a difference, and anything doubtful about the row",
    "chapter": "the book's chapter that discusses it",
}

PAPERS = ("rapidnet", "fasternet", "mobileone", "mobilevigv2", "replknet")

MODES = {
    "exact": "counting or algebra: recomputed from the networks by a test",
    "measured": "a speed: the order and the ratios can be measured on the reader's machine",
    "small": "the same experiment at a small scale, on data the project makes or ships",
    "command": "needs ImageNet, COCO, ADE20K, many GPUs, a phone or a board: not rerun here",
    "quoted": "a number of a network or a training outside this project, kept as the paper's data",
}

LADDER = {
    "proved": "algebra, or a network before and after it was re-parameterized: the same function",
    "recomputed": "counted or computed here, to the paper's last digit",
    "seen here": "the interval lies beyond zero on the paper's side (a ratio's: beyond 1), and the "
    "size can be told: a difference as large as the paper's was visible, a ratio is as far from 1",
    "order holds": "the interval lies beyond zero on the paper's side; nothing is said of the size",
    "inconclusive": "the interval holds zero; what could have been seen stands beside it",
    "opposite here": "the interval lies beyond zero on the other side, or where the paper has no "
    "difference",
    "differs": "counted or computed here, and not the paper's digits; the row says why",
    "not tested": "nothing here answers it; the row says what would",
    "quoted": "a number of others that the paper repeats",
}
"""What became of a claim when it was tested, the same words everywhere; see `claims.judged`."""


@dataclass(frozen=True)
class Quantity:
    """What a claim can be about: its meaning, the units it may have, whether it is a number."""

    meaning: str
    units: tuple[str, ...] = ("",)
    is_number: bool = True


def _text(meaning: str) -> Quantity:
    return Quantity(meaning, is_number=False)


QUANTITIES = {
    "params": Quantity("parameters, by the paper's own counting rule", ("M",)),
    "macs": Quantity("multiply-adds for one image", ("M", "G")),
    "top1": Quantity("ImageNet-1K top-1 accuracy", ("%",)),
    "miou": Quantity("mean intersection over union; the subject names the data", ("%",)),
    "ap_box": Quantity("average precision of boxes on COCO, the mean over ten overlaps", ("%",)),
    "ap50_box": Quantity("average precision of boxes that overlap by half", ("%",)),
    "ap75_box": Quantity("average precision of boxes that overlap by three quarters", ("%",)),
    "ap_mask": Quantity("average precision of masks on COCO, the mean over ten overlaps", ("%",)),
    "ap50_mask": Quantity("average precision of masks that overlap by half", ("%",)),
    "ap75_mask": Quantity("average precision of masks that overlap by three quarters", ("%",)),
    "area_ratio": Quantity(
        "share of a 1024-pixel image that the high contributions cover; the subject names t", ("%",)
    ),
    "error": Quantity("mean squared error on the test set"),
    "loss_drop": Quantity("how much lower a loss is than another variant's", ("%",)),
    "correlation": Quantity("Spearman rank correlation of latency with a count"),
    "p_value": Quantity("probability of so large a correlation where there is none"),
    "latency_cpu": Quantity("time for one image on a desktop CPU", ("ms",)),
    "latency_arm": Quantity("time for one image on an ARM board", ("ms",)),
    "latency_phone": Quantity("time for one image on an iPhone", ("ms",)),
    "latency_gpu": Quantity("time for one batch on a GPU", ("ms",)),
    "throughput_gpu": Quantity("images per second on a GPU", ("images/s",)),
    "flops_cpu": Quantity("multiply-adds per second on a desktop CPU", ("G/s",)),
    "flops_arm": Quantity("multiply-adds per second on an ARM board", ("G/s",)),
    "flops_gpu": Quantity("multiply-adds per second on a GPU", ("G/s",)),
    "speedup": Quantity("how many times faster than another network", ("x",)),
    "throughput_gain": Quantity("how much more throughput than another network", ("%",)),
    "latency_share": Quantity("share of a network's time that some of its layers take", ("%",)),
    "time_saved": Quantity("how much less time than another network", ("%",)),
    "stem_channels": Quantity("output channels of the stem"),
    "head_channels": Quantity("channels that enter the last linear layer"),
    "classes": Quantity("outputs of the last linear layer"),
    "partial_ratio": Quantity("share of the channels that a partial convolution convolves"),
    "expansion": Quantity("hidden channels of a block over its input channels"),
    "dw_ratio": Quantity("channels of a depthwise convolution over its block's input channels"),
    "channels": _text("output channels of the four stages"),
    "depths": _text("blocks in each of the four stages; with the stem in front for MobileOne"),
    "irb_blocks": _text("inverted residual blocks in each stage"),
    "dcb_blocks": _text("dilated convolution blocks in each stage"),
    "graph_blocks": _text("graph convolution blocks in each stage"),
    "se_blocks": _text("blocks with squeeze-and-excitation in each stage"),
    "kernels": _text("kernel size of the spatial convolutions in each stage"),
    "reduction": _text("input size over output size, for each stage"),
    "stem_strides": _text("strides of the stem's convolutions"),
    "stem_layers": _text("kinds of layers in the stem, in order"),
    "width_multiplier": _text("alpha of each stage after the stem"),
    "k": _text("over-parameterization factor of the stem and of each stage"),
    "activation": _text("activation function"),
    "setting": _text("a setting of a training, which the subject names"),
}

_ID = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def claims_folder() -> Path:
    """The folder of the claims, `data/claims`."""
    return data_folder("claims")


def verdict(claim: Mapping) -> str:
    """How our value of a parsed claim compares with the paper's: "agrees", within the tolerance, or
    "differs"; "not reproduced" without a value of ours, "quoted" for others' networks."""
    if claim["mode"] == "quoted":
        return "quoted"
    if claim["ours"] is None:
        return "not reproduced"
    if isinstance(claim["ours"], str):
        agrees = claim["ours"] == claim["paper_value"]
    else:
        agrees = abs(claim["ours"] - claim["paper_value"]) <= claim["tolerance"]
    return "agrees" if agrees else "differs"


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``("file:line", {column: text})`` for each row of one file; only its shape is checked.

    Raises ValueError, naming file and line, for other columns than COLUMNS, a row with too few
    or too many cells, or a file that is not UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != list(COLUMNS):
                odd = sorted(set(header) ^ set(COLUMNS)) or "their order"
                raise ValueError(
                    f"{path}:1: unexpected columns ({odd}); the columns are {','.join(COLUMNS)}"
                )
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if len(cells) != len(COLUMNS):
                    raise ValueError(
                        f"{where}: {len(cells)} cells instead of {len(COLUMNS)} in {cells[:1]}; "
                        "put a cell that holds a comma in double quotes"
                    )
                yield where, dict(zip(COLUMNS, cells, strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def parse_claim(row: Mapping[str, str], where: str) -> dict:
    """The typed claim of one row, with its verdict.

    Numbers become ``decimal.Decimal``: they print with the paper's digits, and the comparison
    with the tolerance is exact (``.astype(float)`` before plotting). Texts stay ``str``,
    ``config`` becomes a dict, and an empty ``ours``, ``tolerance`` or ``size`` becomes None.

    Raises ValueError, starting with ``where`` and naming value and remedy, for a bad row.
    """
    problem = _bad_cell(row) or _bad_combination(row)
    if problem:
        raise ValueError(f"{where}: {problem}")
    value = Decimal if QUANTITIES[row["quantity"]].is_number else str
    claim = dict(row) | {
        "config": json.loads(row["config"] or "{}"),
        "size": int(row["size"]) if row["size"] else None,
        "paper_value": value(row["paper_value"]),
        "ours": value(row["ours"]) if row["ours"] else None,
        "tolerance": Decimal(row["tolerance"]) if row["tolerance"] else None,
    }
    claim["verdict"] = verdict(claim)
    if claim["verdict"] == "differs" and not row["why"]:
        raise ValueError(
            f"{where}: ours {row['ours']!r} of {row['id']!r} differs from the paper's "
            f"{row['paper_value']!r}; write the reason in why"
        )
    return claim


def _bad_cell(row: Mapping[str, str]) -> str | None:
    """What is wrong with a cell, seen by itself, and what to write instead."""
    for column in ("subject", "item", "paper_value", "how", "chapter"):
        if not row[column]:
            return f"{column} is empty; write {COLUMNS[column]}"
    if not _ID.fullmatch(row["id"]):
        return f"id {row['id']!r} is no plain name; use lower case, digits and single '-', '_', '.'"
    for column, allowed in (("paper", PAPERS), ("mode", MODES), ("quantity", QUANTITIES)):
        if row[column] not in allowed:
            return f"unknown {column} {row[column]!r}; use one of {', '.join(allowed)}"
    quantity = QUANTITIES[row["quantity"]]
    if row["unit"] not in quantity.units:
        units = " or ".join(map(repr, quantity.units))
        return f"unknown unit {row['unit']!r} of {row['quantity']!r}; use {units}"
    if row["size"] and not re.fullmatch(r"[1-9]\d*", row["size"]):
        return f"size {row['size']!r} is no number of pixels; write the side of the square input"
    try:
        options = json.loads(row["config"] or "{}")
    except json.JSONDecodeError:
        options = None
    if not isinstance(options, dict):
        return f'config {row["config"]!r} is no JSON object; write {{"option": value}} or nothing'
    for column in ("paper_value", "ours", "tolerance"):
        if quantity.is_number and row[column] and not _NUMBER.fullmatch(row[column]):
            return f"{column} {row[column]!r} is not a number; write digits, without a unit"
    if row["tolerance"].startswith("-"):
        return f"tolerance {row['tolerance']!r} is negative; write a difference that still agrees"
    return None


def _bad_combination(row: Mapping[str, str]) -> str | None:
    """Which cells of a row contradict one another, and what to do about it."""
    name, mode, ours = row["id"], row["mode"], row["ours"]
    is_number = QUANTITIES[row["quantity"]].is_number
    if mode == "exact" and not row["model"]:
        return f"exact claim {name!r} without model; name the network it is computed from"
    if mode == "exact" and not ours:
        return f"exact claim {name!r} without ours; run `paperrepro claims --update`"
    if mode in ("command", "quoted") and ours:
        return f"{mode} claim {name!r} with ours {ours!r}; leave ours empty, or change the mode"
    if row["tolerance"] and not is_number:
        return f"tolerance {row['tolerance']!r} for the text {row['quantity']!r}; leave it empty"
    if ours and is_number and not row["tolerance"]:
        return f"ours {ours!r} and no tolerance; write the largest difference that still agrees"
    return None


def check_choice(name: str, value: str | None, allowed: Collection[str]) -> None:
    """Raises ValueError, naming what is allowed, for a value that is not; None stands for all."""
    if value is not None and value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(allowed)}")


def load_claims(
    paper: str | None = None, mode: str | None = None, folder: str | Path | None = None
) -> pd.DataFrame:
    """Every claim of ``data/claims/*.csv``, or those of one paper or one mode.

    Args:
        paper: one of PAPERS; None for all.
        mode: one of MODES; None for all.
        folder: where the files lie; None for the project's own (see claims_folder).

    Returns:
        One row per claim, columns COLUMNS and ``verdict``, in the order of the files. Values and
        tolerances are ``decimal.Decimal``, ``str`` for texts, or None (see parse_claim). The
        verdict is about ``ours`` alone (see verdict); ``judged_claims`` gives the word of LADDER.

    Raises:
        ValueError: an unknown paper or mode, or a bad row, named by file, line and value.
        FileNotFoundError: there is no folder, or no CSV file in it.
    """
    import pandas as pd

    check_choice("paper", paper, PAPERS)
    check_choice("mode", mode, MODES)
    folder = claims_folder() if folder is None else Path(folder)
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"no claims (*.csv) in {folder}")

    claims: list[dict] = []
    seen: dict[str, str] = {}
    for path in paths:
        for where, row in read_rows(path):
            claim = parse_claim(row, where)
            if claim["id"] in seen:
                raise ValueError(
                    f"{where}: id {claim['id']!r} is already at {seen[claim['id']]}; "
                    "give each claim its own"
                )
            seen[claim["id"]] = where
            claims.append(claim)

    table = pd.DataFrame(claims, columns=[*COLUMNS, "verdict"])
    values = ["paper_value", "ours", "tolerance"]
    table = table.astype({"size": "Int64", **dict.fromkeys(values, object)})
    table[values] = table[values].where(table[values].notna(), None)
    keep = pd.Series(True, index=table.index)
    if paper is not None:
        keep &= table["paper"] == paper
    if mode is not None:
        keep &= table["mode"] == mode
    return table[keep].reset_index(drop=True)
