"""Images from a file or a folder, as the analyses take them: batches, in a fixed order.

>>> paths = list_images("photos")
>>> for batch in load_images(paths, transform, batch=8): ...
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..files import evenly, list_images, open_image


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
            chunk = paths[start : start + batch]
            yield torch.stack([transform(open_image(path)) for path in chunk])
            bar.update(len(chunk))


def sample_images(
    path: str | os.PathLike, transform: Callable[[Image.Image], Tensor], count: int
) -> Tensor:
    """So many of the images at a path, evenly spread in their order, `(N, 3, H, W)`."""
    paths = evenly(list_images(path), count)
    return torch.cat(list(load_images(paths, transform, batch=16, progress="Loading")))
