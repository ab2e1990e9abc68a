"""`paperrepro shape-bias`, `attribute` and the other commands that look inside networks.

A command's module is imported by the command only: some bring other libraries.
"""

import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor, nn
from tqdm import tqdm

from ..benchmark.commands import rounded
from ..console import Format, FormatOption, exit_on_error, plain, render
from ..models import Backbone
from ..reparam import reparameterize
from ..results import check_writable, save_result, surroundings, unwritable
from ..weights import WeightsError, read_checkpoint

NETWORK = "A name that `paperrepro models` lists, a file of weights, or NAME=FILE."
SizeOption = Annotated[
    int | None,
    typer.Option(help="Side of the images; the network's own when left out.", metavar="PIXELS"),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="A picture (.png, .svg, .pdf), with a .json beside it; or the table alone (.csv).",
        metavar="FILE",
    ),
]


def shape_bias(
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
    workers: Annotated[int, typer.Option(help="Processes that load images.", min=0)] = 0,
    out: OutOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Shape bias of networks, and of published decisions (RepLKNet Fig. 5).

    Of the decisions for the shape or the texture of images whose cues are in conflict, the share
    for the shape, with the 95 % interval over other images. Networks of 1000 classes are asked
    about ImageNet's 16 categories and need --images; networks of 16 classes about those or about
    the project's shapes. A table shows all categories together, csv and json each of them.

    \b
    Examples:
      paperrepro shape-bias runs/shapes/model.safetensors --size 64
      paperrepro shape-bias replknet_31b=released --images cue-conflict --out bias.png
      paperrepro shape-bias --decisions raw/caffe --decisions raw/torchvision --out public.csv
    """
    from . import shape_bias as analysis
    from .networks import find_network

    with exit_on_error(2):
        if not networks and not decisions:
            raise ValueError("nothing to measure: name a network, or --decisions FILE")
        found = [find_network(name, size=size) for name in networks or []]
    with exit_on_error(1):
        check_place(out)
        biases = {}
        for path in decisions or []:
            files = sorted(path.glob("*.csv")) if path.is_dir() else path
            biases |= {(path.stem, name): bias for name, bias in analysis.by_subject(files).items()}
        for network in found:
            if images:
                stimuli = analysis.Stimuli(images, network.transform)
            else:
                stimuli = analysis.ShapesInConflict(count, network.transform, size=size or 64)
            biases[images.name if images else "shapes", network.name] = analysis.from_network(
                network.model.to(device()), stimuli, workers=workers, progress=True
            )
        tables = [
            bias.table().round(4).assign(source=source, name=name)
            for (source, name), bias in biases.items()
        ]
        rows = pd.concat(tables)[["source", "name", *tables[0].columns[:-2]]]
        words = ["shape-bias", *(networks or [])]
        words += [word for path in decisions or [] for word in ("--decisions", path)]
        words += ["--images", images] if images else ["--count", count] if networks else []
        words += ["--size", size] if size else []
        write(out, rows, words, lambda: analysis.draw(rows))
    if format in (Format.table, Format.markdown):
        rows = rows[rows["category"] == "all"].drop(columns="category")
    typer.echo(render(rows, format))


def attribute(
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
    format: FormatOption = Format.table,
) -> None:
    """Maps of which pixels speak for a class, each with its score.

    Deletion and insertion are areas from 0 to 1 under the class's probability, while the pixels
    that a map ranks first are replaced, or shown, first: a good map has a low and a high one. The
    last row is a map of random numbers. Delta is what integrated gradients misses of the logit.

    \b
    Examples:
      paperrepro attribute fasternet_t0=released cat.jpg --out cat.png
      paperrepro attribute runs/shapes/model.safetensors star.png --size 64 --method grad-cam
    """
    from . import attribution
    from .images import open_image
    from .networks import find_network

    methods = method or list(attribution.METHODS)
    with exit_on_error(2):
        found = find_network(network, size=size)
        attribution.check_choice("method", methods, attribution.METHODS)
        attribution.check_choice("baseline", [baseline], attribution.BASELINES)
    with exit_on_error(1):
        check_place(out)
        picture = found.crop(open_image(image))
        pixels = found.normalise(picture).to(device())
        model = found.model.to(device())
        where = int(stage) if re.fullmatch(r"-?\d+", stage) else stage
        maps, rows = {}, []
        for name in tqdm(methods, "Attribution", leave=False, disable=None):
            result = attribution.attribute(model, pixels, name, target=target, stage=where)
            target = result.target
            maps[name] = result.map
            rows.append(
                {"method": name, "class": target, "delta": result.delta and round(result.delta, 4)}
            )
        maps["random"] = torch.rand(pixels.shape[1:], generator=torch.manual_seed(0))
        rows.append({"method": "random", "class": target, "delta": None})
        for row, map in zip(rows, maps.values(), strict=True):
            for kind in attribution.KINDS:
                curve = attribution.perturb(model, pixels, map, target, kind, baseline=baseline)
                row[kind] = round(attribution.area(curve), 4)
        table = pd.DataFrame(rows, dtype=object)
        words = ["attribute", network, image, "--target", target, "--stage", stage]
        words += [word for name in method or [] for word in ("--method", name)]
        words += ["--baseline", baseline] + (["--size", size] if size else [])
        titles = {
            "{method}\ndeletion {deletion:.2f}, insertion {insertion:.2f}".format(**row): map
            for row, map in zip(rows, maps.values(), strict=True)
        }
        write(out, table, words, lambda: attribution.draw(picture, titles))
    typer.echo(render(table, format))


def salient(
    networks: Annotated[list[str], typer.Argument(help=NETWORK, metavar="NETWORK...")],
    kernel: Annotated[int, typer.Option(help="The side of the kernels.", metavar="K")] = 3,
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
    from . import salient as analysis

    with exit_on_error(2):
        found = dict(zip(labels(networks), map(conv_weights, networks), strict=True))
    with exit_on_error(1):
        check_place(out)
        tables = {
            name: analysis.measure(weights, kernel, depthwise=depthwise)
            for name, weights in found.items()
        }
        rows = rounded(pd.concat(tables, names=["network"]).reset_index(0))
        words = ["salient", *networks] + (["--kernel", kernel] if kernel != 3 else [])
        words += ["--depthwise"] * depthwise
        write(out, rows, words, lambda: analysis.draw(tables))
    if format in (Format.table, Format.markdown):
        rows = rows.drop(columns="counts")
    typer.echo(render(rows, format))


def conv_weights(name: str) -> dict[str, Tensor]:
    """The convolutions of a network as it is run; or what a file holds that is not ours."""
    from . import salient as analysis
    from .networks import find_network

    if Path(name).is_file():
        try:
            state, metadata = read_checkpoint(Path(name))
        except WeightsError as error:
            raise ValueError(str(error)) from error
        if "paperrepro" not in metadata:
            return analysis.conv_weights(state)
    return analysis.conv_weights(reparameterize(find_network(name).model))


ImagesOption = Annotated[
    Path, typer.Option(help="An image, or a folder of images and folders.", metavar="FILE|FOLDER")
]
TableOption = Annotated[
    Path | None, typer.Option(help="The file for the table (.csv).", metavar="FILE")
]


def similarity(
    networks: Annotated[list[str], typer.Argument(help=NETWORK, metavar="NETWORK...")],
    images: ImagesOption,
    count: Annotated[int, typer.Option(help="How many of the images, evenly chosen.", min=4)] = 100,
    cka: Annotated[
        bool, typer.Option("--cka", help="The likeness of layers instead: each with each other.")
    ] = False,
    size: SizeOption = None,
    out: TableOption = None,
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
    from . import similarity as analysis
    from .recording import record, stage_layers

    with exit_on_error(2):
        found = opened(networks, size)
    with exit_on_error(1):
        check_table(out)
        if cka:
            maps = {}
            for name, each in found.items():
                model = each.model.to(device())
                recorded = record(model, pictures(each, images, count), stage_layers(model))
                maps |= {(name, layer): one for layer, one in recorded.items()}
            matrix = analysis.cka_matrix(maps, maps, unbiased=True).to_numpy()
            rows = pd.DataFrame(
                [
                    [*one, *other, value]
                    for one, values in zip(maps, matrix, strict=True)
                    for other, value in zip(maps, values, strict=True)
                ],
                columns=["network", "layer", "other_network", "other_layer", "cka"],
            )
        else:
            tables = {
                name: analysis.measure(each.model.to(device()), pictures(each, images, count))
                for name, each in found.items()
            }
            rows = pd.concat(tables, names=["network"]).reset_index(0)
        words = ["similarity", *networks, "--images", images, "--count", count]
        words += ["--cka"] * cka + (["--size", size] if size else [])
        rows = rounded(rows)
        write(out, rows, words, None)
    typer.echo(render(rows, format))


def approximate(
    networks: Annotated[list[str], typer.Argument(help=NETWORK, metavar="NETWORK...")],
    images: ImagesOption,
    count: Annotated[
        int, typer.Option(help="How many of the images, evenly chosen.", min=10)
    ] = 500,
    steps: Annotated[int, typer.Option(help="Batches of each training.", min=1)] = 1000,
    seeds: Annotated[int, typer.Option(help="Trainings of each pair.", min=1)] = 3,
    size: SizeOption = None,
    out: TableOption = None,
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
    from .approximation import measure

    with exit_on_error(2):
        found = opened(networks, size)
    with exit_on_error(1):
        check_table(out)
        tables = {
            name: measure(
                each.model.to(device()), pictures(each, images, count), steps=steps, seeds=seeds
            )
            for name, each in found.items()
        }
        rows = rounded(pd.concat(tables, names=["network"]).reset_index(0))
        words = ["approximate", *networks, "--images", images, "--count", count]
        words += ["--steps", steps, "--seeds", seeds] + (["--size", size] if size else [])
        write(out, rows, words, None)
    typer.echo(render(rows, format))


def erf(
    networks: Annotated[list[str], typer.Argument(help=NETWORK, metavar="NETWORK...")],
    images: ImagesOption,
    count: Annotated[int, typer.Option(help="How many of the images, evenly chosen.", min=1)] = 50,
    size: Annotated[
        int, typer.Option(help="Side to which the images are stretched.", metavar="PIXELS")
    ] = 1024,
    stage: Annotated[str, typer.Option(help="A stage's number, or a module's name.")] = "-1",
    rule: Annotated[
        str, typer.Option(help="released: as the authors' code; or paper: as its equations.")
    ] = "released",
    out: OutOption = None,
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
      paperrepro erf runs/shapes/model.safetensors --images photos --size 128 --stage 2
    """
    from . import erf as analysis
    from .images import list_images, load_images

    with exit_on_error(2):
        if rule not in analysis.RULES:
            raise ValueError(f"unknown rule {rule!r}; use one of {', '.join(analysis.RULES)}")
        found = {
            name: (as_run(network.model), network.stretching(size))
            for name, network in opened(networks, None).items()
        }
    with exit_on_error(1):
        check_place(out)
        paths = chosen(list_images(images), count)
        where = int(stage) if re.fullmatch(r"-?\d+", stage) else stage
        maps, rows = {}, []
        for name, (model, transform) in found.items():
            batches = load_images(paths, transform, progress=name)
            each = analysis.image_maps(model.to(device()), batches, stage=where, rule=rule)
            maps[name], skipped = analysis.combine(
                list(each), [str(path) for path in paths], rule=rule
            )
            ratios = analysis.area_ratios(maps[name])
            rows.append(
                {"network": name, "stage": stage, "size": size, "images": len(paths)}
                | {"skipped": len(skipped)}
                | {f"ratio_{100 * threshold:.0f}": ratio for threshold, ratio in ratios.items()}
                | {"centre": analysis.centre_share(maps[name])}
            )
        table = rounded(pd.DataFrame(rows))
        table = table.astype(object).where(table.notna(), None)
        words = ["erf", *networks, "--images", images, "--count", count, "--size", size]
        words += ["--stage", stage] * (stage != "-1") + ["--rule", rule] * (rule != "released")
        write(out, table, words, lambda: analysis.draw(maps))
    typer.echo(render(table, format))


def as_run(model: nn.Module) -> nn.Module:
    """One of ours re-parameterized; another network as it is."""
    return reparameterize(model) if isinstance(model, Backbone) else model


def labels(names: list[str]) -> list[str]:
    """What stands for the networks in a table: NAME of NAME=FILE, unless one comes twice."""
    short = [name.partition("=")[0] for name in names]
    return short if len(set(short)) == len(short) else names


def opened(names: list[str], size: int | None) -> dict:
    """The networks by their label."""
    from .networks import find_network

    return {
        label: find_network(name, size=size)
        for label, name in zip(labels(names), names, strict=True)
    }


def pictures(network, path: Path, count: int) -> Tensor:
    """So many of the images at a path, evenly chosen in their order, as the network takes them."""
    from .images import list_images, load_images

    paths = chosen(list_images(path), count)
    return torch.cat(list(load_images(paths, network.transform, batch=16, progress="Loading")))


def chosen(paths: list[Path], count: int) -> list[Path]:
    """So many of the paths, evenly chosen in their order; all where there are no more."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def check_table(out: Path | None) -> None:
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out {out}: the table's file ends in .csv")
    check_place(out)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_place(out: Path | None) -> None:
    """Raises before a long measurement what would stop its writing afterwards."""
    if out is None:
        return
    if out.suffix not in PICTURES | {".csv"}:
        raise ValueError(
            f"--out {out}: a picture ends in {', '.join(sorted(PICTURES))}, a table in .csv"
        )
    check_writable(out.parent)


PICTURES = {".png", ".svg", ".pdf"}


def write(out: Path | None, table: pd.DataFrame, words: list, draw) -> None:
    """The picture that `draw` makes with the table as JSON beside it, or the table as a result."""
    if out is None:
        return
    command = shlex.join(["paperrepro", *map(str, words)])
    if out.suffix == ".csv":
        save_result(out, table, command=command)
    else:
        buffer = io.BytesIO()
        draw().savefig(buffer, format=out.suffix[1:], bbox_inches="tight")
        rows = [
            {key: plain(value) for key, value in row.items()} for row in table.to_dict("records")
        ]
        told = {"command": command} | surroundings() | {"rows": rows}
        replace(out.with_suffix(".json"), json.dumps(told, indent=2).encode())
        replace(out, buffer.getvalue())
    typer.echo(f"wrote {out}", err=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
