"""What every command shares: its options, how a table is written, how a mistake is reported."""

import io
import json
import os
import shlex
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NETWORK = (
    "A name that `paperrepro models` lists, one of timm's or torchvision's, a file of weights, "
    "NAME=FILE or NAME=released."
)
NameArgument = Annotated[str, typer.Argument(help="A name that `paperrepro models` lists.")]
NetworksArgument = Annotated[list[str], typer.Argument(help=NETWORK, metavar="NETWORK...")]
SizeOption = Annotated[
    int | None,
    typer.Option(
        help="Side of the images; the network's own when left out.",
        metavar="PIXELS",
        min=32,
        max=16384,
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; a GPU where there is one.", metavar="DEVICE")
]
WorkersOption = Annotated[int, typer.Option(help="Processes that prepare images.", min=0)]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="A picture (.png, .svg, .pdf), with a .json beside it; or the table alone (.csv).",
        metavar="FILE",
    ),
]
TableOption = Annotated[
    Path | None, typer.Option(help="The file for the table (.csv).", metavar="FILE")
]
PICTURES = {".png", ".svg", ".pdf"}


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
    """Turn an error whose message says what to do into one line and an exit."""
    try:
        yield
    except BrokenPipeError:  # who reads has enough
        raise
    except (ValueError, OSError) as error:
        tell(error)
        raise typer.Exit(code) from error
    except MemoryError as error:
        typer.echo("paperrepro: not enough memory; take fewer or smaller images", err=True)
        raise typer.Exit(1) from error
    except (typer.Exit, typer.Abort):
        raise
    except (RuntimeError, ArithmeticError) as error:  # PyTorch's, of sizes, devices and memory
        tell(f"{type(error).__name__}: {error}")
        raise typer.Exit(1) from error


def tell(error: object) -> None:
    typer.echo(f"paperrepro: {' '.join(str(error).split())}", err=True)


class Commands(TyperGroup):
    """All commands: what no command tells itself ends in one line, a signal in an exit that
    cleans up."""

    def invoke(self, ctx: Any) -> Any:
        with exit_on_error(1), stopped_by_signal():
            try:
                return super().invoke(ctx)
            finally:
                flush()


def flush() -> None:
    """Writes out what was printed; where that fails, nothing is left to fail at the exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        raise OSError(f"cannot write the output: {error.strerror}") from error


@contextmanager
def stopped_by_signal() -> Iterator[None]:
    """SIGTERM ends the process as an error would, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    heard: list[int] = []

    def stop(number: int, frame: object) -> None:
        heard.append(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("paperrepro: stopped", err=True)
        raise SystemExit(130) from None
    except SystemExit:
        if heard:
            typer.echo("paperrepro: stopped", err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if heard:  # a converter took the exit for an error of its own, and went on
        typer.echo("paperrepro: stopped, but what was being written was finished", err=True)
        raise SystemExit(128 + heard[0])


def read_lines(path: Path) -> list[str]:
    """The lines of a text.

    Raises:
        ValueError: naming the file, which is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8") from error


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into one line and the exit code that a shell expects."""
    from ..signals import Interrupted, stopping

    try:
        with stopping():
            yield
    except Interrupted as stop:
        typer.echo(f"paperrepro: {stop}", err=True)
        raise typer.Exit(stop.code) from stop


def render(table: "pd.DataFrame", format: Format) -> str:
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


def records_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def plain(value: object) -> object:
    """A value that JSON can hold; None for a missing one."""
    if isinstance(value, dict | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return None if is_missing(value) else value


def is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or bool(pd.isna(value))


def text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if is_missing(value) else str(value)


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


def command_line(context: typer.Context, *places: str) -> str:
    """The command that is running, with every argument and option that is not its default; but not
    the places where its results go, nor their form."""
    words = ["paperrepro"]
    words += context.command_path.split()[1:] or [str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value is None or value == parameter.get_default(context):
            continue
        if parameter.name in ("out", "format", *places):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            words += map(str, values)
        elif getattr(parameter, "is_flag", False):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += [word for one in values for word in (parameter.opts[0], str(one))]
    return shlex.join(words)


def check_out(out: Path | None, *, picture: bool = True) -> None:
    """Raises before a long measurement what would stop its writing afterwards."""
    from ..files import check_writable

    if out is None:
        return
    if out.suffix in PICTURES and picture:
        require("matplotlib", "book")
    elif out.suffix != ".csv":
        pictures = f"a picture ends in {', '.join(sorted(PICTURES))}, " if picture else ""
        raise ValueError(f"--out {out}: {pictures}a table in .csv")
    check_writable(out.parent)


def require(module: str, extra: str) -> None:
    """Raises where a library is missing that only an extra brings."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ValueError(f'{module} is not installed: pip install "paperrepro[{extra}]"')


def write(
    context: typer.Context,
    out: Path | None,
    table: "pd.DataFrame",
    draw: "Callable[[], Figure] | None" = None,
) -> None:
    """The picture that `draw` makes with the table as JSON beside it, or the table as a result;
    with the command that runs."""
    from ..files import write_atomically
    from ..results import save_result, surroundings

    if out is None:
        return
    if out.suffix == ".csv" or draw is None:
        save_result(out, table, command=command_line(context))
    else:
        buffer = io.BytesIO()
        draw().savefig(buffer, format=out.suffix[1:], bbox_inches="tight")
        rows = [{key: plain(value) for key, value in row.items()} for row in records_of(table)]
        facts = {"command": command_line(context)} | surroundings() | {"rows": rows}
        write_atomically(out.with_suffix(".json"), json.dumps(facts, indent=2))
        write_atomically(out, buffer.getvalue())
    typer.echo(f"wrote {out}", err=True)


def labels(names: list[str]) -> list[str]:
    """What stands for networks in a table: NAME of NAME=FILE, unless one comes twice.

    Raises:
        ValueError: the same network twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice; once is enough")
    short = [name.partition("=")[0] for name in names]
    return short if len(set(short)) == len(short) else names
