"""The one place where a data loader is made, and how long its workers live."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..datasets import ShardedSampler
from ..signals import ignore_signals, unheard
from .place import Machine, Place
from .recipe import Recipe


@runtime_checkable
class Stateful(Protocol):
    """A set that knows where it is, and so goes on in the middle of an epoch by itself.

    The trainer calls `set_epoch` before each epoch and, after it, `load_state_dict` where a
    checkpoint says that part of the epoch is done. `samples` counts those of all processes
    together in the current epoch. A checkpoint holds what `state_dict` gives: tensors, numbers,
    strings, and lists and dictionaries of them.
    """

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self, samples: int) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_loader(
    dataset: Dataset,
    batch_size: int,
    machine: Machine,
    device: torch.device,
    *,
    keys: Iterable,
    collate: Callable | None = None,
) -> DataLoader:
    """A loader for as long as the training lasts; every `iter` begins an epoch.

    The workers of a map-style set stay from epoch to epoch: what they need to know of the epoch
    stands in the keys. Those of an iterable set begin anew, since they carry its state.

    Args:
        dataset: map-style, or an `IterableDataset`.
        keys: what a map-style set is asked for, in order.
        collate: makes a batch of a list of items; None stacks tensors.
    """
    workers = machine.workers
    return DataLoader(
        dataset,
        batch_size,
        sampler=None if isinstance(dataset, IterableDataset) else keys,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0 and not isinstance(dataset, IterableDataset),
        prefetch_factor=machine.prefetch if workers else None,
        worker_init_fn=ignore_signals,
    )


def begin(loader: DataLoader) -> Iterator[Any]:
    """An epoch of a loader, whose workers leave signals to this process."""
    with unheard():
        return iter(loader)


def moved(batch: Any, device: torch.device, channels_last: bool = True) -> Any:
    """Every tensor of a batch on the device, images `(N, C, H, W)` in their layout."""
    if isinstance(batch, Tensor):
        if channels_last and batch.dim() == 4:
            return batch.to(device, memory_format=torch.channels_last, non_blocking=True)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: moved(value, device, channels_last) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device, channels_last) for value in batch)
    return batch


class Order:
    """The keys of one process for a part of an epoch; the trainer sets which.

    Args:
        images: the set; where it has a method `order`, as shards have, that is the order.

    Attributes:
        epoch: the epoch that the next iteration is of.
        start, stop: the steps of it.
    """

    def __init__(self, images: Any, recipe: Recipe, place: Place) -> None:
        self.images, self.recipe, self.place = length(images), recipe, place
        self.order = getattr(images, "order", None)
        self.epoch = self.start = self.stop = 0

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        per_step = self.recipe.batch_size // self.place.world
        sampler = ShardedSampler(
            self.images,
            epoch=self.epoch,
            seed=self.recipe.seed,
            repeats=self.recipe.repeats,
            rank=self.place.rank,
            world=self.place.world,
            start=self.start * per_step,
            order=self.order,
        )
        return islice(iter(sampler), (self.stop - self.start) * per_step)


def batches_of(images: int, name: str, recipe: Recipe, place: Place) -> tuple[int, int]:
    """The images of one forward pass of a process, and the steps of an epoch.

    Raises:
        ValueError: the recipe's batch size does not fit the processes or the data.
    """
    local, rest = divmod(recipe.batch_size, place.world * recipe.accumulate)
    if rest or not local:
        raise ValueError(
            f"batch_size {recipe.batch_size} is not a multiple of {place.world} processes x "
            f"{recipe.accumulate} accumulated steps; set another"
        )
    if recipe.batch_size > images:
        raise ValueError(
            f"batch_size {recipe.batch_size} is more than the {images} images of {name}; "
            "set a smaller one"
        )
    return local, images // recipe.batch_size


def length(images: Any) -> int:
    """The number of items of a set, which every set of ours has."""
    return len(images)
