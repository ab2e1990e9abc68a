"""Pictures that are painted on the fly: sixteen shapes filled with sixteen textures.

>>> image, label = Shapes(16)[0]
>>> image.shape, SHAPES[label]
(torch.Size([3, 64, 64]), 'square')
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .seeds import hash64, mix_seed, uniform

Array: TypeAlias = np.ndarray[Any, Any]

SHAPES = (
    "disc square triangle star cross ring heart crescent "
    "bar frame arrow flower dumbbell tee dome hourglass"
).split()
TEXTURES = (
    "plain horizontal vertical diagonal checkers diamonds dots grid "
    "hatch waves zigzag bricks rings rays noise blotches"
).split()
LOT = 25
"""Place of the random number by which "turns" chooses; those before it paint the picture."""

BLOCK = 64
"""How many shapes are painted at once, which is faster than one by one."""
KEPT = 200_000_000
"""Bytes of painted shapes that are kept from epoch to epoch; all shapes of 64 pixels are half."""

CUES = ("both", "shape", "texture", "turns", "conflict")


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
