"""Pictures with a map of classes: folders as others have them, CamVid's archive, and scenes.

A set gives `(image, map)`, the image as PIL's or uint8 `(3, H, W)`, the map uint8 `(H, W)` of class
numbers, 255 where a pixel has none. A map that does not fit its image, or holds other numbers, is
an `UnreadableImage` that names the file; the training then takes the next one, and tells.
"""

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..files import UnreadableImage, open_image
from .scenes import CLASSES, COUNTS, Scenes

IGNORED = 255
CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
ADE20K = 150
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class MapData:
    """What to train a segmenter on, and what to validate it on.

    Attributes:
        classes: the names of the classes, in the order of the numbers in the maps.
        mirror: whether a mirrored picture is as good.
        zoom: the smallest and the largest factor by which pictures are resized in training.
    """

    name: str
    train: Any
    val: Any
    classes: tuple[str, ...]
    mirror: bool = True
    zoom: tuple[float, float] = (0.5, 2.0)


class SceneMaps(Dataset):
    """Scenes with their maps only."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def content_digest(self) -> str:
        return self.scenes.content_digest()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, found = self.scenes[index]
        return image, found["map"]


class Maps(Dataset):
    """Pictures and maps by pairs of names, out of a folder or an archive.

    Args:
        place: a folder, or a zip archive.
        pairs: the names of each picture and its map in it.
        classes: how many there are.
        number: turns the numbers of the files, uint8, into those of the classes and 255.
    """

    def __init__(
        self,
        place: Path,
        pairs: Sequence[tuple[str, str]],
        classes: int,
        number: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> None:
        self.place, self.pairs, self.classes, self.number = place, list(pairs), classes, number
        self.archive: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def content_digest(self) -> str:
        digest = sha256(repr(self.pairs).encode())
        for _, label in self.pairs[:: max(1, len(self.pairs) // 32)]:
            digest.update(self.read(label).getvalue())
        return digest.hexdigest()[:16]

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        picture, label = self.pairs[index]
        image = open_image(self.place / picture) if self.place.is_dir() else self.unpack(picture)
        try:
            found = Image.open(self.read(label))
            numbers = self.number(np.asarray(found))
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"{self.place / label}: {error}") from error
        if numbers.shape != (image.height, image.width):
            raise UnreadableImage(
                f"{self.place / label}: a map of {numbers.shape[::-1]} for a picture of "
                f"{image.size} pixels"
            )
        wrong = numbers[(numbers >= self.classes) & (numbers != IGNORED)]
        if wrong.size:
            raise UnreadableImage(
                f"{self.place / label}: class {wrong.max()}, but there are {self.classes}, "
                f"numbered from 0, and {IGNORED} for none"
            )
        return image, torch.from_numpy(numbers.astype(np.uint8))

    def read(self, name: str) -> io.BytesIO:
        if self.place.is_dir():
            return io.BytesIO((self.place / name).read_bytes())
        if self.archive is None or self.archive[0] != os.getpid():
            self.archive = os.getpid(), zipfile.ZipFile(self.place)
        return io.BytesIO(self.archive[1].read(name))

    def unpack(self, name: str) -> Image.Image:
        try:
            return Image.open(self.read(name)).convert("RGB")
        except (OSError, SyntaxError, zipfile.BadZipFile) as error:
            raise UnreadableImage(f"{self.place / name}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"archive": None}


def load_maps(name: str | os.PathLike[str], *, size: int = 96) -> MapData:
    """The pictures and maps of that name, or in that folder or archive.

    Args:
        name: "scenes" or "scenes:16,32" (see `Scenes`; the distances of the cues); a folder of
            Pascal VOC (`JPEGImages`, `SegmentationClass`, `ImageSets`) or of ADE20K
            (`images/training`, `annotations/training`); or a folder or zip archive with
            `train/images`, `train/labels` and the same under `val` (or `test`), and `classes.txt`,
            a name per line; CamVid's archive needs none.
        size: the side of scenes in pixels.

    Raises:
        ValueError: nothing of these, or a scene's distance that does not fit.
        OSError: pictures without maps, or none at all.
    """
    name = os.fspath(name)
    kind, _, given = name.partition(":")
    if kind == "scenes":
        try:
            distances = tuple(map(int, given.split(","))) if given else (0, 16, 32)
        except ValueError:
            raise ValueError(f"{name!r}: write distances in pixels, such as scenes:16,32") from None
        train, val = (
            SceneMaps(Scenes(count, size, distances=distances, seed=seed))
            for seed, count in enumerate(COUNTS)
        )
        return MapData(name, train, val, CLASSES, zoom=(1.0, 1.0))
    place = Path(name)
    if not place.exists():
        raise ValueError(f"unknown data {name!r}: neither scenes, nor a folder, nor an archive")
    if (place / "SegmentationClass").is_dir():
        return pascal_voc(place)
    if (place / "annotations").is_dir():
        return ade20k(place)
    return images_and_labels(place)


def pascal_voc(place: Path) -> MapData:
    """VOC's folder; its lists say what is trained on. The border, 255, belongs to no class."""

    def listed(part: str) -> Maps:
        names = (place / "ImageSets" / "Segmentation" / f"{part}.txt").read_text().split()
        pairs = [(f"JPEGImages/{n}.jpg", f"SegmentationClass/{n}.png") for n in names]
        return Maps(place, pairs, len(VOC))

    return MapData(str(place), listed("train"), listed("val"), tuple(VOC))


def without_zero(numbers: np.ndarray) -> np.ndarray:
    """ADE20K's numbers: 0, which is anything else, becomes 255, and 1 to 150 become 0 to 149."""
    return np.where(numbers == 0, IGNORED, numbers.astype(np.int16) - 1)


def ade20k(place: Path) -> MapData:
    """ADE20K's folder of 150 classes."""
    names = tuple(f"class {number}" for number in range(1, ADE20K + 1))
    train, val = (
        Maps(
            place,
            pairs_in(place, f"images/{part}/", f"annotations/{part}/"),
            ADE20K,
            without_zero,
        )
        for part in ("training", "validation")
    )
    return MapData(str(place), train, val, names)


def images_and_labels(place: Path) -> MapData:
    """`train/images`, `train/labels` and the same for validation, in a folder or an archive."""
    names = names_in(place)
    held_out = "val" if any(name.startswith("val/") for name in names) else "test"
    if "classes.txt" in names:
        reader = Maps(place, [], 0)
        classes = reader.read("classes.txt").getvalue().decode().split("\n")
        classes = [line.strip() for line in classes if line.strip()]
        number: Callable[[np.ndarray], np.ndarray] = np.asarray
    elif "camvid" in place.name.lower():
        classes, number = CAMVID, camvid_numbers
    else:
        raise ValueError(
            f"{place} does not say its classes: write classes.txt beside train/, a name per line, "
            "in the order of the numbers in the maps"
        )
    train, val = (
        Maps(place, pairs_in(place, f"{part}/images/", f"{part}/labels/"), len(classes), number)
        for part in ("train", held_out)
    )
    return MapData(str(place), train, val, tuple(classes))


def camvid_numbers(numbers: np.ndarray) -> np.ndarray:
    """11, which is unlabelled, becomes 255."""
    return np.where(numbers == len(CAMVID), IGNORED, numbers)


def names_in(place: Path) -> set[str]:
    """The files of a folder or archive, by their names in it."""
    if place.is_dir():
        return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    try:
        with zipfile.ZipFile(place) as archive:
            return {name for name in archive.namelist() if not name.endswith("/")}
    except zipfile.BadZipFile as error:
        raise OSError(f"{place} is no zip archive, or it is cut off: {error}") from error


def pairs_in(place: Path, pictures: str, maps: str) -> list[tuple[str, str]]:
    """Each picture below `pictures` with the map of the same name below `maps`.

    Raises:
        FileNotFoundError: no picture, or one without a map.
    """
    names = names_in(place)
    found = sorted(n for n in names if n.startswith(pictures) and n.lower().endswith(SUFFIXES))
    if not found:
        raise FileNotFoundError(f"{place} has no pictures in {pictures}")
    pairs = []
    for name in found:
        label = maps + name.removeprefix(pictures).rpartition(".")[0] + ".png"
        if label not in names:
            raise FileNotFoundError(f"{place / label} is missing: each picture needs a map")
        pairs.append((name, label))
    return pairs
