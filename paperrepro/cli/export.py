"""`paperrepro export`, `verify`, `plan`, `phone-report` and `verify-networks`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    Format,
    FormatOption,
    OutOption,
    SizeOption,
    aligned,
    check_out,
    command_line,
    exit_on_error,
    read_lines,
    render,
    write,
)

if TYPE_CHECKING:
    from torch import nn

    from ..dense.segmenter import Segmenter
    from ..export import ExportReport
    from ..export.onnx import FileReport
    from ..models import Backbone, Input

PackageArgument = Annotated[Path, typer.Argument(help="A folder NAME.mlpackage.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="'released', or a file; random ones, always the same, when left out.", metavar="FILE"
    ),
]
ClassesOption = Annotated[
    int | None, typer.Option(help="Classes of the network, where its file does not say.", min=1)
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="A folder of images; drawn shapes when left out.", metavar="FOLDER"),
]
CountOption = Annotated[int, typer.Option(help="How many images are tried.", min=1)]


class FileFormat(StrEnum):
    coreml = "coreml"
    executorch = "executorch"
    onnx = "onnx"


SUFFIXES = {"coreml": ".mlpackage", "executorch": ".pte", "onnx": ".onnx"}
COREML_ONLY = ("precision", "target", "compress")


def export(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `paperrepro models` lists, or the file of a trained classifier or "
            "segmenter.",
            metavar="NAME|FILE",
        ),
    ],
    format: Annotated[
        FileFormat, typer.Option("--format", help="Of the file.", show_choices=True)
    ] = FileFormat.coreml,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; the network's name with .mlpackage, .pte or .onnx when left out.",
            metavar="FILE",
        ),
    ] = None,
    size: SizeOption = None,
    classes: ClassesOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A file with the name of a class on each line; the names in the file of weights, "
            "if it has them, when left out.",
            metavar="FILE",
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="The maps of the four stages, not the logits.")
    ] = False,
    precision: Annotated[str, typer.Option(help="Core ML: float16 or float32.")] = "float16",
    target: Annotated[
        str, typer.Option(help="Core ML: the oldest system, iOS15, iOS16, iOS17 or iOS18.")
    ] = "iOS16",
    compress: Annotated[
        str | None,
        typer.Option(
            help="Core ML, of the weights: int8, int4, palette8, palette6, palette4, "
            "palette4_grouped (per 8 channels), palette4_channel, prune."
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(help="ExecuTorch and ONNX: int8, of weights and activations."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images to verify or to calibrate int8 with; drawn shapes when left "
            "out.",
            metavar="FOLDER",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Core ML: prove afterwards that the package is the network.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Export a network to Core ML, ExecuTorch or ONNX, and execute the file that was written.

    The network is re-parameterized and its normalisation becomes part of the file. The file is
    executed here, a Core ML package operation by operation, the others by their own runtimes; the
    error is that of its outputs for one image against PyTorch's, with which they stand beside the
    file for a Mac or a phone. A file whose values leave the range of numbers is not written.
    Without weights the network is random, and calibrated on drawn images: good for timing only.

    A segmenter's Core ML package gives the class of each pixel, with names and colours for the app
    in its metadata; its ONNX and ExecuTorch files give the logits of each pixel.

    iOS16 is the oldest target that stores compressed weights; iOS17 adds 8-bit activations, iOS18
    4-bit weights. Each format needs its extra: export, executorch, runtimes.

    \b
    Examples:
      paperrepro export runs/scenes/model.safetensors
      paperrepro export mobileone_s0 --weights runs/shapes/model.safetensors
      paperrepro export fasternet_t0 --weights released --labels imagenet.txt --compress int8
      paperrepro export rapidnet_ti --format executorch --quantize int8 --images photos
      paperrepro export mobileone_s1 --format onnx --features --size 512
    """
    import torch

    from ..export.coreml import check_arguments, name_of
    from ..export.network import check_path
    from ..export.survey import load_images
    from ..files import check_writable
    from ..models import Backbone
    from ..models.backbone import FeatureExtractor

    suffix = SUFFIXES[format]
    with exit_on_error(2):
        check_name_or_file(name, weights, classes)
        refuse_foreign(context, format, quantize)
        check_arguments(size or 224, precision, target, compress)
        check_path(out or Path(f"net{suffix}"), suffix, overwrite=True)
    with exit_on_error(1):
        check_writable((out or Path()).parent)
        model, input = named(name, weights, size, classes)
        path = out or Path(f"{name_of(model)}{suffix}")
        lines = read_lines(labels) if labels else None
        common: dict[str, Any] = {
            "size": input.size,
            "normalize": (input.mean, input.std) if model.in_chans == 3 else True,
            "labels": None if features else lines or model.classes,
            "overwrite": overwrite,
        }
        network: torch.nn.Module = model
        if features:
            if not isinstance(model, Backbone):
                raise ValueError(f"--features are a classifier's, and {name} holds a segmenter")
            network = FeatureExtractor(model)
        tried = load_images(images, input.size, 4 if format is FileFormat.coreml else 64)
        facts: list[tuple[str, str]]
        report: ExportReport | FileReport
        if format is FileFormat.coreml:
            from ..export import export_coreml, verify_coreml

            package = export_coreml(
                network, path, precision=precision, target=target, compress=compress, **common
            )
            counts = ", ".join(f"{count} {kind}" for kind, count in package.operations.items())
            facts = [
                ("converted by", package.frontend),
                ("operations", counts),
                ("compressed arrays", str(package.compressed)),
                ("largest value", f"{package.peak:,.0f}"),
            ]
            report = package
            if verify:
                said = {"labels": common["labels"], "normalize": common["normalize"]}
                proof = verify_coreml(path, network, tried, **said)
                share = "" if proof.agreement is None else f", {proof.agreement:.0%} same answers"
                facts.append(
                    (
                        "verified",
                        f"{proof.float32_error:.1e} in float32, {proof.images} images{share}",
                    )
                )
        else:
            from ..export.executorch import export_executorch
            from ..export.onnx import export_onnx

            write = export_onnx if format is FileFormat.onnx else export_executorch
            chosen = tried if quantize else None
            file = write(network, path, quantize=quantize, images=chosen, **common)
            facts, report = [("written as", file.format)], file
    kind = "package" if format is FileFormat.coreml else "file"
    if Path(name).is_file():
        weights = name
    weights = weights or "random; BatchNorm calibrated on drawn images"
    typer.echo(
        aligned(
            [
                (kind, str(report.path)),
                ("golden image and logits", str(report.golden)),
                ("weights", weights),
                ("megabytes", f"{report.stored_bytes / 1e6:.1f}"),
                ("parameters", f"{report.parameters:,}"),
                *facts,
                ("relative error", f"{report.error:.2g}"),
                ("seconds", f"{report.seconds:.1f}"),
            ]
        )
    )


def refuse_foreign(context: typer.Context, format: FileFormat, quantize: str | None) -> None:
    """Refuses an option that another format has."""
    if format is FileFormat.coreml and quantize:
        raise ValueError("--quantize is for ExecuTorch and ONNX; Core ML has --compress")
    for option in COREML_ONLY if format is not FileFormat.coreml else ():
        default = next(p for p in context.command.params if p.name == option).get_default(context)
        if context.params[option] != default:
            raise ValueError(f"--{option} is for Core ML, and --format is {format}: leave it out")


def check_name_or_file(name: str, weights: str | None, classes: int | None) -> None:
    """Refuses what is neither a known network nor a file, and a file with what it says itself."""
    from ..models import check_name

    if Path(name).is_file():
        if weights or classes:
            option = "--weights" if weights else "--classes"
            raise ValueError(f"{name} says that itself: leave {option} out")
    elif "/" in name or Path(name).suffix in (".safetensors", ".pt", ".pth"):
        raise ValueError(f"{name} does not exist")
    else:
        check_name(name)


def named(
    name: str, weights: str | None, size: int | None, classes: int | None
) -> "tuple[Backbone | Segmenter, Input]":
    """A network and its input; without weights random, always the same, and calibrated."""
    from ..export import calibrate
    from ..export.survey import load_images
    from ..models import Backbone
    from ..networks import find_network
    from .dense import is_dense

    file = name if Path(name).is_file() else weights
    if file and is_dense(file):
        return segmenter(name, file, size)
    opened = find_network(name, weights=weights, size=size, num_classes=classes)
    assert isinstance(opened.model, Backbone)
    if file is None:
        check_size(name, opened.input.size)
        calibrate(opened.model, load_images(None, opened.input.size, 4))
    return opened.model, opened.input


def segmenter(name: str, file: str, size: int | None) -> "tuple[Segmenter, Input]":
    """The segmenter in a file; `name` is the file again, or what a package of it is called."""
    from dataclasses import replace

    from ..dense import load_dense
    from ..dense.segmenter import Segmenter
    from ..export.coreml import name_of

    model: nn.Module = load_dense(file).eval()
    if not isinstance(model, Segmenter) or model.input is None:
        raise ValueError(
            f"{file} holds a detector: it gives as many boxes as it finds, and an exported file "
            "gives outputs of fixed shapes; export a segmenter, or the backbone with --features"
        )
    if name not in (file, name_of(model)):
        raise ValueError(f"{file} holds {name_of(model)}, not {name}")
    return model, replace(model.input, size=size or model.input.size)


def check_size(name: str, size: int) -> None:
    from ..models.backbone import SMALLEST_SIDE

    if size < SMALLEST_SIDE:
        raise ValueError(
            f"images of {size} pixels are too small for {name}: each side needs {SMALLEST_SIDE}"
        )


def verify(
    package: PackageArgument,
    weights: WeightsOption = None,
    images: ImagesOption = None,
    count: CountOption = 8,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A file with the name of a class on each line, as for export; the names in the "
            "file of weights when left out.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Execute a package here, and prove that it is the network.

    A float32 package is made anew and compared with PyTorch; the package must have the same
    operations, parameters and shapes, and the half of each constant; no value may leave the range
    of float16. Verified against MIL as implemented here: Core ML does not run on this machine.

    \b
    Examples:
      paperrepro verify mobileone_s0.mlpackage --weights runs/shapes/model.safetensors
      paperrepro verify fasternet_t0.mlpackage --weights released --images photos
    """
    from dataclasses import asdict

    from ..export import verify_coreml
    from ..export.coreml import Settings
    from ..export.mil import load
    from ..export.survey import load_images

    with exit_on_error(1):
        program = load(package)
        size = Settings.of(program).size
        tried = load_images(images, size, count)
        made_of = program.metadata.get("paperrepro.network", "")
        classes = program.metadata.get("paperrepro.classes", "")
        if not classes.isdecimal():
            raise ValueError(f"{package} does not say of how many classes; export it again")
        model, input = named(made_of, weights, size, int(classes))
        report = verify_coreml(
            package,
            model,
            tried,
            labels=read_lines(labels) if labels else None,
            normalize=(input.mean, input.std) if model.in_chans == 3 else True,
        )
    typer.echo(aligned((key.replace("_", " "), written(v)) for key, v in asdict(report).items()))


def plan(
    context: typer.Context,
    package: PackageArgument,
    out: OutOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Multiply-accumulates, parameters and bytes of each operation of a package.

    The hints tell what others report to keep an operation off the Neural Engine, who, and what to
    change; where it runs, only the compute plan of a device decides. A picture shows where the work
    is, and how much of it has a hint.

    \b
    Examples:
      paperrepro plan replknet_31b.mlpackage --format csv > plan.csv
      paperrepro plan rapidnet_ti.mlpackage --out plan.png
    """
    from ..export.plan import plan as plan_of

    with exit_on_error(1):
        check_out(out)
        table = plan_of(package)
    typer.echo(render(table, format))
    if out:
        with exit_on_error(1):
            if out.suffix == ".csv":
                write(context, out, table)
            else:
                from ..export.picture import draw_plan

                write(context, out, table, lambda: draw_plan(table, package.name))
    sums = table[["macs", "parameters", "weight_bytes", "activation_bytes"]].sum()
    typer.echo("; ".join(f"{key} {value:,}" for key, value in sums.items()), err=True)


def phone_report(
    context: typer.Context,
    results: Annotated[Path, typer.Argument(help="The table of the app or of bench, a CSV file.")],
    out: OutOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Check a table of latencies from phones, and set it beside the papers' columns.

    The app BackboneCam and the command bench, both in paperrepro/export/ios, write such a table.
    Each latency stands beside those papers that measured by the same protocol; other phones, other
    versions of the system: a ratio says as much of them as of the network.

    \b
    Examples:
      paperrepro phone-report phone.csv
      paperrepro phone-report phone.csv --out phone.png
    """
    from ..export import beside_papers, draw_report, read_report
    from ..results import rounded

    with exit_on_error(2):
        check_out(out)
    with exit_on_error(1):
        report = read_report(results)
        beside = beside_papers(report)
        typer.echo(render(rounded(report), format))
        if len(beside):
            typer.echo(f"\n{render(rounded(beside), format)}")
        else:
            typer.echo("no paper measured one of these networks on a phone", err=True)
        write(context, out, report, lambda: draw_report(report))


def verify_networks(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Networks; all but RepLKNet-XL when left out."),
    ] = None,
    largest: Annotated[
        bool, typer.Option("--all", help="That one as well: seven gigabytes of memory.")
    ] = False,
    images: ImagesOption = None,
    count: CountOption = 8,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("data/results"),
    format: FormatOption = Format.table,
) -> None:
    """Export and verify the networks, with random weights, and write the table export.csv.

    Size, operations, the error in float32 and in simulated float16, the share of equal answers, and
    seconds and memory of both steps. Eight minutes on two cores.

    \b
    Examples:
      paperrepro verify-networks --all --images photos
      paperrepro verify-networks mobileone_s0 rapidnet_ti --out mine
    """
    from ..export.survey import run
    from ..files import check_writable
    from ..models import check_name
    from ..results import rounded, save_result

    with exit_on_error(2):
        for name in names or []:
            check_name(name)
    with exit_on_error(1):
        check_writable(out)
        table = rounded(run(names or None, images=images, count=count, largest=largest))
        typer.echo(render(table, format))
        source = "/".join(images.resolve().parts[-2:]) if images else "datasets.Shapes"
        save_result(
            out / "export.csv",
            table,
            command=command_line(context),
            images=f"{count} of {source}",
            weights="random; BatchNorm of the images",
        )
        typer.echo(f"wrote {out / 'export.csv'}", err=True)
        failed = table.loc[table["note"] != "", "network"]
        if len(failed):
            raise ValueError(f"not verified: {', '.join(failed)}; the table says why")


def written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
