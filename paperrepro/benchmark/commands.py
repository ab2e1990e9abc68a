"""`paperrepro benchmark`: each command measures, prints its tables and writes them to files.

A benchmark's module is imported by its command only: some bring compilers and other libraries.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ..console import Format, FormatOption, exit_on_error, render
from ..results import check_writable, save_result

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Measure speed: candidates interleaved, medians with their spread, and a null comparison.

    Every table has a column `null`, the ratio of one candidate to itself in the same run: no other
    ratio is more certain than that one is near 1. Tables go to the screen and to
    data/results/NAME.csv, with command, processor, versions and date on top; with --quick, to
    NAME-quick.csv.

    \b
    paperrepro benchmark depthwise --quick     the large-kernel convolution, in a minute
    paperrepro benchmark models --threads 2    networks and their peers on two cores
    """,
)

QuickOption = Annotated[
    bool, typer.Option("--quick", help="Only the smallest part that still shows the point.")
]
ThreadsOption = Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)]
OutOption = Annotated[
    Path, typer.Option(help="The folder of the results, made where it is missing.")
]
RESULTS = Path("data/results")


@app.command()
def depthwise(
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Depthwise convolutions with large kernels (RepLKNet Table 1), ours against PyTorch's.

    For K = 3 to 31 on maps of 16, 32 and 64 pixels, forward and with the backward pass: the times
    by which PyTorch in channels_last, torch.fft and our operator are faster than PyTorch in NCHW.
    Then what that makes of RepLKNet-31B, and of one training step. Ten minutes; a minute with
    --quick.
    """
    from . import depthwise

    tables = {"depthwise": depthwise.run, "depthwise-networks": depthwise.networks}
    report("depthwise", tables, out, format, quick=quick, threads=threads)


@app.command()
def operators(
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Conv, GConv, DWConv and PConv at four sizes (FasterNet Tables 1 and 9).

    Multiply-adds, multiply-adds per second and latency of stacks of one operator; then the two ways
    to write a partial convolution, slicing and split-cat.
    """
    from . import operators

    tables = {"operators": operators.run, "operators-forms": operators.forms}
    report("operators", tables, out, format, quick=quick, threads=threads)


@app.command()
def blocks(
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """What activations, squeeze-and-excitation and skips cost (MobileOne Tables 1b and 3).

    A network of 30 layers with each of seven activations; with squeeze-and-excitation; with skip
    connections.
    """
    from . import blocks

    report("blocks", {"blocks": blocks.run}, out, format, quick=quick, threads=threads)


@app.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Networks of ours, of timm or of torchvision; all when left out."),
    ] = None,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Latency and throughput of networks and their peers (FasterNet Fig. 2 and Table 3).

    \b
    Examples:
      paperrepro benchmark models
      paperrepro benchmark models mobileone_s1 resnet18 --out mine
    """
    from . import models

    def run(**settings) -> pd.DataFrame:
        return models.run(names or None, **settings)

    command = " ".join(["models", *(names or [])])
    report(command, {"models": run}, out, format, quick=quick, threads=threads)


@app.command()
def correlation(out: OutOption = RESULTS, format: FormatOption = Format.table) -> None:
    """Rank correlation of latency with multiply-adds and parameters (MobileOne Table 1a).

    On the papers' own data, and on what `paperrepro benchmark models` measured. Nothing is timed.
    """
    from . import correlation

    report("correlation", {"correlation": correlation.run}, out, format)


@app.command()
def runtimes(
    names: Annotated[
        list[str] | None, typer.Argument(help="Runtimes; all that are installed when left out.")
    ] = None,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """The same network in PyTorch's runtimes, ONNX Runtime and OpenVINO, with its error in each.

    \b
    Runtimes: eager, channels_last, jit, compile, aot_inductor, onnxruntime, openvino. One that is
    not installed is named, and skipped; the last two come with pip install "paperrepro[runtimes]".
    """
    from . import runtimes

    with exit_on_error(2):
        for name in names or []:
            runtimes.check_name(name)

    def run(**settings) -> pd.DataFrame:
        return runtimes.run(runtimes=names or tuple(runtimes.RUNTIMES), **settings)

    command = " ".join(["runtimes", *(names or [])])
    report(command, {"runtimes": run}, out, format, quick=quick, threads=threads)


@app.command()
def shape_bias(
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Whether a shape bias is bound by the network or by loading its 1,280 images.

    Milliseconds per image of each, for the smallest network of the five families.
    """
    from . import shape_bias

    report(
        "shape-bias",
        {"shape-bias-speed": shape_bias.run},
        out,
        format,
        quick=quick,
        threads=threads,
    )


@app.command()
def erf(
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """The effective receptive field of RepLKNet-31B, against the released procedure.

    One image of 224 and of 512 pixels: ours; the released procedure through PyTorch's convolutions
    in NCHW; and that with every block computed a second time, as it must be to fit 1024 pixels into
    4 GB of memory. Ten minutes; with --quick a thin network, in seconds.
    """
    from . import erf

    report("erf", {"erf-speed": erf.run}, out, format, quick=quick, threads=threads)


def report(
    command: str,
    benchmarks: dict[str, Callable[..., pd.DataFrame]],
    out: Path,
    format: Format,
    **settings,
) -> None:
    """Run the benchmarks of one command; print each table and write it to its file."""
    quick, threads = settings.get("quick", False), settings.get("threads", 1)
    options = " --quick" * quick + f" --threads {threads}" * (threads > 1)
    with exit_on_error(1):
        check_writable(out)
        for name, benchmark in benchmarks.items():
            table = rounded(benchmark(**settings))
            typer.echo(render(table, format))
            path = out / f"{name}{'-quick' * quick}.csv"
            command_line = f"paperrepro benchmark {command}{options}"
            save_result(path, table, command=command_line, threads=threads)
            typer.echo(f"wrote {path}", err=True)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Fractional numbers with four significant digits: more were not measured."""
    fractional = table.select_dtypes("float")
    return table.assign(
        **{name: [float(f"{value:.4g}") for value in column] for name, column in fractional.items()}
    )
