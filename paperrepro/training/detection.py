"""Detection as a task of the trainer: pictures with objects, COCO's average precision."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..datasets import Prepared
from ..dense import build_detector, save_dense
from ..dense.metrics import as_results, coco_scores
from ..dense.objects import ObjectData
from ..models.registry import input_of
from .identity import content_digest
from .loader import moved
from .place import Place
from .recipe import Recipe
from .segmentation import Paired
from .task import Task


class Detection(Task):
    """Pictures with objects; a detector on a network of ours.

    Training mirrors every other picture; the detector itself resizes and normalises.

    Args:
        recipe, data: what is trained, on what.
        head: of `paperrepro.dense.build_detector`.
        weights: of the backbone, to begin with.
        **options: of the head.
    """

    headline = "AP"

    def __init__(
        self,
        recipe: Recipe,
        data: ObjectData,
        head: str = "mask_rcnn",
        *,
        weights: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.recipe, self.data, self.name = recipe, data, data.name
        self.head, self.options = head, options
        self.build_it = partial(
            build_detector,
            recipe.model,
            head,
            len(data.classes),
            weights=weights,
            config=recipe.config,
            **options,
        )
        flip = [v2.RandomHorizontalFlip()] if recipe.flip and data.mirror else []
        pixels = [v2.ToImage(), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, True)]
        self.train = Prepared(PairedObjects(data.train), v2.Compose([*pixels, *flip]), recipe.seed)
        self.val = Prepared(PairedObjects(data.val), v2.Compose(pixels))

    @staticmethod
    def collate(items: list) -> Any:
        """Lists of images and of targets: pictures have their own sizes."""
        images = [item[0][0].as_subclass(Tensor) for item in items]
        targets = [{k: v.as_subclass(Tensor) for k, v in item[0][1].items()} for item in items]
        return images, targets, [item[2] for item in items]

    def build(self) -> nn.Module:
        return self.build_it()

    def objective(self, model: nn.Module, place: Place) -> nn.Module:
        return SummedLosses(model)

    def inspect(self, batch: Any) -> Iterable[str]:
        return (name for names in batch[2] for name in names.split("\n") if name)

    def evaluate(self, model: nn.Module, batches: Iterable, place: Place) -> dict[str, float]:
        mine = detect(model, batches, self.data.val, place)
        found = [one for part in place.gather(mine) for one in part]
        truth = self.data.val.coco()
        scores = coco_scores(truth, found)
        if found and "segmentation" in found[0]:
            masks = coco_scores(truth, found, "segm")
            scores |= {f"mask_{name}": value for name, value in masks.items()}
        return scores

    def save(self, model: nn.Module, path: Path) -> None:
        network: Any = model
        network.classes = tuple(self.data.classes)
        network.input = replace(input_of(self.recipe.model), size=self.recipe.size)
        save_dense(network, path)

    def identity(self) -> dict[str, Any]:
        return {
            "network": [self.recipe.model, self.recipe.config, self.head, self.options],
            "classes": list(self.data.classes),
            "images": len(self.data.train),
            "data": content_digest(self.data.train),
        }


class PairedObjects(Paired):
    """A set whose pictures, boxes and masks go through one transform together."""

    def __getitem__(self, index: int) -> tuple[tuple[Any, dict[str, Any]], int]:
        image, target = self.pictures[index]
        height, width = target["masks"].shape[1:]
        boxes = tv_tensors.BoundingBoxes(
            target["boxes"], format="XYXY", canvas_size=(height, width)
        )
        return (image, target | {"boxes": boxes, "masks": tv_tensors.Mask(target["masks"])}), 0


class SummedLosses(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[list[Tensor], list[dict[str, Tensor]], Any]) -> Tensor:
        images, targets, _ = batch
        return torch.stack(list(self.model(images, targets).values())).sum()


@torch.no_grad()
def detect(model: nn.Module, batches: Iterable, objects: Any, place: Place) -> list[dict[str, Any]]:
    """What a detector in eval mode finds in batches, in COCO's form."""
    found = []
    for images, targets, names in batches:
        answers = model(moved(images, place.device))
        for answer, target, name in zip(answers, targets, names, strict=True):
            if not name:
                found += as_results(answer, int(target["image_id"]), objects)
    return found
