"""Segmentation as a task of the trainer: pictures with maps, mean IoU."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..datasets import Prepared
from ..dense import Segmenter, build_segmenter, save_dense
from ..dense.data import IGNORED, MapData
from ..dense.metrics import blank, confusion, summary
from ..dense.segmenter import enlarge
from ..models.registry import input_of
from .identity import content_digest
from .place import Place
from .recipe import Recipe
from .task import Task

AUXILIARY = 0.4
"""The weight of the auxiliary head's loss."""


class Segmentation(Task):
    """Pictures with maps of classes; a segmenter on a network of ours.

    In training a picture's shorter side becomes the recipe's size times a factor out of
    `data.zoom`; a square of that size is cropped (padded where the picture is smaller; what is
    padded has no class) and mirrored. In validation the shorter side becomes the recipe's size,
    and the answer is enlarged to the map as it is in its file.

    Args:
        recipe, data: what is trained, on what.
        head: of `paperrepro.dense.build_segmenter`.
        weights: of the backbone, to begin with.
        **options: of the head.
    """

    headline = "miou"

    @staticmethod
    def collate(items: list) -> Any:
        return stack_or_list(items)

    def __init__(
        self,
        recipe: Recipe,
        data: MapData,
        head: str = "semantic_fpn",
        *,
        weights: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.recipe, self.data, self.name = recipe, data, data.name
        self.build_it = partial(
            build_segmenter,
            recipe.model,
            head,
            len(data.classes),
            weights=weights,
            config=recipe.config,
            **options,
        )
        self.head, self.options = head, options
        self.train = Prepared(Paired(data.train), for_training(recipe, data), recipe.seed)
        self.val = Prepared(Paired(data.val), for_validation(recipe))

    def build(self) -> Segmenter:
        return self.build_it()

    def objective(self, model: nn.Module, place: Place) -> nn.Module:
        return PixelLoss(model)

    def inspect(self, batch: Any) -> Iterable[str]:
        return (name for names in batch[2] for name in names.split("\n") if name)

    def evaluate(self, model: nn.Module, batches: Iterable, place: Place) -> dict[str, float]:
        matrix = place.sum(score(model, batches, len(self.data.classes), place.device))
        return summary(matrix)

    def save(self, model: nn.Module, path: Path) -> None:
        network = cast(Segmenter, model)
        network.classes = tuple(self.data.classes)
        network.input = replace(input_of(self.recipe.model), size=self.recipe.size)
        save_dense(network, path)

    def parts(self, model: nn.Module) -> list[nn.Module]:
        network = cast(Segmenter, model)
        heads = [part for part in (network.auxiliary, network.head) if part is not None]
        return [nn.ModuleList(heads), network.body]

    def identity(self) -> dict[str, Any]:
        return {
            "network": [self.recipe.model, self.recipe.config, self.head, self.options],
            "classes": list(self.data.classes),
            "images": len(self.data.train),
            "data": content_digest(self.data.train),
        }


class Paired(Dataset):
    """A set whose pictures and maps go through one transform together."""

    def __init__(self, pictures: Any) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[tuple[Any, Any], int]:
        image, map = self.pictures[index]
        return (image, tv_tensors.Mask(map)), 0


def for_training(recipe: Recipe, data: MapData) -> v2.Transform:
    shorter = [round(recipe.size * factor) for factor in data.zoom]
    flip = [v2.RandomHorizontalFlip()] if recipe.flip and data.mirror else []
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomShortestSize(range(shorter[0], shorter[1] + 1), antialias=True),
            v2.RandomCrop(recipe.size, pad_if_needed=True, fill=fill),
            *flip,
            *normalised(recipe),
        ]
    )


def for_validation(recipe: Recipe) -> v2.Transform:
    def resized(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return v2.functional.resize(pair[0], [recipe.size], antialias=True), pair[1]

    return v2.Compose([v2.ToImage(), resized, *normalised(recipe)])


def normalised(recipe: Recipe) -> list[Any]:
    prepared = input_of(recipe.model)
    return [
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(prepared.mean, prepared.std),
        v2.ToPureTensor(),
    ]


def stack_or_list(items: list[tuple[tuple[Tensor, Tensor], int, str]]) -> tuple[Any, Any, list]:
    """Images and maps stacked where they are of one size, as in training, else in lists."""
    images, maps = ([item[0][part] for item in items] for part in (0, 1))
    names = [item[2] for item in items]
    if len({(i.shape, m.shape) for i, m in zip(images, maps, strict=True)}) == 1:
        return torch.stack(images), torch.stack(maps), names
    return images, maps, names


@torch.no_grad()
def score(
    model: nn.Module, batches: Iterable, num_classes: int, device: torch.device | str = "cpu"
) -> Tensor:
    """The confusion matrix of a segmenter in eval mode, at the size of the maps; pictures that
    could not be read do not count."""
    matrix = blank(num_classes)
    for images, maps, names in batches:
        read = [i for i, name in enumerate(names) if not name]
        if isinstance(images, Tensor) and len(read) == len(names):
            groups = [(images, maps)]
        else:
            groups = [(images[i][None], maps[i][None]) for i in read]
        for part, truth in groups:
            scores = model(part.to(device)).float().cpu()
            answers = enlarge(scores, truth).argmax(1)
            matrix += confusion(answers, truth, num_classes)
    return matrix


class PixelLoss(nn.Module):
    """The mean cross entropy of the pixels that have a class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[Tensor, Tensor, Any]) -> Tensor:
        images, maps, _ = batch
        answers = self.model(images)
        if isinstance(answers, tuple):
            scores, auxiliary = answers
            return pixel_loss(scores, maps) + AUXILIARY * pixel_loss(auxiliary, maps)
        return pixel_loss(answers, maps)


def pixel_loss(scores: Tensor, maps: Tensor) -> Tensor:
    """0 where no pixel has a class."""
    maps = maps.long()
    total = F.cross_entropy(scores, maps, ignore_index=IGNORED, reduction="sum")
    return total / (maps != IGNORED).sum().clamp(min=1)
