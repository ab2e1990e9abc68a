"""Pictures of the project's own shapes, in which a cue far away decides the class of a shape.

Every picture has four rows. In each lies a shape, and at some distance to its left or right a small
coloured square, the cue. All pixels of the shape belong to the class that the cue's colour tells;
everything else is background. A network whose view from the shape does not reach the cue can find
the shape, and guess its class. At distance 0 the shape itself has the cue's colour.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..seeds import hash64, mix_seed, uniform
from ..shapes import DISTANCES, SHAPES, film, rotate

COLORS = {
    "red": (0.85, 0.2, 0.2),
    "green": (0.2, 0.75, 0.25),
    "blue": (0.25, 0.35, 0.9),
    "yellow": (0.85, 0.8, 0.2),
}
CLASSES = ("background", *COLORS)
COUNTS = (4096, 512)
ROWS, RADIUS, CUE = 4, 8, 3
"""Rows of a picture; the radius of a shape and half the side of a cue, in pixels."""

NUMBERS = 12
"""Random numbers for each row."""


class Scenes(Dataset):
    """Scenes, each of its seed and its number alone.

    Args:
        count: how many there are.
        size: their side in pixels, at least 96.
        distances: between a shape's middle and its cue's, in pixels; each shape draws one of them.
            0 gives the shape itself the colour.

    Raises:
        ValueError: the picture has no place for such a distance.
    """

    def __init__(
        self, count: int, size: int = 96, *, distances: Sequence[int] = (16,), seed: int = 0
    ) -> None:
        widest = size - 2 * RADIUS - 2
        if size < 96 or count < 1:
            raise ValueError(f"{count} scenes of {size} pixels: at least 1 of 96 pixels")
        for distance in distances:
            if not (distance == 0 or RADIUS + CUE < distance <= widest):
                raise ValueError(
                    f"distance {distance} in scenes of {size} pixels: 0, or from "
                    f"{RADIUS + CUE + 1} to {widest}"
                )
        if not distances:
            raise ValueError("distances is empty; give at least one")
        self.count, self.size, self.distances = count, size, tuple(distances)
        self.seed = np.uint64(mix_seed(seed))

    def __len__(self) -> int:
        return self.count

    def content_digest(self) -> str:
        return repr((self.count, self.size, self.distances, int(self.seed)))

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """A picture uint8 `(3, size, size)`, and what is in it: `map` uint8 `(size, size)` of the
        classes; `boxes` `(4, 4)` in pixels, `labels` `(4,)` from 1 and `masks` `(4, size, size)`
        of the shapes; `distances` `(4,)` of their cues."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        seed = hash64(self.seed ^ np.array([index], np.int64).view(np.uint64))
        numbers = uniform(seed, np.arange(ROWS * NUMBERS)).reshape(ROWS, NUMBERS).astype(float)
        size = self.size
        picture = np.full((3, size, size), 0.25 + 0.3 * numbers[0, 0])
        masks, labels, far = [], [], []
        for row in range(ROWS):
            n = numbers[row]
            label = int(n[1] * len(COLORS))
            distance = self.distances[int(n[2] * len(self.distances))]
            x, cue, y = self.places(row, distance, n)
            inside = outline(SHAPES[int(n[3] * len(SHAPES))], x, y, n[4], size)
            color = tuple(COLORS.values())[label]
            gray = 0.7 + 0.25 * n[5]
            paint_over(picture, inside, color if distance == 0 else (gray, gray, gray))
            if distance:
                columns, rows = np.meshgrid(np.arange(size), np.arange(size))
                square = np.maximum(abs(columns + 0.5 - cue), abs(rows + 0.5 - y)) <= CUE
                paint_over(picture, square.astype(float), color)
            masks.append(inside > 0.5)
            labels.append(label + 1)
            far.append(distance)
        picture += film(size)[:size, :size]
        classes = np.zeros((size, size), np.uint8)
        for mask, label in zip(masks, labels, strict=True):
            classes[mask] = label
        found = {
            "map": torch.from_numpy(classes),
            "boxes": torch.tensor([box_of(mask) for mask in masks], dtype=torch.float32),
            "labels": torch.tensor(labels),
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
            "distances": torch.tensor(far),
        }
        return torch.from_numpy((picture.clip(0, 1) * 255).round().astype(np.uint8)), found

    def places(self, row: int, distance: int, n: np.ndarray) -> tuple[float, float, float]:
        """Columns of a shape and of its cue, and their row, in pixels."""
        margin, height = RADIUS + 1, self.size / ROWS
        x = margin + n[6] * (self.size - 2 * margin - distance)
        x, cue = (x, x + distance) if n[7] < 0.5 else (x + distance, x)
        return x, cue, (row + 0.5) * height + (n[8] - 0.5) * (height - 2 * margin)


def outline(shape: str, x: float, y: float, turn: float, size: int) -> np.ndarray:
    """How much of each pixel lies in the shape around (x, y), from 0 to 1."""
    axis = np.arange(size) + 0.5
    u, v = rotate(
        (axis[None, :] - x) / RADIUS, (axis[:, None] - y) / RADIUS, np.asarray(0.6 * turn - 0.3)
    )
    return np.clip(0.5 - DISTANCES[shape](u, v) * RADIUS, 0, 1)


def paint_over(picture: np.ndarray, inside: np.ndarray, color: Sequence[float]) -> None:
    picture += (np.asarray(color)[:, None, None] - picture) * inside


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a mask; right and bottom lie outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
