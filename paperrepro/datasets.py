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
from functools import cache
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
from .shards import Shards, is_shards

Array: TypeAlias = np.ndarray[Any, Any]

SHAPES = (
    "disc square triangle star cross ring heart crescent "
    "bar frame arrow flower dumbbell tee dome hourglass"
).split()
TEXTURES = (
    "plain horizontal vertical diagonal checkers diamonds dots grid "
    "hatch waves zigzag bricks rings rays noise blotches"
).split()
COUNTS = (8192, 2048)
"""How many shapes there are to train on, and to validate on."""

LOT = 25
"""Place of the random number by which "turns" chooses; those before it paint the picture."""

BLOCK = 64
"""How many shapes are painted at once, which is faster than one by one."""
KEPT = 200_000_000
"""Bytes of painted shapes that are kept from epoch to epoch; all shapes of 64 pixels are half."""

CUES = ("both", "shape", "texture", "turns", "conflict")
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


# Numbers that look random and follow from a position: SplitMix64 (Steele et al., 2014), which
# needs no state, so that any image can be made alone, and many at once.


def hash64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's scrambling of uint64 numbers, element by element."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix_seed(*parts: int) -> int:
    """One seed of 63 bits out of several numbers, different for different ones: `hash64` of each
    in turn, in Python's numbers, which are faster than arrays of one."""
    whole = (1 << 64) - 1
    state = 0
    for part in parts:
        x = (state ^ part) + 0x9E3779B97F4A7C15 & whole
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ x >> 27) * 0x94D049BB133111EB & whole
        state = x ^ x >> 31
    return state >> 1


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1) per seed and position; both are broadcast."""
    bits = hash64(seeds ^ hash64(positions.astype(np.int64).view(np.uint64)))
    return (bits >> np.uint64(40)).astype(np.float32) / (1 << 24)


class Shapes(Dataset):
    """Sixteen shapes filled with sixteen textures, made on the fly: cue conflict at a small scale.

    Size, place, tilt, colours and the texture's phase are random; an image follows from the seed
    and its index, and stays in memory once it is painted. Shapes and textures have classes from 0
    to 15, and every texture can fill every shape. A mirrored image stays in its class.

    Args:
        count: how many images there are.
        size: their side in pixels.
        cue: "both" for shape and texture of one class; "shape" or "texture" for a label that only
            this cue tells, the other being random; "turns" for a label that the one or the other
            tells, half of the images each, and nothing says which; "conflict" for two cues that
            never agree, after Geirhos et al. (2019), labelled by the shape.
    """

    def __init__(self, count: int, size: int = 64, *, seed: int = 0, cue: str = "both") -> None:
        if cue not in CUES:
            raise ValueError(f"unknown cue {cue!r}: choose one of {', '.join(CUES)}")
        if count < 1 or size < 8:
            raise ValueError(f"{count} shapes of {size} pixels: at least 1 of 8 pixels")
        self.count, self.size, self.cue = count, size, cue
        self.seed = np.uint64(mix_seed(seed))
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.count:
            raise IndexError(f"image {index} of {self.count}")
        block, place = divmod(index, BLOCK)
        if block not in self.kept:
            images, shapes, textures = self.draw(
                range(block * BLOCK, min(self.count, (block + 1) * BLOCK))
            )
            if len(self.kept) * images.numel() >= KEPT:
                self.kept.clear()
            indices = range(block * BLOCK, block * BLOCK + len(images))
            by_texture = torch.from_numpy(self.told_by_texture(indices))
            self.kept[block] = images, torch.where(by_texture, textures, shapes)
        images, labels = self.kept[block]
        return images[place], int(labels[place])

    def seeds(self, indices: Sequence[int]) -> Array:
        return hash64(self.seed ^ np.asarray(indices, np.int64).view(np.uint64))

    def told_by_texture(self, indices: Sequence[int]) -> Array:
        """Of which images the texture tells the label; booleans `(N,)`."""
        if self.cue == "turns":
            return uniform(self.seeds(indices)[:, None], np.array([LOT]))[:, 0] < 0.5
        return np.full(len(indices), self.cue == "texture")

    def draw(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Images uint8 `(N, 3, size, size)`, the classes of their shapes and of their textures."""
        seeds = self.seeds(indices)
        numbers = uniform(seeds[:, None], np.arange(25))
        shapes = (numbers[:, 0] * 16).astype(int)
        others = (numbers[:, 1] * 16).astype(int)
        textures = {
            "both": shapes,
            "shape": others,
            "texture": others,
            "turns": others,
            "conflict": (shapes + 1 + (numbers[:, 1] * 15).astype(int)) % 16,
        }[self.cue]
        images = paint(shapes, textures, numbers[:, 2:], seeds, self.size)
        return torch.from_numpy(images), torch.from_numpy(shapes), torch.from_numpy(textures)


def paint(
    shapes: np.ndarray, textures: np.ndarray, numbers: np.ndarray, seeds: np.ndarray, size: int
) -> np.ndarray:
    """Images `(N, 3, size, size)` of the shapes with the textures; 23 random numbers for each."""

    def between(column: int, low: float, high: float) -> np.ndarray:
        return (low + (high - low) * numbers[:, column])[:, None, None]

    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x = axis[None, None, :] - between(0, -0.15, 0.15)
    y = axis[None, :, None] - between(1, -0.15, 0.15)
    x = x * np.where(between(2, -1, 1) < 0, -1, 1)
    radius = between(3, 0.62, 0.85)
    inside = np.empty((len(shapes), size, size), np.float32)
    pattern = np.empty_like(inside)
    turned = [axis / radius for axis in rotate(x, y, between(4, -0.3, 0.3))]
    for kind in np.unique(shapes):
        of = shapes == kind
        distance = DISTANCES[SHAPES[kind]](*(axis[of] for axis in turned)) * radius[of]
        inside[of] = np.clip(0.5 - distance * (size / 2), 0, 1)
    # Textures in units of their period, about a seventh of the image; they turn less than shapes.
    period = between(5, 0.24, 0.32)
    u, v = rotate(x, y, between(6, -0.12, 0.12))
    u, v = u / period + between(7, 0, 1), v / period + between(8, 0, 1)
    for kind in np.unique(textures):
        of = textures == kind
        pattern[of] = PATTERNS[TEXTURES[kind]](u[of], v[of], seeds[of, None, None])
    # Three levels of lightness, one for the background and two for the texture, in any order.
    levels = np.argsort(numbers[:, 9:12], axis=1).astype(np.float32) * 0.36 + 0.1
    colors = levels[:, :, None] + (numbers[:, 12:21].reshape(-1, 3, 3) - 0.5) * 0.26
    background, first, second = (colors[:, i, :, None, None] for i in range(3))
    texture = first + (second - first) * pattern[:, None]
    image = background + (texture - background) * inside[:, None]
    corners = (numbers[:, 21:23] * size).astype(int)
    grain = np.stack([film(size)[y : y + size, x : x + size] for y, x in corners])
    image += grain[:, None]
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


@cache
def film(size: int) -> np.ndarray:
    """Grain of +-0.05, of twice the size: an image takes any part of it."""
    side = 2 * size
    return (uniform(np.zeros(1, np.uint64), np.arange(side * side)).reshape(side, side) - 0.5) / 10


def rotate(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sin, cos = np.sin(angle), np.cos(angle)
    return cos * x - sin * y, sin * x + cos * y


# Shapes: the distance from the outline, negative inside, of points in the unit disc; y grows
# downwards.


def box(
    x: Array, y: Array, width: float, height: float, left: float = 0.0, top: float = 0.0
) -> Array:
    return np.maximum(np.abs(x - left) - width, np.abs(y - top) - height)


def disc(x: Array, y: Array, radius: float = 1.0, left: float = 0.0, top: float = 0.0) -> Array:
    return np.hypot(x - left, y - top) - radius


def petals(x: Array, y: Array, count: int, mean: float, depth: float) -> Array:
    return np.hypot(x, y) - mean - depth * np.cos(count * np.arctan2(x, -y))


def star(x: Array, y: Array) -> Array:
    """Five tips: an edge, from a tip to the notch beside it, folded round ten times."""
    angle = np.abs((np.arctan2(x, -y) / (0.4 * np.pi) + 0.5) % 1 - 0.5) * (0.4 * np.pi)
    radius = np.hypot(x, y)
    return (radius * np.cos(angle) - 1) * 0.54 + radius * np.sin(angle) * 0.84


def heart(x: Array, y: Array) -> Array:
    x, y = np.abs(x), -y
    lobes = np.minimum(disc(x, y, 0.5, 0.45, 0.35), disc(x, y, 0.3, 0, 0.2))
    return np.minimum(lobes, np.maximum((x - y * 0.95 - 0.83) * 0.72, y - 0.35))


def arrow(x: Array, y: Array) -> Array:
    head = np.maximum((np.abs(x) - 0.95 * (y + 1)) * 0.72, y)
    return np.minimum(head, box(x, y, 0.28, 0.5, top=0.45))


DISTANCES: dict[str, Callable] = {
    "disc": lambda x, y: disc(x, y, 0.9),
    "square": lambda x, y: box(x, y, 0.8, 0.8),
    "triangle": lambda x, y: np.maximum((np.abs(x) * 1.8 - y - 0.95) * 0.49, y - 0.75),
    "star": star,
    "cross": lambda x, y: np.minimum(box(x, y, 0.95, 0.3), box(x, y, 0.3, 0.95)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) - 0.26,
    "heart": heart,
    "crescent": lambda x, y: np.maximum(disc(x, y, 0.95), 0.72 - np.hypot(x - 0.45, y)),
    "bar": lambda x, y: box(x, y, 1.0, 0.33),
    "frame": lambda x, y: np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.63) - 0.22,
    "arrow": arrow,
    "flower": lambda x, y: petals(x, y, 6, 0.7, 0.24),
    "dumbbell": lambda x, y: np.minimum(disc(np.abs(x), y, 0.42, 0.56), box(x, y, 0.6, 0.16)),
    "tee": lambda x, y: np.minimum(
        box(x, y, 0.85, 0.26, top=-0.6), box(x, y, 0.26, 0.85, top=0.05)
    ),
    "dome": lambda x, y: np.maximum(disc(x, y, 0.98, top=0.4), y - 0.4),
    "hourglass": lambda x, y: np.maximum((np.abs(x) - np.abs(y) - 0.1) * 0.71, np.abs(y) - 0.8),
}


# Textures: from 0 to 1, of coordinates in units of the period.


def wave(phase: Array) -> Array:
    """A square wave of period 1 with slightly soft edges."""
    return np.clip(0.5 + 1.6 * np.sin(2 * np.pi * phase), 0, 1)


def lines(phase: Array) -> Array:
    """A line of a third of the period."""
    return np.clip(0.5 + 8 * (np.abs((phase % 1) - 0.5) - 0.33), 0, 1)


def tile(u: Array, v: Array, side: float = 2.0) -> tuple[Array, Array]:
    """Coordinates from the middle of square tiles."""
    return u % side - side / 2, v % side - side / 2


def dots(u: Array, v: Array, _: Array) -> Array:
    return np.clip(0.5 + 6 * (0.33 - np.hypot(*tile(u, v, 1.0))), 0, 1)


def bricks(u: Array, v: Array, _: Array) -> Array:
    return np.maximum(lines(v), lines(u / 2 + 0.5 * (np.floor(v) % 2)) * (v % 1 > 0))


def noise(u: Array, v: Array, seeds: Array) -> Array:
    """Square blocks of a third of the period, each at random light or dark."""
    blocks = np.floor(3 * u).astype(np.int64) * 65536 + np.floor(3 * v).astype(np.int64)
    return (uniform(seeds, blocks) > 0.5).astype(np.float32)


def blotches(u: Array, v: Array, seeds: Array) -> Array:
    """The sign of a sum of four waves in random directions."""
    total = np.zeros_like(u)
    for i in range(4):
        angle, phase = (uniform(seeds, np.array([-1 - 2 * i - j])) for j in range(2))
        direction = np.pi * (i + angle) / 4
        total += np.sin(3.6 * (np.cos(direction) * u + np.sin(direction) * v) + 2 * np.pi * phase)
    return np.clip(0.5 + 2 * total, 0, 1)


PATTERNS: dict[str, Callable] = {
    "plain": lambda u, v, _: np.zeros_like(u),
    "horizontal": lambda u, v, _: wave(v),
    "vertical": lambda u, v, _: wave(u),
    "diagonal": lambda u, v, _: wave((u + v) * 0.71),
    "checkers": lambda u, v, _: np.abs(wave(u * 0.75) - wave(v * 0.75)),
    "diamonds": lambda u, v, _: np.abs(wave((u + v) * 0.53) - wave((u - v) * 0.53)),
    "dots": dots,
    "grid": lambda u, v, _: np.maximum(lines(u), lines(v)),
    "hatch": lambda u, v, _: np.maximum(lines((u + v) * 0.71), lines((u - v) * 0.71)),
    "waves": lambda u, v, _: wave(v + 0.3 * np.sin(2 * np.pi * u * 0.6)),
    "zigzag": lambda u, v, _: wave(v + np.abs((u * 0.6) % 1 - 0.5) * 2),
    "bricks": bricks,
    "rings": lambda u, v, _: wave(2 * np.hypot(*tile(u, v))),
    "rays": lambda u, v, _: wave(np.arctan2(*tile(u, v)) * 8 / (2 * np.pi)),
    "noise": noise,
    "blotches": blotches,
}
