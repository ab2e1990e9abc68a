"""Images from a file or a folder, as the analyses take them: batches, in a fixed order.

paths = list_images("photos")
for batch in load_images(paths, transform, batch=8): ...
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..datasets import UnreadableImage

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def list_images(path: str | os.PathLike) -> list[Path]:
    """The image at `path`, or every image in the folder and below, sorted by path.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither an image nor a folder of images")
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f"{path} holds no image: none of its files ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


def open_image(path: str | os.PathLike) -> Image.Image:
    """The image as PIL reads it, in RGB.

    Raises:
        UnreadableImage: naming the file, which is missing, damaged or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path} cannot be read as an image: {error}") from error


def load_images(
    paths: Sequence[Path],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch: int = 1,
    progress: str | None = None,
) -> Iterator[Tensor]:
    """The images in the order of `paths`, `batch` at a time.

    Args:
        transform: a PIL image to a tensor `(3, H, W)`, such as
            `paperrepro.transforms.validation_transform` makes.
        progress: the label of a progress bar; None shows none.

    Yields:
        `(N, 3, H, W)`, N = `batch` or, at the end, less.

    Raises:
        UnreadableImage: on reaching a file that cannot be read, naming it.
    """
    with tqdm(
        total=len(paths), desc=progress, leave=False, disable=None if progress else True
    ) as bar:
        for start in range(0, len(paths), batch):
            some = paths[start : start + batch]
            yield torch.stack([transform(open_image(path)) for path in some])
            bar.update(len(some))
