"""What differs between tasks: how a batch becomes a loss, and what tells how good a network is.

The trainer knows epochs, steps, processes, precision and checkpoints, and asks a `Task` for the
rest. `Classification` is the first; detection and segmentation are others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets import Data, LabelledImages, Prepared
from ..models import Backbone
from ..transforms import mixing
from ..weights import create_model, save_model
from .distillation import Answers, load_teacher, loss_of
from .evaluation import score
from .identity import content_digest
from .place import Place
from .preparation import (
    input_for,
    normalisation,
    transform_for_training,
    transform_for_validation,
)
from .recipe import Recipe


class Task(ABC):
    """A task is a class with these attributes and methods; the trainer calls them in this order.

    1. `build` makes the network on the CPU; the global generator is seeded by then.
    2. `objective` wraps it: a module whose `forward(batch)` is the loss, a scalar. The trainer
       moves it, compiles it and spreads it over the processes.
    3. Each step: a batch of `train` goes through `inspect`, to the device, through `augment` and
       into the objective. The global generator is seeded anew for each batch.
    4. After each epoch: `evaluate` over batches of `val`, and `save` where the headline is best.

    Attributes:
        recipe: how it is trained.
        name: what the data are called in messages.
        train: what is trained on, as many items as it has a length. A map-style set is asked for
            the keys `(epoch, index, copy)` of `ShardedSampler` and returns the prepared item, the
            same for the same key. An `IterableDataset` yields the prepared items of this process
            in order; one that is `Stateful` (`paperrepro.training.loader`) goes on in mid-epoch.
        val: the same for validation: a map-style set is asked for `(0, index, 0)`, by each process
            for its share.
        collate: makes a batch of a list of items; None stacks tensors. A batch holds tensors in
            tuples, lists and dictionaries; other values stay as they are.
        headline: the metric that tells which network is better.
        larger_is_better: the direction of the headline.
    """

    recipe: Recipe
    name: str = "the data"
    train: Dataset
    val: Dataset
    collate: Callable[[list], Any] | None = None
    headline: str
    larger_is_better: bool = True

    @abstractmethod
    def build(self) -> nn.Module:
        """The network that is trained, averaged, evaluated and saved, with what it begins with."""

    @abstractmethod
    def objective(self, model: nn.Module, place: Place) -> nn.Module:
        """A module that holds the network, and whose `forward(batch)` is the loss of a batch."""

    def augment(self, batch: Any, epoch: int) -> Any:
        """What is changed in a batch on the device, such as mixing its images."""
        return batch

    def inspect(self, batch: Any) -> Iterable[str]:
        """A look at a batch on the CPU, which may raise a ValueError that says what is wrong.

        Returns:
            The names of what could not be read; they are counted and told.
        """
        return ()

    @abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable, place: Place) -> dict[str, float]:
        """The metrics of a network in eval mode, the headline among them, the same in all
        processes.

        Args:
            batches: this process's part of `val`, on the CPU. The call stands in `torch.no_grad`
                and in the recipe's precision.
            place: sums and gathers what the processes found.
        """

    @abstractmethod
    def save(self, model: nn.Module, path: Path) -> None:
        """Writes the trained network, atomically."""

    def parts(self, model: nn.Module) -> list[nn.Module]:
        """The network from its head to its stem, for `layer_decay`; together all parameters."""
        return [model]

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a resumed run must find as it was, as JSON's values; "data" is a digest of the
        data's content, and every other entry is the network's or the task's."""


class Classification(Task):
    """Images with one label each; a network of ours.

    Args:
        recipe, data: what is trained, on what.
        weights: what to begin with in place of fresh weights: "released", or a file.
        trunk_only: takes all but the classifier from `weights`.

    Raises:
        ValueError: weights that do not fit, or a teacher that cannot be had.
    """

    headline = "top1"

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        *,
        weights: str | Path | None = None,
        trunk_only: bool = False,
    ) -> None:
        self.recipe, self.data, self.name = recipe, data, data.name
        self.weights, self.trunk_only = weights, trunk_only
        self.train = Augmented(data.train, recipe, data.mirror)
        self.val = Prepared(data.val, transform_for_validation(recipe))
        self.normalise = normalisation(recipe)
        self.mix = mixing(len(data.classes), mixup=recipe.mixup, cutmix=recipe.cutmix)

    def build(self) -> Backbone:
        return starting_network(self.recipe, len(self.data.classes), self.weights, self.trunk_only)

    def objective(self, model: nn.Module, place: Place) -> nn.Module:
        teacher = None
        if self.recipe.teacher:
            with place.first_alone():
                teacher = load_teacher(self.recipe.teacher, len(self.data.classes))
            teacher = teacher.to(place.device)
        return LabelLoss(cast(Backbone, model), self.recipe, teacher)

    def augment(self, batch: Any, epoch: int) -> Any:
        images, labels, names = batch
        images = self.normalise.to(images.device)(images)
        if self.mix and (self.recipe.mix_epochs is None or epoch < self.recipe.mix_epochs):
            images, labels = self.mix(images, labels)
        return images, labels, names

    def inspect(self, batch: Any) -> Iterable[str]:
        _, labels, unreadable = batch
        classes = len(self.data.classes)
        if labels.max() >= classes or labels.min() < 0:
            raise ValueError(
                f"the data have the labels {labels.min()} to {labels.max()} and the network "
                f"classes 0 to {classes - 1}; give Data.classes every class"
            )
        return (name for names in unreadable for name in names.split("\n") if name)

    def evaluate(self, model: nn.Module, batches: Iterable, place: Place) -> dict[str, float]:
        found = score(model, batches, place)
        return {"val_loss": found.loss, "top1": found.top1, "top5": found.top5}

    def save(self, model: nn.Module, path: Path) -> None:
        network = cast(Backbone, model)
        network.input, network.classes = input_for(self.recipe), tuple(self.data.classes)
        save_model(network, path)

    def parts(self, model: nn.Module) -> list[nn.Module]:
        network = cast(Backbone, model)
        return [network.head, *reversed(network.stages), network.stem]

    def identity(self) -> dict[str, Any]:
        return {
            "network": [self.recipe.model, self.recipe.config, len(self.data.classes)],
            "classes": list(self.data.classes),
            "images": len(self.data.train),
            "data": content_digest(self.data.train),
        }


class LabelLoss(nn.Module):
    """The loss of a batch of images and labels, with a teacher where there is one."""

    def __init__(self, model: Backbone, recipe: Recipe, teacher: nn.Module | None) -> None:
        super().__init__()
        self.answers, self.recipe = Answers(model), recipe
        self.teacher = (teacher,)  # in a tuple, for it is no part of what is trained

    def forward(self, batch: tuple[Tensor, Tensor, Any]) -> Tensor:
        images, labels, _ = batch
        lesson = None
        if self.teacher[0] is not None:
            with torch.no_grad():
                lesson = self.teacher[0](images)
        return loss_of(self.answers(images), labels, self.recipe, lesson)


class Augmented(Prepared):
    """The training images as pixels, with the augmentation of the epoch in the key."""

    def __init__(self, images: LabelledImages, recipe: Recipe, mirror: bool) -> None:
        super().__init__(images, transform_for_training(recipe, 0, mirror, True), recipe.seed)
        self.recipe, self.mirror = recipe, mirror
        self.stage = recipe.stage(0)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int, str]:
        if (stage := self.recipe.stage(key[0])) != self.stage:
            self.transform = transform_for_training(self.recipe, key[0], self.mirror, True)
            self.stage = stage
        return super().__getitem__(key)


def starting_network(
    recipe: Recipe, num_classes: int, weights: str | Path | None, trunk_only: bool
) -> Backbone:
    """The recipe's network, fresh or with weights, which may have been trained with other drop
    rates than the recipe's."""
    model = create_model(
        recipe.model,
        num_classes=num_classes,
        weights=weights,
        trunk_only=trunk_only,
        **recipe.config,
    )
    if model.reparameterized:
        raise ValueError(f"{weights} is re-parameterized; training needs the weights as trained")
    return model
