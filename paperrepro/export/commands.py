"""`paperrepro export`, `verify`, `plan` and `verify-networks`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..console import Format, FormatOption, aligned, exit_on_error, render
from ..models import Backbone, check_name
from ..results import check_writable, save_result
from ..weights import WeightsError, create_model, load_model, read_checkpoint
from .coreml import COMPRESSIONS, PRECISIONS, TARGETS, Settings, export_coreml
from .mil import load
from .plan import plan as plan_of
from .survey import load_images
from .survey import run as verify_all
from .verify import verify_coreml

NameArgument = Annotated[str, typer.Argument(help="A name that `paperrepro models` lists.")]
PackageArgument = Annotated[Path, typer.Argument(help="A folder NAME.mlpackage.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="'released', or a file; random ones, always the same, when left out.", metavar="FILE"
    ),
]
ClassesOption = Annotated[
    int, typer.Option(help="Classes of the network, where its file does not say.", min=1)
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
    size: Annotated[int, typer.Option(help="Side of the image.", metavar="PIXELS")] = 224,
    classes: ClassesOption = 1000,
    labels: Annotated[
        Path | None,
        typer.Option(help="A file with the name of a class on each line.", metavar="FILE"),
    ] = None,
    precision: Annotated[str, typer.Option(help=f"{' or '.join(PRECISIONS)}.")] = "float16",
    target: Annotated[str, typer.Option(help=f"One of {', '.join(TARGETS)}.")] = "iOS16",
    compress: Annotated[
        str | None, typer.Option(help=f"Of the weights: {', '.join(COMPRESSIONS)}.")
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
      paperrepro export mobileone_s0 --weights runs/shapes/model.safetensors --size 64
      paperrepro export fasternet_t0 --weights released --labels imagenet.txt --compress int8
    """
    with exit_on_error(2):
        check_name(name)
    with exit_on_error(1):
        model = network(name, weights, classes)
        report = export_coreml(
            model,
            out or Path(f"{name}.mlpackage"),
            size=size,
            precision=precision,
            target=target,
            labels=labels and labels.read_text(encoding="utf-8").splitlines(),
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
    with exit_on_error(1):
        program = load(package)
        chosen = load_images(images, Settings.of(program).size, count)
        made_of = program.metadata["paperrepro.network"]
        model = network(made_of, weights, int(program.metadata["paperrepro.classes"]))
        report = verify_coreml(package, model, chosen)
    typer.echo(aligned((key.replace("_", " "), written(v)) for key, v in asdict(report).items()))


def plan(package: PackageArgument, format: FormatOption = Format.table) -> None:
    """Multiply-accumulates, parameters and bytes of each operation of a package.

    The hints tell what others report to keep an operation off the Neural Engine, and who; where it
    runs, only the compute plan of a device decides.

    \b
    Example:
      paperrepro plan replknet_31b.mlpackage --format csv > plan.csv
    """
    with exit_on_error(1):
        table = plan_of(package)
    typer.echo(render(table, format))
    sums = table[["macs", "parameters", "weight_bytes", "activation_bytes"]].sum()
    typer.echo("; ".join(f"{key} {value:,}" for key, value in sums.items()), err=True)


def verify_networks(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Networks; all but RepLKNet-XL when left out."),
    ] = None,
    all: Annotated[
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
    with exit_on_error(2):
        for name in names or []:
            check_name(name)
    with exit_on_error(1):
        check_writable(out)
        table = verify_all(names or None, images=images, count=count, largest=all)
        table = table.map(lambda value: float(f"{value:.4g}") if type(value) is float else value)
        typer.echo(render(table, format))
        options = " ".join([*(names or []), *(["--all"] if all else [])])
        source = "/".join(images.resolve().parts[-2:]) if images else "datasets.Shapes"
        save_result(
            out / "export.csv",
            table,
            command=f"paperrepro verify-networks {options}".strip(),
            images=f"{count} of {source}",
            weights="random; BatchNorm of the images",
        )
        typer.echo(f"wrote {out / 'export.csv'}", err=True)
        failed = table.loc[table["note"] != "", "network"]
        if len(failed):
            raise ValueError(f"not verified: {', '.join(failed)}; the table says why")


def network(name: str, weights: str | None, classes: int) -> Backbone:
    """The network with its weights; a file of ours says its own classes and options."""
    try:
        if weights not in (None, "released") and "paperrepro" in read_checkpoint(Path(weights))[1]:
            model = load_model(weights)
            if model.variant != name:
                raise ValueError(f"{weights} holds {model.variant}, not {name}")
            return model
        torch.manual_seed(0)
        return create_model(name, num_classes=classes, weights=weights)
    except WeightsError as error:
        raise ValueError(str(error)) from error


def written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
