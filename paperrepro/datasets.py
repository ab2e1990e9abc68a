"""Data to train on: a name or a path to two sets of images, and how processes share them.

    >>> data = load_data("shapes", size=64)
    >>> image, label = data.train[0]
    >>> image.shape, data.classes[label]
    (torch.Size([3, 64, 64]), 'square')

A set gives `(image, label)`, the image a uint8 tensor `(3, H, W)` or a PIL image. `ShardedSampler`
orders it, `Prepared` transforms it. What is random about an image follows from the seed, the epoch
and the image alone: neither the number of processes nor an interruption changes it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets as torchvision_datasets

from .files import (
    UnreadableImage,
    labelled_images,
    locked,
    open_image,
    read_image,
    split_folder,
)
from .registry import REGISTRY, remedy
from .seeds import mix_seed
from .shapes import SHAPES, Shapes
from .shards import Shards, is_shards

Array: TypeAlias = np.ndarray[Any, Any]

COUNTS = (8192, 2048)
"""How many shapes there are to train on, and to validate on."""

PAINTED = {"shapes": "both", "cues": "turns"}
"""The data that are painted on the fly, and which cue tells their labels."""

DOWNLOADS = {
    "cifar10": (torchvision_datasets.CIFAR10, "cifar-10-batches-py"),
    "fashion-mnist": (torchvision_datasets.FashionMNIST, "FashionMNIST"),
}
NAMES = ("shapes", "cues", "digits", *DOWNLOADS)


class LabelledImages(Protocol):
    """A set of images: `(image, label)` by number, the image uint8 `(3, H, W)` or PIL's."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...


@dataclass(frozen=True)
class Data:
    """What to train on and what to validate on.

    Attributes:
        name: what `load_data` was asked for.
        classes: the names of the classes, in the order of the labels.
        mirror: whether a mirrored image still belongs to its class.
    """

    name: str
    train: LabelledImages
    val: LabelledImages
    classes: tuple[str, ...]
    mirror: bool = True


def load_data(
    name: str | os.PathLike,
    *,
    root: str | os.PathLike = "data",
    download: bool = False,
    size: int = 64,
) -> Data:
    """The training and the validation set of that name, or in that folder.

    Args:
        name: "shapes" (see `Shapes`); "cues", the same with shape and texture telling the class in
            turns; "digits" (scikit-learn's 1,797 digits of 8 x 8 pixels);
            "cifar10" or "fashion-mnist" (torchvision's); or a folder: with `train/` and `val/` (or
            `test/`) of one folder of images per class, such as ImageNet's, or with the classes'
            folders alone, of which every tenth image then validates; or shards that
            `paperrepro.shards.pack` wrote, in a folder or at an address (`s3://`, `https://`).
        root: where the named sets are found, and downloaded to.
        download: fetches a named set that is not there.
        size: the side of the shapes' images in pixels.

    Raises:
        ValueError: unknown name, or fewer than two classes.
        OSError: an empty folder, a set that is not there or not whole.
    """
    name = os.fspath(name)
    if name in PAINTED:
        train, val = (Shapes(n, size, seed=i, cue=PAINTED[name]) for i, n in enumerate(COUNTS))
        return Data(name, train, val, tuple(SHAPES))
    if name == "digits":
        return digits()
    if name in DOWNLOADS:
        return from_torchvision(name, Path(root), download)
    if is_shards(name):
        return from_shards(name)
    if Path(name).is_dir():
        return from_folder(Path(name))
    for known, entry in REGISTRY.items():
        if name in entry.names and entry.use:
            raise FileNotFoundError(f"{name} is not in this folder: {remedy(known)}")
    raise ValueError(f"unknown data {name!r}: it is neither a folder nor one of {', '.join(NAMES)}")


def digits() -> Data:
    """scikit-learn's handwritten digits; every fifth validates."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise OSError(
            'the digits come with scikit-learn: pip install "paperrepro[book]"'
        ) from error
    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).mul(255 / 16).round().to(torch.uint8)
    pixels = pixels.reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(labels)
    validates = torch.arange(len(labels)) % 5 == 0
    train, val = (Images(pixels[part], labels[part]) for part in (~validates, validates))
    return Data("digits", train, val, tuple("0123456789"), mirror=False)


def from_torchvision(name: str, root: Path, download: bool) -> Data:
    """A set that torchvision knows; its checksums tell a download that was interrupted."""
    make, folder = DOWNLOADS[name]
    try:
        # Of several processes the first one downloads, and the others find it there.
        with locked(root / ".download.lock", wait=True) if download else nullcontext():
            train: Any = make(root, train=True, download=download)
        val: Any = make(root, train=False, download=download)
    except (OSError, RuntimeError, ValueError, EOFError, AssertionError) as error:
        remedy = (
            f"try again, and if that does not help, delete {root / folder} first"
            if download
            else "name the folder that holds it (--root), or have it downloaded there (--download)"
        )
        if name in REGISTRY:
            remedy += f"; `paperrepro data sources {name}` says more of it"
        reason = " ".join(str(error).split())
        raise OSError(f"{name} is not in {root}, or not whole ({reason}): {remedy}") from error
    return Data(name, train, val, tuple(train.classes))


def from_folder(folder: Path) -> Data:
    """A folder of classes, or two of them: `train/` and `val/` or `test/`."""
    classes, train, val = split_folder(folder)
    learned, tested = Files(folder, train), Files(folder, val, open_image)
    return Data(str(folder), learned, tested, tuple(classes))


def from_shards(place: str) -> Data:
    """What `paperrepro.shards.pack` wrote, in a folder or at an address."""
    train, val = Shards(place, "train"), Shards(place, "val", open_image)
    return Data(place, train, val, tuple(train.classes))


class Files(Dataset):
    """Images in files: `(image, label)`.

    Args:
        root: the folder that they lie in.
        samples: the path and the label of each.
        read: what a file goes through. `read_image` gives uint8 tensors, which training takes as
            they are cropped fastest; `open_image` PIL's images, whose resize the released networks
            were evaluated with.

    Raises:
        UnreadableImage: on access, for a file that is damaged or cut off.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        samples: Sequence[tuple[str, int]],
        read: Callable[[str], Any] = read_image,
    ) -> None:
        self.root, self.samples, self.read = root, samples, read

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        return self.read(path), label


class Folder(Files):
    """A folder of images per class: `Files` with `classes`, the folders' names."""

    def __init__(self, folder: str | os.PathLike, read: Callable[[str], Any] = read_image) -> None:
        self.classes, samples = labelled_images(folder)
        super().__init__(folder, samples, read)


class Images(Dataset):
    """Images in memory: uint8 `(N, 3, H, W)` with labels `(N,)`."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


class Kept(Dataset):
    """A set whose images are read once and then stay in memory.

    Args:
        images: the set; its labels are kept too.
        megabytes: of pixels at most; what comes when they are full is read every time.
    """

    def __init__(self, images: LabelledImages, megabytes: float = 500) -> None:
        self.images, self.left = images, megabytes * 1e6
        self.kept: dict[int, tuple[Tensor, int]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        found = self.kept.get(index)
        if found is None:
            found = self.images[index]
            if isinstance(found[0], Tensor) and found[0].nbytes <= self.left:
                self.left -= found[0].nbytes
                self.kept[index] = found
        return found


class ShardedSampler:
    """The order of one epoch, shared among processes, with repeated augmentation.

    Every epoch draws as many images as there are, each `repeats` times in a row. So with three
    repeats a third of the images are seen (Hoffer et al., 2020; DeiT's sampler does the same).
    Process r takes every `world`-th entry from the r-th on: together the processes' batches are the
    batch of one process, and the copies of an image lie on different processes.

    Args:
        length: how many images there are.
        repeats: copies of each image, which are augmented differently.
        start: entries of this process to leave out, for an epoch that was interrupted.
        order: gives the order of all images by a generator, as `Shards.order` does; a permutation
            when None.

    Yields:
        `(epoch, index, copy)`, the key by which `Prepared` makes an image.
    """

    def __init__(
        self,
        length: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        repeats: int = 1,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        order: Callable[[torch.Generator], Tensor] | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
        images = order(generator) if order else torch.randperm(length, generator=generator)
        images = images.repeat_interleave(repeats)[:length]
        copies = torch.arange(length) % repeats
        mine = slice(rank + start * world, None, world)
        self.keys = [
            (epoch, index, copy)
            for index, copy in zip(images[mine].tolist(), copies[mine].tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(self.keys)


class Prepared(Dataset):
    """A set with its transform, whose random numbers follow from the seed and the key.

    An unreadable image is replaced by the next readable one and named, for the caller to count.

    Returns, per key of `ShardedSampler`:
        The transformed image, the label, and the name of what could not be read, or "".
    """

    def __init__(self, images: LabelledImages, transform: Callable, seed: int = 0) -> None:
        self.images, self.transform, self.seed = images, transform, seed
        self.order = getattr(images, "order", None)  # of shards

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int, str]:
        _, index, _ = key
        unreadable = []
        for step in range(len(self)):
            try:
                image, label = self.images[(index + step) % len(self)]
                break
            except UnreadableImage as error:
                unreadable.append(str(error))
        else:
            raise UnreadableImage(
                f"not one of {len(self)} images is readable: {unreadable[0]}, ..."
            )
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(mix_seed(self.seed, *key))
        try:
            return self.transform(image), label, "\n".join(unreadable)
        finally:
            torch.set_rng_state(state)
