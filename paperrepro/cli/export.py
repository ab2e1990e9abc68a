"""`paperrepro export`, `verify`, `plan`, `phone-report` and `verify-networks`."""

from pathlib import Path
from typing import Annotated

import typer

from .console import (
    Format,
    FormatOption,
    NameArgument,
    OutOption,
    SizeOption,
    aligned,
    check_out,
    command_line,
    exit_on_error,
    render,
    write,
)

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


def export(
    name: NameArgument,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The package; NAME.mlpackage when left out.", metavar="PACKAGE"),
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
    precision: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    target: Annotated[str, typer.Option(help="One of iOS15, iOS16, iOS17, iOS18.")] = "iOS16",
    compress: Annotated[
        str | None,
        typer.Option(help="Of the weights: int8, int4, palette8, palette6, palette4, prune."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a package that is there.")
    ] = False,
) -> None:
    """Export a network to Core ML, and execute the file that was written.

    The network is re-parameterized, its normalisation becomes part of the package, and the saved
    file is executed here, operation by operation. The error is that of its logits for one image
    against PyTorch's, with which they stand beside the package for a Mac or an iPhone.

    \b
    Examples:
      paperrepro export mobileone_s0 --weights runs/shapes/model.safetensors
      paperrepro export fasternet_t0 --weights released --labels imagenet.txt --compress int8
    """
    from ..export import export_coreml
    from ..models import check_name
    from ..networks import find_network

    with exit_on_error(2):
        check_name(name)
    with exit_on_error(1):
        opened = find_network(name, weights=weights, size=size, num_classes=classes)
        names = getattr(opened.model, "classes", None)
        if labels:
            names = labels.read_text(encoding="utf-8").splitlines()
        report = export_coreml(
            opened.model,
            out or Path(f"{name}.mlpackage"),
            size=opened.input.size,
            precision=precision,
            target=target,
            labels=names,
            compress=compress,
            overwrite=overwrite,
        )
    operations = ", ".join(f"{count} {kind}" for kind, count in report.operations.items())
    typer.echo(
        aligned(
            [
                ("package", str(report.path)),
                ("golden image and logits", str(report.golden)),
                ("converted by", report.frontend),
                ("megabytes", f"{report.stored_bytes / 1e6:.1f}"),
                ("parameters", f"{report.parameters:,}"),
                ("operations", operations),
                ("compressed arrays", str(report.compressed)),
                ("relative error", f"{report.error:.2g}"),
                ("seconds", f"{report.seconds:.1f}"),
            ]
        )
    )


def verify(
    package: PackageArgument,
    weights: WeightsOption = None,
    images: ImagesOption = None,
    count: CountOption = 8,
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
    from ..networks import open_network

    with exit_on_error(1):
        program = load(package)
        tried = load_images(images, Settings.of(program).size, count)
        made_of = program.metadata["paperrepro.network"]
        classes = int(program.metadata["paperrepro.classes"])
        report = verify_coreml(package, open_network(made_of, weights, classes), tried)
    typer.echo(aligned((key.replace("_", " "), written(v)) for key, v in asdict(report).items()))


def plan(package: PackageArgument, format: FormatOption = Format.table) -> None:
    """Multiply-accumulates, parameters and bytes of each operation of a package.

    The hints tell what others report to keep an operation off the Neural Engine, and who; where it
    runs, only the compute plan of a device decides.

    \b
    Example:
      paperrepro plan replknet_31b.mlpackage --format csv > plan.csv
    """
    from ..export.plan import plan as plan_of

    with exit_on_error(1):
        table = plan_of(package)
    typer.echo(render(table, format))
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
