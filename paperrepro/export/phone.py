"""A table of measurements from phones: checked, and set beside the papers' columns.

The app and the command `bench` of `ios/` beside this file write such a table. One who measures by
other means can write it by hand: `COLUMNS` names what it holds, times in milliseconds.
"""

import csv
import os
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pandas as pd
from annotated_types import Gt
from pydantic import AllowInfNan, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..claims import load_claims
from ..models import family_of, list_models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Positive = Annotated[float, Gt(0), AllowInfNan(False)]
Thermal = Literal["nominal", "fair", "serious", "critical", "unknown"]

INVENTED = "invented"
"""How the device's name begins where a table was made up, for a test or a lesson."""

PROTOCOL_OF = {
    "mobileone": "minimum_ms",
    "mobilevigv2": "trimmed_mean_ms",
    "rapidnet": "trimmed_mean_ms",
}
"""The column that is measured as a paper did: MobileOne (Section 3.5), MobileViGv2 (5.1) and
RapidNet (4.1)."""


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class PhoneMeasurement:
    """One network on one phone; the same as `PhoneMeasurement` of the Swift package.

    Attributes:
        megabytes: of the compiled package.
        device, system: as "iPhone14,4" and "iOS 18.1".
        compute_units: the processors that were allowed.
        load_ms, first_ms: the first load, and the first inference after it.
        p50_ms, p95_ms: percentiles of the 2500 inferences of RapidNet's and MobileViGv2's protocol.
        minimum_ms, trimmed_mean_ms: MobileOne's latency, and that of the other two.
        thermal_before, thermal_after: what the phone says of its temperature.
    """

    network: str
    megabytes: Positive
    device: str
    system: str
    compute_units: Literal["all", "cpu", "gpu", "ane"]
    load_ms: Positive
    first_ms: Positive
    p50_ms: Positive
    p95_ms: Positive
    minimum_ms: Positive
    trimmed_mean_ms: Positive
    thermal_before: Thermal
    thermal_after: Thermal
    date: date


COLUMNS = tuple(field.name for field in fields(PhoneMeasurement))
ROW = TypeAdapter(PhoneMeasurement)


def read_report(path: str | os.PathLike) -> pd.DataFrame:
    """The measurements of a file, checked.

    Returns:
        `COLUMNS`, and `remark`: what a reader must know of a row, a phone that was warm for one.

    Raises:
        ValueError: other columns, a value that cannot be, or no row; names file, line and value.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            given = list(reader.fieldnames or [])
            lines = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of comma-separated values: {error}") from error
    if sorted(given) != sorted(COLUMNS):
        missing = [name for name in COLUMNS if name not in given]
        unknown = [name for name in given if name not in COLUMNS]
        raise ValueError(
            f"{path}: missing columns: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}; the columns are {', '.join(COLUMNS)}"
        )
    if not lines:
        raise ValueError(f"{path} holds no measurement")
    measured = [parse(row, f"{path}, line {line}") for line, row in lines]
    rows = (
        vars(each) | {"date": each.date.isoformat(), "remark": remark(each)} for each in measured
    )
    return pd.DataFrame(rows)


def parse(row: dict[str, str], where: str) -> PhoneMeasurement:
    try:
        measurement = ROW.validate_python({k: v.strip() if v else "" for k, v in row.items()})
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {column} {first['input']!r}: {first['msg']}") from None
    except AttributeError:
        raise ValueError(f"{where}: more values than columns") from None
    if measurement.p50_ms > measurement.p95_ms:
        raise ValueError(
            f"{where}: p50_ms {measurement.p50_ms:g} above p95_ms {measurement.p95_ms:g}; "
            "are the two exchanged?"
        )
    if measurement.minimum_ms > measurement.p95_ms:
        raise ValueError(
            f"{where}: minimum_ms {measurement.minimum_ms:g} above p95_ms {measurement.p95_ms:g}; "
            "is one of them in another unit?"
        )
    return measurement


def remark(measurement: PhoneMeasurement) -> str:
    remarks = []
    if measurement.device.lower().startswith(INVENTED):
        remarks.append("invented, no result")
    if measurement.network not in list_models():
        remarks.append("not a network of the papers")
    if measurement.thermal_after in ("serious", "critical"):
        remarks.append(f"the phone was warm ({measurement.thermal_after}): measure it again, cool")
    if measurement.trimmed_mean_ms > 1.5 * measurement.minimum_ms:
        remarks.append("the trimmed mean is 1.5 minima or more: another app, or heat")
    return "; ".join(remarks)


def beside_papers(report: pd.DataFrame) -> pd.DataFrame:
    """Each paper's latency of the measured networks beside ours, by the same protocol.

    Args:
        report: what `read_report` returns.

    Returns:
        `network`, `paper`, `item`, `paper_ms`, `paper_device`, `protocol`, `ms`, `ratio` (ours over
        the paper's), `device`, `system`, `compute_units`, `remark`; a row per measurement and
        printed value. A ratio of two phones says nothing of a network.
    """
    claims = pd.concat([load_claims(paper) for paper in PROTOCOL_OF])
    claims = claims[(claims["quantity"] == "latency_phone") & (claims["config"].map(len) == 0)]
    rows = []
    for claim in claims.to_dict("records"):
        protocol, printed = PROTOCOL_OF[claim["paper"]], float(claim["paper_value"])
        for measured in report[report["network"] == claim["model"]].to_dict("records"):
            rows.append(
                {
                    "network": claim["model"],
                    "paper": claim["paper"],
                    "item": claim["item"],
                    "paper_ms": printed,
                    "paper_device": device_of(claim["how"]),
                    "protocol": protocol.removesuffix("_ms"),
                    "ms": measured[protocol],
                    "ratio": measured[protocol] / printed,
                    **{name: measured[name] for name in ("device", "system", "compute_units")},
                    "remark": measured["remark"],
                }
            )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def device_of(how: str) -> str:
    """The device in "the paper's figure (iPhone 12, ...)" or "needs the device: iPhone 12, ..."."""
    return how.partition(": ")[2] or how.partition("(")[2].removesuffix(")")


def draw_report(report: pd.DataFrame) -> "Figure":
    """The measurements by network: a bar from the minimum to p95, a dot at the trimmed mean, and
    the papers' latencies hollow.

    A table with an invented row says so across the picture.
    """
    import matplotlib.pyplot as plt

    from ..plots import points

    report = report.sort_values(["network", "compute_units"], ignore_index=True)
    papers = beside_papers(report)
    fig, ax = plt.subplots(figsize=(7.2, 1.3 + 0.42 * len(report)))
    for place, row in enumerate(report.to_dict("records")):
        known = row["network"] in list_models()
        family = family_of(row["network"]).name if known else ""
        ax.plot([row["minimum_ms"], row["p95_ms"]], [place, place], color="0.75", lw=5, zorder=1)
        points(ax, row["trimmed_mean_ms"], place, family)
        if len(papers):
            own = papers[papers["network"] == row["network"]].drop_duplicates("paper")
            points(ax, own["paper_ms"], [place - 0.28] * len(own), family, paper=True, ms=6)
    names = [f"{r['network']}, {r['compute_units']}" for r in report.to_dict("records")]
    ax.set_yticks(range(len(report)), names)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.set(xlabel="ms (hollow: the papers', on their phones)")
    ax.invert_yaxis()
    devices = sorted(set(report["device"] + ", " + report["system"]))
    ax.set_title("; ".join(devices))
    if report["remark"].str.contains(INVENTED).any():
        ax.text(0.5, 0.5, "INVENTED: NO RESULT", transform=ax.transAxes, ha="center", va="center",
                fontsize=22, color="0.6", alpha=0.6, rotation=12)  # fmt: skip
    return fig
