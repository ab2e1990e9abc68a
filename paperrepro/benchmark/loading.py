"""Images per second and core, from JPEG files to normalised batches: ours, torchvision's, timm's.

Each reads the same folder in one process, shuffled, in batches of 64, with the same augmentation as
far as the library has it: torchvision's `ImageFolder` with its v2 transforms on PIL images, as its
documentation shows them, and timm's `create_loader`. The processor is the device: the normalisation
that ours and timm's do there is part of what is timed. Time is the processor's.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from ..datasets import Folder, Prepared, ShardedSampler
from ..files import open_image
from ..transforms import Normalise, RandAugment, training_transform
from .latency import compare

SIZE = 224
BATCH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATIONS: dict[str, dict[str, float]] = {
    "crop, flip": {},
    "crop, flip, RandAugment": {"rand_augment": 9},
    "crop, flip, RandAugment, erasing": {"rand_augment": 9, "erasing": 0.25},
}
"""Those of MobileOne without AutoAugment, of FasterNet, and of RapidNet and MobileViGv2."""


def run(
    *,
    images: Path | None = None,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Time one pass over 64 images of every loader, interleaved.

    Args:
        images: a folder of folders of images; parts of scikit-learn's two photographs, 500 x 375
            pixels as ImageNet's are on average, when None.

    Returns:
        A row per augmentation: images per second and core of `ours`, of `pil` (ours with PIL's
        decoder in place of torchcodec's), `torchvision` and `timm`; the times by which ours is
        faster; the widest spread and the null comparison.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = images or photographs(Path(folder))
        rows = []
        for name, augmentation in list(AUGMENTATIONS.items())[: 1 if quick else None]:
            loaders = {
                "ours": ours(place, augmentation),
                "pil": ours(place, augmentation, through_pil),
                "torchvision": torchvisions(place, augmentation),
                "timm": timms(place, augmentation),
            }
            comparison = compare(
                loaders,
                rounds=3 if quick else 15,
                threads=threads,
                progress=name if progress else None,
                clock=time.process_time,
            )
            count = loaders["ours"]()
            rows.append(
                {"augmentation": name}
                | {loader: count / comparison[loader].median for loader in loaders}
                | {
                    "over_torchvision": comparison.speed_up("ours", "torchvision"),
                    "over_timm": comparison.speed_up("ours", "timm"),
                    "spread": max(timing.spread for timing in comparison.timings.values()),
                    "null": comparison.null,
                }
            )
    return pd.DataFrame(rows)


def photographs(folder: Path) -> Path:
    """Sixty-four parts of two photographs in two classes, JPEG of quality 95, about 90 kB each."""
    from sklearn.datasets import load_sample_images

    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir()
        for part in range(32):
            left, top = part % 8 * 20, part // 8 * 17
            picture = Image.fromarray(pixels[top : top + 375, left : left + 500])
            picture.save(folder / name / f"{part}.jpg", quality=95)
    return folder


def through_pil(path: str) -> torch.Tensor:
    return v2.functional.pil_to_tensor(open_image(path))


def pass_over(batches: Callable[[], Iterable[Any]]) -> Callable[[], int]:
    """A function that goes through an epoch and counts its images."""
    return lambda: sum(len(batch[0]) for batch in batches())


def ours(
    folder: Path, augmentation: dict[str, Any], read: Callable[[str], Any] | None = None
) -> Callable[[], int]:
    images = Folder(folder, read) if read else Folder(folder)
    transform = training_transform(SIZE, **augmentation, mean=MEAN, std=STD, pixels=True)
    normalise = Normalise(MEAN, STD)
    loader = DataLoader(
        Prepared(images, transform),
        BATCH,
        sampler=ShardedSampler(len(images)),
    )
    return pass_over(lambda: ((normalise(batch),) for batch, *_ in loader))


def torchvisions(folder: Path, augmentation: dict[str, Any]) -> Callable[[], int]:
    erasing = augmentation.get("erasing", 0)
    magnitude = augmentation.get("rand_augment", 0)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            *([RandAugment(magnitude)] if magnitude else []),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            *([v2.RandomErasing(erasing, value="random")] if erasing else []),
        ]
    )
    loader = DataLoader(ImageFolder(folder, transform), BATCH, shuffle=True)
    return pass_over(lambda: loader)


def timms(folder: Path, augmentation: dict[str, Any]) -> Callable[[], int]:
    """timm's. Its RandAugment has three operations more; its magnitude is fixed, as the largest one
    asks for a posterization that Pillow 13 refuses."""
    from timm.data import create_dataset, create_loader

    magnitude = augmentation.get("rand_augment")
    options: dict[str, Any] = {
        "interpolation": "bicubic",
        "color_jitter": None,
        "auto_augment": f"rand-m{magnitude}-inc1" if magnitude else None,
        "re_prob": augmentation.get("erasing", 0.0),
        "re_mode": "pixel",
        "num_workers": 0,
        "persistent_workers": False,
        "pin_memory": False,
        "device": torch.device("cpu"),
    }
    loader = create_loader(
        create_dataset("", root=str(folder)),
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        mean=MEAN,
        std=STD,
        **options,
    )
    return pass_over(lambda: loader)
