"""`paperrepro erf`, `shape-bias`, `attribute` and the other commands that look inside networks."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    NETWORK,
    DeviceOption,
    Format,
    FormatOption,
    NetworksArgument,
    OutOption,
    SizeOption,
    TableOption,
    WorkersOption,
    check_out,
    exit_on_error,
    labels,
    records_of,
    render,
    require,
    write,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..networks import Network

ImagesOption = Annotated[
    Path, typer.Option(help="An image, or a folder of images and folders.", metavar="FILE|FOLDER")
]


def shape_bias(
    context: typer.Context,
    networks: Annotated[
        list[str] | None, typer.Argument(help=NETWORK, metavar="[NETWORK]...")
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Published decisions: a CSV file, or a folder of them; may be repeated.",
            metavar="FILE|FOLDER",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Cue-conflict images, <shape>/<shape>N-<texture>M.png; the project's shapes when "
            "left out.",
            metavar="FOLDER",
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="How many of the project's shapes.", min=1)] = 1024,
    size: SizeOption = None,
    workers: WorkersOption = 0,
    out: OutOption = None,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Shape bias of networks, and of published decisions (RepLKNet Fig. 5).

    Of the decisions for the shape or the texture of images whose cues are in conflict, the share
    for the shape, with the 95 % interval over other images. Networks of 1000 classes are asked
    about ImageNet's 16 categories and need --images; networks of 16 classes about those or about
    the project's shapes. A table shows all categories together, csv and json each of them.

    \b
    Examples:
      paperrepro shape-bias runs/shapes/model.safetensors
      paperrepro shape-bias replknet_31b=released --images cue-conflict --out bias.png
      paperrepro shape-bias --decisions raw/caffe --decisions raw/torchvision --out public.csv
    """
    import pandas as pd

    from ..analysis import shape_bias as analysis
    from ..files import pick_device

    with exit_on_error(2):
        if not networks and not decisions:
            raise ValueError("nothing to measure: name a network, or --decisions FILE")
        opened = list(open_all(networks or [], size).values())
        called = labels([network.name for network in opened])
        place = pick_device(device)
        check_out(out)
    with exit_on_error(1):
        biases: dict[tuple[str, str], analysis.ShapeBias] = {}
        for path in decisions or []:
            files = sorted(path.glob("*.csv")) if path.is_dir() else path
            if files == []:
                raise ValueError(f"{path} holds no CSV file of decisions")
            biases |= {(path.stem, name): bias for name, bias in analysis.by_subject(files).items()}
        for label, network in zip(called, opened, strict=True):
            stimuli: analysis.Stimuli | analysis.ShapesInConflict
            if images:
                stimuli = analysis.Stimuli(images, network.transform)
            else:
                side = network.input.size
                stimuli = analysis.ShapesInConflict(count, network.transform, size=side)
            biases[images.name if images else "shapes", label] = analysis.from_network(
                network.model.to(place), stimuli, workers=workers, progress=True
            )
        tables = [
            bias.table().round(4).assign(source=source, name=name)
            for (source, name), bias in biases.items()
        ]
        rows = pd.concat(tables)[["source", "name", *tables[0].columns[:-2]]]
        write(context, out, rows, lambda: analysis.draw(rows))
    if format in (Format.table, Format.markdown):
        rows = rows[rows["category"] == "all"].drop(columns="category")
    typer.echo(render(rows, format))


def attribute(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help=NETWORK)],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="saliency, integrated-gradients, grad-cam or occlusion; may be repeated; all when "
            "left out."
        ),
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="The class to explain; the network's answer when left out.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="Grad-CAM's stage: a number, or a module's name.")
    ] = "-1",
    baseline: Annotated[
        str, typer.Option(help="What deleted pixels become: blur or grey.")
    ] = "blur",
    size: SizeOption = None,
    out: OutOption = None,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Maps of which pixels speak for a class, each with its score.

    Deletion and insertion are areas from 0 to 1 under the class's probability, while the pixels
    that a map ranks first are replaced, or shown, first: a good map has a low and a high one. The
    last row is a map of random numbers. Delta is what integrated gradients misses of the logit.

    \b
    Examples:
      paperrepro attribute fasternet_t0=released cat.jpg --out cat.png
      paperrepro attribute runs/shapes/model.safetensors star.png --method grad-cam
    """
    from ..analysis import attribution
    from ..files import open_image, pick_device
    from ..networks import find_network

    methods = method or list(attribution.METHODS)
    with exit_on_error(2):
        opened = find_network(network, size=size)
        attribution.check_choice("method", methods, attribution.METHODS)
        attribution.check_choice("baseline", [baseline], attribution.BASELINES)
        require("captum", "book")
        place = pick_device(device)
        check_out(out)
    with exit_on_error(1):
        picture = opened.crop(open_image(image))
        maps, table = attribution.compare(
            opened.model.to(place),
            opened.normalise(picture).to(place),
            methods,
            target=target,
            stage=stage_number(stage),
            baseline=baseline,
        )
        titles = {
            "{method}\ndeletion {deletion:.2f}, insertion {insertion:.2f}".format_map(row): values
            for row, values in zip(records_of(table), maps.values(), strict=True)
        }
        write(context, out, table, lambda: attribution.draw(picture, titles))
    typer.echo(render(table, format))


def salient(
    context: typer.Context,
    networks: NetworksArgument,
    kernel: Annotated[int, typer.Option(help="The side of the kernels.", metavar="K", min=1)] = 3,
    depthwise: Annotated[
        bool, typer.Option("--depthwise", help="Filters of one channel, instead of regular ones.")
    ] = False,
    out: OutOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Where in its kernel each filter is largest (FasterNet Fig. 6).

    Per stage, the share of filters with their largest norm in the centre, its 95 % interval, and
    chance. Our networks are looked at as they are run, branches merged, and have random weights
    unless a file is named. That may be anybody's: its tensors are enough.

    \b
    Examples:
      paperrepro salient fasternet_t0=released --out salient.png
      paperrepro salient cifar10_resnet20-12fca82f.th cifar10_resnet56-4bfd9763.th
      paperrepro salient runs/shapes/model.safetensors --kernel 7 --depthwise
    """
    import pandas as pd

    from ..analysis import salient as analysis
    from ..results import rounded

    with exit_on_error(2):
        weights = dict(zip(labels(networks), map(conv_weights, networks), strict=True))
        check_out(out)
    with exit_on_error(1):
        tables = {
            name: analysis.measure(convs, kernel, depthwise=depthwise)
            for name, convs in weights.items()
        }
        rows = rounded(pd.concat(tables, names=["network"]).reset_index(0))
        write(context, out, rows, lambda: analysis.draw(tables))
    if format in (Format.table, Format.markdown):
        rows = rows.drop(columns="counts")
    typer.echo(render(rows, format))


def conv_weights(name: str) -> "dict[str, Tensor]":
    """The convolutions of a network as it is run; or what a file holds that is not ours."""
    from ..analysis import salient as analysis
    from ..networks import as_run, find_network
    from ..weights import read_checkpoint

    if Path(name).is_file():
        state, metadata = read_checkpoint(Path(name))
        if "paperrepro" not in metadata:
            return analysis.conv_weights(state)
    return analysis.conv_weights(as_run(find_network(name).model))


def kernels(
    context: typer.Context,
    networks: NetworksArgument,
    smallest: Annotated[
        int, typer.Option(help="The side of the smallest kernels to look at.", metavar="K", min=1)
    ] = 5,
    out: TableOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Where in large depthwise kernels the weight lies (RepLKNet Fig. 6).

    Per kernel: how far its largest weight lies from the centre (peak), the share of the weight in
    the middle 3 x 3 (centre) and on the cross through it (skeleton), each beside what even weights
    would have, and the rank correlation of weight with distance (decay). Merged is what runs, large
    the large branch alone. Ours have random weights unless a file is named.

    \b
    Examples:
      paperrepro kernels replknet_31b=released
      paperrepro kernels runs/shapes/model.safetensors --smallest 7
    """
    import pandas as pd

    from ..analysis import kernels as analysis
    from ..results import rounded

    with exit_on_error(2):
        opened = open_all(networks, None)
        check_out(out, picture=False)
    with exit_on_error(1):
        tables = {
            name: analysis.measure(network.model, smallest) for name, network in opened.items()
        }
        rows = rounded(pd.concat(tables, names=["network"]).reset_index(0))
        write(context, out, rows)
    typer.echo(render(rows, format))


def similarity(
    context: typer.Context,
    networks: NetworksArgument,
    images: ImagesOption,
    count: Annotated[int, typer.Option(help="How many of the images, evenly chosen.", min=4)] = 100,
    cka: Annotated[
        bool, typer.Option("--cka", help="The likeness of layers instead: each with each other.")
    ] = False,
    size: SizeOption = None,
    out: TableOption = None,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """How alike the feature maps of a stage are (FasterNet Fig. 3), and stages are (CKA).

    The mean magnitude, over images and pairs of channels, of the cosine; of the cosine once the
    pixels are shuffled, which is chance; and of the correlation. Twin is the share of channels with
    another one that correlates above 0.9. CKA is the unbiased linear one, 1 for stages that are
    alike up to rotation and scale.

    \b
    Examples:
      paperrepro similarity fasternet_t0=released --images photos
      paperrepro similarity fasternet_t0=released rapidnet_ti=released --images photos --cka
    """
    import pandas as pd

    from ..analysis import similarity as analysis
    from ..analysis.images import sample_images
    from ..files import pick_device
    from ..results import rounded

    with exit_on_error(2):
        opened = open_all(networks, size)
        place = pick_device(device)
        check_out(out, picture=False)
    with exit_on_error(1):
        pairs = {
            name: (network.model.to(place), sample_images(images, network.transform, count))
            for name, network in opened.items()
        }
        if cka:
            rows = analysis.cka_table(pairs)
        else:
            tables = {name: analysis.measure(*pair) for name, pair in pairs.items()}
            rows = pd.concat(tables, names=["network"]).reset_index(0)
        rows = rounded(rows)
        write(context, out, rows)
    typer.echo(render(rows, format))


def approximate(
    context: typer.Context,
    networks: NetworksArgument,
    images: ImagesOption,
    count: Annotated[
        int, typer.Option(help="How many of the images, evenly chosen.", min=10)
    ] = 500,
    steps: Annotated[int, typer.Option(help="Batches of each training.", min=1)] = 1000,
    seeds: Annotated[int, typer.Option(help="Trainings of each pair.", min=1)] = 3,
    size: SizeOption = None,
    out: TableOption = None,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """What can stand in for a regular 3x3 convolution (FasterNet Table 2).

    DWConv, GConv, PConv and none before a PWConv learn what the first 3x3 convolution of stride 1
    of each stage does to its maps. PConv+PWConv and PWConv are solved in closed form too: no
    training comes below that, on the images it was solved for (relative_train). Relative is the
    error as a share of the output's variance.

    \b
    Examples:
      paperrepro approximate cifar_resnet20=cifar10_resnet20-12fca82f.th --images cifar10/test
    """
    import pandas as pd

    from ..analysis.approximation import measure
    from ..analysis.images import sample_images
    from ..files import pick_device
    from ..results import rounded

    with exit_on_error(2):
        opened = open_all(networks, size)
        place = pick_device(device)
        check_out(out, picture=False)
    with exit_on_error(1):
        tables = {
            name: measure(
                network.model.to(place),
                sample_images(images, network.transform, count),
                steps=steps,
                seeds=seeds,
            )
            for name, network in opened.items()
        }
        rows = rounded(pd.concat(tables, names=["network"]).reset_index(0))
        write(context, out, rows)
    typer.echo(render(rows, format))


def erf(
    context: typer.Context,
    networks: NetworksArgument,
    images: ImagesOption,
    count: Annotated[int, typer.Option(help="How many of the images, evenly chosen.", min=1)] = 50,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side to which the images are stretched. Left out: that of a file of ours, else "
            "the paper's 1024.",
            metavar="PIXELS",
            min=32,
            max=16384,
        ),
    ] = None,
    stage: Annotated[str, typer.Option(help="A stage's number, or a module's name.")] = "-1",
    rule: Annotated[
        str, typer.Option(help="released: as the authors' code; or paper: as its equations.")
    ] = "released",
    trained_at: Annotated[
        int | None,
        typer.Option(
            help="Side of the images that the networks were trained on. Taps of large kernels that "
            "met only padding there got no gradient, and count as zero.",
            metavar="PIXELS",
            min=8,
        ),
    ] = None,
    out: OutOption = None,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Effective receptive fields of networks on one scale (RepLKNet Fig. 1 and Table 10).

    What each pixel contributes to the centre of a stage's map. Ratio_20 is the area of the smallest
    centred square with more than 20 % of the contribution scores, over the image's; it depends, by
    the scores' logarithm, on how large gradients are. Centre is the share of the contributions
    themselves in the middle quarter of the image, and does not. Ours are looked at as they are run,
    branches merged, and have random weights unless a file is named.

    \b
    Examples:
      paperrepro erf fasternet_t0=released replknet_31b=released --images photos --out erf.png
      paperrepro erf runs/shapes/model.safetensors --images photos --stage 2
      paperrepro erf runs/*/model.safetensors --images photos --size 256 --trained-at 64
    """
    from ..analysis import erf as analysis
    from ..files import evenly, list_images, pick_device
    from ..results import rounded

    with exit_on_error(2):
        if rule not in analysis.RULES:
            raise ValueError(f"unknown rule {rule!r}; use one of {', '.join(analysis.RULES)}")
        opened = open_all(networks, None)
        sides = {network.input.size if network.saved else 1024 for network in opened.values()}
        if size is None and len(sides) > 1:
            raise ValueError(
                f"the networks were trained on images of {' and '.join(map(str, sorted(sides)))} "
                "pixels; a comparison needs one side: give --size"
            )
        side = size or sides.pop()
        place = pick_device(device)
        check_out(out)
    with exit_on_error(1):
        maps, table = analysis.measure(
            {
                name: (network.model.to(place), network.stretching(side))
                for name, network in opened.items()
            },
            evenly(list_images(images), count),
            stage=stage_number(stage),
            rule=rule,
            trained_at=trained_at,
        )
        table = rounded(table)
        table = table.astype(object).where(table.notna(), None)
        write(context, out, table, lambda: analysis.draw(maps))
    typer.echo(render(table, format))


def stage_number(stage: str) -> int | str:
    """A stage's number, or a module's name."""
    return int(stage) if re.fullmatch(r"-?\d+", stage) else stage


def open_all(names: list[str], size: int | None) -> "dict[str, Network]":
    """The networks by their label."""
    from ..networks import find_network

    return {
        label: find_network(name, size=size)
        for label, name in zip(labels(names), names, strict=True)
    }
