"""`paperrepro benchmark`: each command measures, prints its tables and writes them to files.

A benchmark's module is imported by its command only: some bring compilers and other libraries.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Format, FormatOption, command_line, exit_on_error, render, require

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
ThreadsOption = Annotated[int, typer.Option(help="Threads of PyTorch.", min=1, max=1024)]
OutOption = Annotated[
    Path, typer.Option(help="The folder of the results, made where it is missing.")
]
TimesOption = Annotated[
    bool, typer.Option("--times", help="Times, and nothing else: on a machine that is quiet.")
]
RESULTS = Path("data/results")


@app.command()
def depthwise(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    device: Annotated[str, typer.Option(help="cpu, or a GPU: cuda.", metavar="DEVICE")] = "cpu",
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Depthwise convolutions with large kernels (RepLKNet Table 1), ours against PyTorch's.

    For K = 3 to 31 on maps of 7 to 64 pixels, and with the backward pass on two of them: the times
    by which PyTorch in channels_last, torch.fft and our operator are faster than PyTorch in NCHW,
    and ours over the best of PyTorch's. Then RepLKNet-31B's own layers; in how many cells ours
    reaches .95 of the best; and what that makes of RepLKNet-31B, and of one training step. Five
    minutes; a minute with --quick.

    With --device cuda: Table 1's own shapes by cuDNN and by our kernel in Triton, and how near that
    comes to the time that moving the maps takes; in depthwise-gpu.csv.
    """
    if device != "cpu":
        from ..benchmark import depthwise_gpu

        run = partial(depthwise_gpu.run, device=device)
        report(context, {"depthwise-gpu": run}, out, format, quick=quick)
        return
    from ..benchmark import depthwise

    measured: list[pd.DataFrame] = []

    def kept(benchmark: "Callable[..., pd.DataFrame]") -> "Callable[..., pd.DataFrame]":
        def run(**settings: Any) -> "pd.DataFrame":
            measured.append(benchmark(**settings))
            return measured[-1]

        return run

    def reached(**settings: Any) -> "pd.DataFrame":
        return depthwise.reached(*measured)

    tables = {
        "depthwise": kept(depthwise.run),
        "depthwise-layers": kept(depthwise.layers),
        "depthwise-reached": reached,
        "depthwise-networks": depthwise.networks,
    }
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
    from ..networks import check_any

    with exit_on_error(2):
        for name in names or []:
            check_any(name)

    def run(**settings: Any) -> "pd.DataFrame":
        return models.run(names or None, **settings)

    report(context, {"models": run}, out, format, quick=quick, threads=threads)


@app.command()
def tables(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """The latencies of the papers' tables, each table's networks against each other.

    FasterNet's Tables 3, 5 and 9 and MobileOne's Table 8 as far as they are of a CPU, with the
    peers that timm and torchvision have; MobileViGv2's Table 3, whose latencies are a phone's.
    """
    from ..benchmark import tables

    report(context, {"tables": tables.run}, out, format, quick=quick, threads=threads)


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
    network: Annotated[
        list[str] | None,
        typer.Option(help="A network of ours, of timm or of torchvision; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time, of --network.", min=1)] = 1,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """The same network in PyTorch's runtimes, ONNX Runtime and OpenVINO, with its error in each.

    \b
    Runtimes: eager, channels_last, for_inference, jit, compile, aot_inductor, onnxruntime,
    openvino, executorch. One that is not installed is named, and skipped; the last three come with
    pip install "paperrepro[runtimes,executorch]".

    \b
    paperrepro benchmark runtimes
    paperrepro benchmark runtimes for_inference openvino --network mobileone_s1 --network resnet50
    """
    from ..benchmark import runtimes

    with exit_on_error(2):
        for name in names or []:
            runtimes.check_name(name)

    def run(**settings: Any) -> "pd.DataFrame":
        cases = [(name, batch) for name in network or []] or runtimes.CASES
        return runtimes.run(cases, names or tuple(runtimes.RUNTIMES), **settings)

    report(context, {"runtimes": run}, out, format, quick=quick, threads=threads)


@app.command()
def executorch(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks; all thirty when left out.")
    ] = None,
    times: TimesOption = False,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Every network through ExecuTorch: its file's error, delegates and size; or times.

    The file is executed by the runtime that phones have, with random weights calibrated on drawn
    images. Twenty minutes on two cores; RepLKNet-XL takes 12 GB of memory. With --times twelve
    networks are timed beside eager PyTorch and ONNX Runtime, in six minutes, and the table is
    executorch-times. What was stopped goes on where it was, by the same command.
    """
    from functools import partial

    from ..benchmark import executorch

    tables = {
        "executorch-times" if times else "executorch": partial(
            executorch.times if times else executorch.run, names or None
        )
    }
    report(context, tables, out, format, in_steps=True, quick=quick, threads=threads)


@app.command()
def deployment(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks; two small ones when left out.")
    ] = None,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """What a service feels: cold start, tails, waiting under load, memory, preprocessing.

    In eager PyTorch, ONNX Runtime and ExecuTorch, in float32 and in int8. Three minutes a network,
    on a machine that does nothing else. What was stopped goes on where it was, by the same command.
    """
    from ..benchmark import deployment

    def run(**settings: Any) -> "pd.DataFrame":
        return deployment.run(names or None, **settings)

    report(context, {"deployment": run}, out, format, in_steps=True, quick=quick, threads=threads)


@app.command()
def quantization(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="shapes, or a folder or name of CIFAR-10's images; several times for several.",
            metavar="NAME|FOLDER",
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Test images.", min=2)] = 1000,
    times: TimesOption = False,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Fewer bits: accuracy with its interval and size in Core ML, ExecuTorch and ONNX; or times.

    The networks are those of data/weights that were trained on the data. Then MobileOne before and
    after re-parameterization, with the remedies, and layer by layer. Ten minutes a data set on two
    cores. With --times the networks of the first data set in ONNX Runtime and ExecuTorch, in two
    minutes, and the table is quantization-times.

    \b
    Examples:
      paperrepro benchmark quantization
      paperrepro benchmark quantization --data shapes --data cifar10_jpeg
      paperrepro benchmark quantization --times
    """
    from functools import partial

    from ..benchmark import quantization, rounding

    names = data or ["shapes"]
    tables = {
        "quantization": quantization.run,
        "quantization-order": rounding.order,
        "quantization-layers": rounding.layers,
    }
    if times:
        tables = {"quantization-times": quantization.times}
    runs = {name: partial(run, names, count=count) for name, run in tables.items()}
    report(context, runs, out, format, in_steps=True, quick=quick, threads=threads)


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


@app.command()
def loading(
    context: typer.Context,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images per class, in place of photographs of scikit-learn.",
            metavar="FOLDER",
        ),
    ] = None,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """Images per second and core from JPEG files to batches: ours, torchvision's folder, timm's.

    With the augmentations of the papers, at 224 pixels. A minute.

    \b
    Examples:
      paperrepro benchmark loading
      paperrepro benchmark loading --images imagenet/val --out mine
    """
    from ..benchmark import loading

    def run(**settings: Any) -> "pd.DataFrame":
        return loading.run(images=images, **settings)

    with exit_on_error(2):
        require("timm", "train")
        if images is None:
            require("sklearn", "book")
    report(context, {"loading": run}, out, format, quick=quick, threads=threads)


@app.command()
def trainer(
    context: typer.Context,
    quick: QuickOption = False,
    threads: ThreadsOption = 1,
    out: OutOption = RESULTS,
    format: FormatOption = Format.table,
) -> None:
    """The trainer's step against a bare loop over ready batches, and timm's beside both.

    On the digits, on shapes and on JPEG files at 224 pixels: the bare loop's time over the
    trainer's with all its reading and augmenting, over its step alone, and over timm's.
    """
    from ..benchmark import trainer

    report(context, {"trainer": trainer.run}, out, format, quick=quick, threads=threads)


def report(
    context: typer.Context,
    benchmarks: "Mapping[str, Callable[..., pd.DataFrame]]",
    out: Path,
    format: Format,
    in_steps: bool = False,
    **settings: Any,
) -> None:
    """Run the benchmarks of one command; print each table and write it to its file.

    Those that work in steps write theirs after each, and go on where they were stopped.
    """
    from ..benchmark.steps import Steps
    from ..files import check_writable
    from ..results import rounded, save_result

    quick, threads = settings.get("quick", False), settings.get("threads", 1)
    with exit_on_error(1):
        check_writable(out)
        for name, benchmark in benchmarks.items():
            path = out / (f"{name}-quick.csv" if quick else f"{name}.csv")
            if in_steps:
                settings["steps"] = Steps(path, command=command_line(context), threads=threads)
                if settings["steps"].before:
                    typer.echo(f"goes on after {settings['steps'].before} rows of {path}", err=True)
            table = rounded(benchmark(**settings))
            typer.echo(render(table, format))
            save_result(path, table, command=command_line(context), threads=threads)
            typer.echo(f"wrote {path}", err=True)
