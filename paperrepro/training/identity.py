"""What a resumed training must find as it was: the data's content in one short digest."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from ..datasets import Files, Images
from ..files import UnreadableImage, evenly
from ..shapes import Shapes

LOOKS = 32
"""Items of a set that are read where reading all would take long."""


def content_digest(images: Any) -> str:
    """Sixteen digits that other data do not have.

    A set in memory is read whole. Of a folder all names and sizes count, and the bytes of
    32 files spread over it; of another set 32 items. A set may say itself, by a method
    `content_digest()`.
    """
    if hasattr(images, "content_digest"):
        return images.content_digest()
    digest = hashlib.sha256()
    add(digest, images)
    return digest.hexdigest()[:16]


def add(digest: Any, images: Any) -> None:
    if isinstance(images, Subset):
        digest.update(np.asarray(images.indices, np.int64).tobytes())
        digest.update(content_digest(images.dataset).encode())
    elif isinstance(images, Images):
        for values in (images.images, images.labels):
            digest.update(values.contiguous().numpy().tobytes())
    elif isinstance(images, Shapes):
        digest.update(repr((images.count, images.size, images.seed, images.cue)).encode())
    elif isinstance(images, Files):
        files = [Path(path) for path, _ in images.samples]
        for path in files:
            name = os.path.relpath(path, images.root)
            digest.update(f"{name} {path.stat().st_size}\n".encode())
        for path in evenly(files, LOOKS):
            digest.update(path.read_bytes())
    else:
        count = len(images)
        digest.update(str(count).encode())
        for look in range(min(count, LOOKS)):
            try:
                digest.update(as_bytes(images[look * count // min(count, LOOKS)]))
            except UnreadableImage as error:
                digest.update(str(error).encode())


def as_bytes(item: Any) -> bytes:
    if isinstance(item, Tensor):
        return item.contiguous().numpy().tobytes()
    if isinstance(item, Image.Image):
        return item.tobytes()
    if isinstance(item, list | tuple):
        return b"".join(map(as_bytes, item))
    if isinstance(item, dict):
        return b"".join(map(as_bytes, item.values()))
    return repr(item).encode()
