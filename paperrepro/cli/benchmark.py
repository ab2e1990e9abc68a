"""`paperrepro benchmark`: each command measures, prints its tables and writes them to files.

A benchmark's module is imported by its command only: some bring compilers and other libraries.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Format, FormatOption, command_line, exit_on_error, render

if TYPE_CHECKING:
    import pandas as pd

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
    context: typer.Context,
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
    from ..benchmark import depthwise

    tables = {"depthwise": depthwise.run, "depthwise-networks": depthwise.networks}
    report(context, tables, out, format, quick=quick, threads=threads)


@app.command()
def operators(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Conv, GConv, DWConv and PConv at four sizes (FasterNet Tables 1 and 9).

    Multiply-adds, multiply-adds per second and latency of stacks of one operator; then the two ways
    to write a partial convolution, slicing and split-cat.
    """
    from ..benchmark import operators

    tables = {"operators": operators.run, "operators-forms": operators.forms}
    report(context, tables, out, format, quick=quick, threads=threads)


@app.command()
def blocks(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """What activations, squeeze-and-excitation and skips cost (MobileOne Tables 1b and 3).

    A network of 30 layers with each of seven activations; with squeeze-and-excitation; with skip
    connections.
    """
    from ..benchmark import blocks

    report(context, {"blocks": blocks.run}, out, format, quick=quick, threads=threads)


@app.command()
def models(
    context: typer.Context,
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
    from ..benchmark import models

    def run(**settings: Any) -> "pd.DataFrame":
        return models.run(names or None, **settings)

    report(context, {"models": run}, out, format, quick=quick, threads=threads)


@app.command()
def correlation(
    context: typer.Context, out: OutOption = RESULTS, format: FormatOption = Format.table
) -> None:
    """Rank correlation of latency with multiply-adds and parameters (MobileOne Table 1a).

    On the papers' own data, and on what `paperrepro benchmark models` measured. Nothing is timed.
    """
    from ..benchmark import correlation

    report(context, {"correlation": correlation.run}, out, format)


@app.command()
def peers(
    context: typer.Context, out: OutOption = RESULTS, format: FormatOption = Format.table
) -> None:
    """Count the quoted peers that timm or torchvision has, and compare the papers' tables.

    Parameters and multiply-adds, as trained and as run. Nothing is timed.
    """
    from ..benchmark import peers

    report(context, {"peers": peers.run}, out, format)


@app.command()
def runtimes(
    context: typer.Context,
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
    from ..benchmark import runtimes

    with exit_on_error(2):
        for name in names or []:
            runtimes.check_name(name)

    def run(**settings: Any) -> "pd.DataFrame":
        return runtimes.run(runtimes=names or tuple(runtimes.RUNTIMES), **settings)

    report(context, {"runtimes": run}, out, format, quick=quick, threads=threads)


@app.command()
def shape_bias(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Whether a shape bias is bound by the network or by loading its 1,280 images.

    Milliseconds per image of each, for the smallest network of the five families.
    """
    from ..benchmark import shape_bias

    report(
        context,
        {"shape-bias-speed": shape_bias.run},
        out,
        format,
        quick=quick,
        threads=threads,
    )


@app.command()
def erf(
    context: typer.Context,
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
    from ..benchmark import erf

    report(context, {"erf-speed": erf.run}, out, format, quick=quick, threads=threads)


def report(
    context: typer.Context,
    benchmarks: "dict[str, Callable[..., pd.DataFrame]]",
    out: Path,
    format: Format,
    **settings: Any,
) -> None:
    """Run the benchmarks of one command; print each table and write it to its file."""
    from ..files import check_writable
    from ..results import rounded, save_result

    quick, threads = settings.get("quick", False), settings.get("threads", 1)
    with exit_on_error(1):
        check_writable(out)
        for name, benchmark in benchmarks.items():
            table = rounded(benchmark(**settings))
            typer.echo(render(table, format))
            path = out / (f"{name}-quick.csv" if quick else f"{name}.csv")
            save_result(path, table, command=command_line(context), threads=threads)
            typer.echo(f"wrote {path}", err=True)
