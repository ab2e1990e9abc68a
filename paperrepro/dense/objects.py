"""Pictures with objects: COCO's instances, and scenes.

A set gives `(image, target)`: `boxes` `(n, 4)` as left, top, right, bottom in pixels, `labels`
`(n,)` from 1, `masks` `(n, H, W)` uint8 and `image_id`. It also gives itself as `coco()`, the form
in which pycocotools compares.
"""

import io
import json
import os
import re
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..files import open_image
from .scenes import CLASSES, COUNTS, Scenes

Target = dict[str, Tensor]


@dataclass(frozen=True)
class ObjectData:
    """What to train a detector on, and what to validate it on; the first class has label 1."""

    name: str
    train: Any
    val: Any
    classes: tuple[str, ...]
    mirror: bool = True


def pycocotools() -> Any:
    """The library's class of annotations.

    Raises:
        OSError: it is not installed.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise OSError(
            'COCO\'s annotations need pycocotools: pip install "paperrepro[dense]"'
        ) from error
    return COCO


class Objects(Dataset):
    """COCO's pictures and objects.

    An annotation that cannot be right (a box without area or outside its picture, a category that
    is not listed, no outline) is left out and told in `faults`, by file, line and number. Crowds
    are left out of training and known to `coco()`.

    Args:
        folder: of the pictures.
        annotations: the JSON file of instances.

    Raises:
        ValueError: the file is no JSON of instances.
        OSError: it is missing, or pycocotools is.
    """

    def __init__(self, folder: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> None:
        self.folder, self.annotations = Path(folder), Path(annotations)
        try:
            text = self.annotations.read_text(encoding="utf-8")
            content = json.loads(text)
            pictures = {picture["id"]: picture for picture in content["images"]}
            categories = sorted(content["categories"], key=lambda one: one["id"])
            annotated = content["annotations"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{annotations} does not hold instances as COCO writes them: {error!r}"
            ) from error
        self.classes = tuple(one["name"] for one in categories)
        self.label_of = {one["id"]: label for label, one in enumerate(categories, 1)}
        self.faults: list[str] = []
        self.content = content
        found: dict[int, list[dict]] = defaultdict(list)
        kept, lines = [], list[int]()
        for index, one in enumerate(annotated):
            if why := self.fault(one, pictures):
                lines = lines or lines_of(text)
                place = f"{annotations}, line {lines[index]}"
                self.faults.append(f"{place}: annotation {one.get('id')}: {why}")
                continue
            kept.append(one)
            if not one.get("iscrowd"):
                found[one["image_id"]].append(one)
        self.content["annotations"] = kept
        self.found = found
        self.pictures = [pictures[i] for i in sorted(pictures)]

    def fault(self, one: dict, pictures: dict[int, dict]) -> str:
        """What is wrong with an annotation; nothing where it is usable."""
        picture = pictures.get(one.get("image_id", -1))
        if picture is None:
            return f"picture {one.get('image_id')} is not listed"
        if one.get("category_id") not in self.label_of:
            return f"category {one.get('category_id')} is not listed"
        box = one.get("bbox") or []
        if len(box) != 4 or not box[2] > 0 or not box[3] > 0:
            return f"the box {box} has no area"
        left, top, width, height = box
        if left >= picture["width"] or top >= picture["height"] or left + width <= 0:
            return f"the box {box} lies outside of {picture['width']} x {picture['height']} pixels"
        outline = one.get("segmentation")
        if not outline:
            return "it has no outline"
        if isinstance(outline, dict) and outline["size"] != [picture["height"], picture["width"]]:
            return f"a mask of {outline['size']} for {[picture['height'], picture['width']]}"
        return ""

    def __len__(self) -> int:
        return len(self.pictures)

    def content_digest(self) -> str:
        return sha256(self.annotations.read_bytes()).hexdigest()[:16]

    def coco(self) -> Any:
        return indexed(self.content)

    def category_of(self, label: int) -> int:
        """The file's number of a class."""
        return {label: number for number, label in self.label_of.items()}[label]

    def __getitem__(self, index: int) -> tuple[Image.Image, Target]:
        picture = self.pictures[index]
        image = open_image(self.folder / picture["file_name"])
        coco = pycocotools()()
        coco.imgs = {picture["id"]: picture}
        objects = self.found[picture["id"]]
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, image.width)
        boxes[:, 1::2].clamp_(0, image.height)
        masks = [coco.annToMask(one) for one in objects]
        stacked = np.stack(masks) if masks else np.zeros((0, image.height, image.width), np.uint8)
        return image, {
            "boxes": boxes,
            "labels": torch.tensor([self.label_of[one["category_id"]] for one in objects]).long(),
            "masks": torch.from_numpy(stacked),
            "image_id": torch.tensor(picture["id"]),
        }


def lines_of(text: str) -> list[int]:
    """The lines, from 1, on which the annotations of a JSON file begin."""
    decoder = json.JSONDecoder()
    opening = re.search(r'"annotations"\s*:\s*\[', text)
    assert opening is not None
    lines, line, at = list[int](), 1, 0
    begin = opening.end()
    while following := re.compile(r"[\s,]*(?=\{)").match(text, begin):
        line += text.count("\n", at, following.end())
        at = following.end()
        lines.append(line)
        _, begin = decoder.raw_decode(text, at)
    return lines


class SceneObjects(Dataset):
    """Scenes as objects: each shape with the class that its cue tells."""

    classes = CLASSES[1:]

    def __init__(self, scenes: Scenes) -> None:
        self.scenes, self.faults = scenes, list[str]()

    def __len__(self) -> int:
        return len(self.scenes)

    def content_digest(self) -> str:
        return self.scenes.content_digest()

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, found = self.scenes[index]
        target = {key: found[key] for key in ("boxes", "labels", "masks")}
        return image, target | {"image_id": torch.tensor(index)}

    def category_of(self, label: int) -> int:
        return label

    def coco(self) -> Any:
        size = self.scenes.size
        pictures = [{"id": i, "height": size, "width": size} for i in range(len(self))]
        objects: list[dict[str, Any]] = []
        for index in range(len(self)):
            _, target = self[index]
            for box, label, mask in zip(
                target["boxes"], target["labels"], target["masks"], strict=True
            ):
                left, top, right, bottom = box.tolist()
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": index,
                        "category_id": int(label),
                        "bbox": [left, top, right - left, bottom - top],
                        "area": float(mask.sum()),
                        "segmentation": run_lengths(mask),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": i, "name": name} for i, name in enumerate(self.classes, 1)]
        return indexed({"images": pictures, "annotations": objects, "categories": categories})


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """A binary mask `(H, W)` as COCO's compressed run lengths."""
    from pycocotools import mask as coder

    return coder.encode(np.asfortranarray(mask.to(torch.uint8).numpy()))


def indexed(content: dict[str, Any]) -> Any:
    """pycocotools' object of a file's content."""
    coco = pycocotools()()
    coco.dataset = content | {"info": content.get("info", {})}
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def load_objects(name: str | os.PathLike[str], *, size: int = 96) -> ObjectData:
    """The pictures and objects of that name, or in that folder.

    Args:
        name: "scenes" or "scenes:16,32" (see `Scenes`); a folder of COCO with `train2017/`,
            `val2017/` and `annotations/instances_train2017.json` and the like; or one with
            `images/` and one JSON of instances beside it, whose pictures train and validate.
        size: the side of scenes in pixels.

    Raises:
        ValueError: nothing of these, or a file that holds no instances.
        OSError: a file is missing, or pycocotools is.
    """
    name = os.fspath(name)
    kind, _, given = name.partition(":")
    if kind == "scenes":
        distances = tuple(map(int, given.split(","))) if given else (0, 16, 32)
        train, val = (
            SceneObjects(Scenes(count, size, distances=distances, seed=seed))
            for seed, count in enumerate(COUNTS)
        )
        return ObjectData(name, train, val, train.classes)
    place = Path(name)
    if (place / "annotations").is_dir():
        learned, tested = (
            Objects(place / part, place / "annotations" / f"instances_{part}.json")
            for part in ("train2017", "val2017")
        )
        return ObjectData(name, learned, tested, learned.classes)
    files = sorted(place.glob("*.json"))
    if len(files) != 1 or not (place / "images").is_dir():
        raise ValueError(
            f"{name!r} is neither scenes nor a folder of COCO: annotations/, train2017/ and "
            "val2017/, or images/ and one JSON of instances"
        )
    both = Objects(place / "images", files[0])
    return ObjectData(name, both, both, both.classes)
