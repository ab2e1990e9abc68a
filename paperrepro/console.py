"""What every command shares: how a table is written, how a mistake is told."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import pandas as pd
import typer


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


FormatOption = Annotated[
    Format, typer.Option("--format", help="How the table is written.", show_choices=True)
]


@contextmanager
def exit_on_error(code: int) -> Iterator[None]:
    """Turn a ValueError or OSError, whose message says what to do, into one line and an exit."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"paperrepro: {error}", err=True)
        raise typer.Exit(code) from error


def render(table: pd.DataFrame, format: Format) -> str:
    """The table as text; an empty one keeps its header."""
    if format is Format.csv:
        if "config" in table:
            options = table["config"].map(lambda config: json.dumps(config) if config else "")
            table = table.assign(config=options)
        return table.to_csv(index=False, lineterminator="\n").removesuffix("\n")
    if format is Format.json:
        records = [{key: plain(value) for key, value in row.items()} for row in records_of(table)]
        return json.dumps(records, indent=2, ensure_ascii=False)
    cells = [list(table.columns)]
    cells += [[text(value) for value in row.values()] for row in records_of(table)]
    if format is Format.markdown:
        cells = [[cell.replace("|", r"\|") for cell in row] for row in cells]
        cells.insert(1, ["---"] * len(cells[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return aligned(cells)


def records_of(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def plain(value: object) -> object:
    """A value that JSON can hold; None for a missing one."""
    if isinstance(value, dict | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return None if pd.isna(value) else value


def text(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None or value is pd.NA else str(value)


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as columns two spaces apart; columns of numbers to the right."""
    rows = list(rows)
    columns = list(zip(*rows, strict=True))
    lines = []
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(is_numeric(cell) for cell in column[1:]) for column in columns]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def is_numeric(cell: str) -> bool:
    return not cell or cell.replace(",", "").replace(".", "", 1).isdigit()
