"""Segmentation and detection on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Format, exit_on_error, render

if TYPE_CHECKING:
    from ..training.recipe import Recipe

TASKS = ("classify", "segment", "detect")


def make_task(task: str, head: str | None, recipe: "Recipe", data: str, weights: str | None) -> Any:
    """The trainer's task by its name, with the data of that name or place.

    Raises:
        ValueError: unknown task, head or data.
        OSError: data that are not there or not whole.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if task == "segment":
        from ..dense.data import load_maps
        from ..training.segmentation import Segmentation

        maps = load_maps(data, size=recipe.size)
        return Segmentation(recipe, maps, head or "semantic_fpn", weights=weights)
    from ..dense.objects import load_objects
    from ..training.detection import Detection

    objects = load_objects(data, size=recipe.size)
    for fault in [*objects.train.faults, *objects.val.faults]:
        typer.echo(f"left out: {fault}", err=True)
    options = {} if head == "ssdlite" else {"min_size": recipe.size}
    if head == "ssdlite":
        options = {"size": recipe.size}
    return Detection(recipe, objects, head or "mask_rcnn", weights=weights, **options)


def is_dense(weights: str) -> bool:
    """Whether a file holds a detector or segmenter."""
    from ..weights import WeightsError, read_checkpoint

    if not Path(weights).is_file():
        return False
    try:
        return "paperrepro_dense" in read_checkpoint(Path(weights))[1]
    except WeightsError:
        return False


def evaluate_dense(
    weights: str, data: str, size: int | None, workers: int, device: str | None, format: Format
) -> None:
    """Prints the metrics of a saved detector or segmenter on a set's validation pictures."""
    import pandas as pd

    from ..dense import load_dense
    from ..files import pick_device
    from ..reparam import reparameterize
    from ..training.loader import make_loader
    from ..training.place import Machine, Place
    from ..training.recipe import find_recipe, override

    with exit_on_error(1):
        model = load_dense(weights)
        plan = model.blueprint
        small = find_recipe(plan.backbone, "small")
        recipe = override(small, [f"size={size or model.input.size}"])
        task = make_task(plan.task, plan.head, recipe, data, None)
        place = Place(0, 1, pick_device(device))
        rows = []
        for form, network in (("as trained", model), ("re-parameterized", reparameterize(model))):
            keys = [(0, index, 0) for index in range(len(task.val))]
            loader = make_loader(
                task.val,
                8,
                Machine(workers=workers),
                place.device,
                keys=keys,
                collate=task.collate,
            )
            network = network.to(place.device).eval()
            import torch

            with torch.no_grad():
                rows.append({"form": form} | task.evaluate(network, loader, place))
        typer.echo(render(pd.DataFrame(rows), format))


def predict(
    image: Annotated[Path, typer.Argument(help="A picture.", metavar="IMAGE")],
    weights: Annotated[
        Path, typer.Option(help="A detector or segmenter that was trained.", metavar="FILE")
    ],
    out: Annotated[Path, typer.Option(help="The picture that is written.", metavar="FILE")],
    size: Annotated[
        int | None,
        typer.Option(help="To which a segmenter's shorter side is resized.", min=32),
    ] = None,
    least: Annotated[
        float, typer.Option(help="The score from which on a box is drawn.", min=0, max=1)
    ] = 0.5,
) -> None:
    """Draw boxes, masks or a map of classes over a photograph.

    \b
    Examples:
      paperrepro train rapidnet_ti --task segment --data scenes --recipe small --set size=96 --out s
      paperrepro predict photo.jpg --weights s/model.safetensors --out photo.png
    """
    from ..dense import load_dense
    from ..dense.predict import drawn
    from ..dense.predict import predict as answer_to
    from ..files import open_image, replacing

    with exit_on_error(1):
        model = load_dense(weights)
        picture = open_image(image)
        answer = answer_to(model, picture, size=size)
        with replacing(out) as partial:
            drawn(picture, answer, model.classes, least=least).save(partial, format="PNG")
        found = len(answer["map"].unique()) if "map" in answer else sum(answer["scores"] >= least)
        what = "classes" if "map" in answer else "objects"
        typer.echo(f"{int(found)} {what}: {out}")
