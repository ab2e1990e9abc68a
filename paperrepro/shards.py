"""Images in shards: tar files with an index, on a disk or in an object store, read by number.

    pack("imagenet", "imagenet-shards")
    data = load_data("imagenet-shards")  # or "s3://bucket/imagenet-shards"

A shard is a plain tar file that holds the images as they were; `tar xf` gives the folder back, and
WebDataset reads it. `index.json` names classes and shards, and `SPLIT.npz` says where each image
lies. So an image is read by its number, from any process and in any order: the order is that of
`paperrepro.datasets.ShardedSampler`, the same for any number of processes and workers, and an epoch
that was interrupted goes on at once. What is not on a disk is fetched by fsspec, a whole shard at a
time, checked, and kept in a cache.
"""

import io
import json
import os
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from .files import (
    UnreadableImage,
    check_writable,
    locked,
    read_image,
    replacing,
    split_folder,
    write_atomically,
)

INDEX = "index.json"
FORMAT = 1
SHARD_BYTES = 64 << 20
WINDOW = 64
"""How many shards an epoch mixes at a time: 4 GB, or 40,000 of ImageNet's images."""


class ShardError(OSError):
    """A shard or an index that is missing, cut off or damaged; the message names it."""


def pack(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the images of a folder, as they are, into shards.

    What was stopped goes on where it was: a shard is written whole or not at all. Packed again,
    only what is missing or damaged is written. The training images are shuffled once, by a fixed
    seed: so a shard holds images of any class.

    Args:
        folder: as `load_data` takes it: classes, or `train/` and `val/` or `test/` of classes.
        out: the folder of the shards.
        shard_bytes: how large a shard becomes.

    Returns:
        The index.

    Raises:
        ValueError: fewer than two classes, or shards of other images in `out`.
        OSError: no images, one that cannot be read, or no room.
    """
    folder, out = Path(folder), Path(out)
    classes, train, val = split_folder(folder)
    random.Random(0).shuffle(train)
    check_writable(out)
    known = digests(out)
    index: dict[str, Any] = {"format": FORMAT, "classes": classes, "splits": {}}
    with tqdm(
        total=len(train) + len(val), unit=" images", disable=None if progress else True
    ) as bar:
        for split, samples in (("train", train), ("val", val)):
            shards, rows = [], []
            for number, part in enumerate(cut(samples, shard_bytes)):
                name = f"{split}-{number:05d}.tar"
                members = [os.path.relpath(path, folder) for path, _ in part]
                content = whole_shard(out / name, members, known.get(name))
                if content is None:
                    write_shard(out / name, [path for path, _ in part], members)
                    content = (out / name).read_bytes()
                labels = [label for _, label in part]
                rows += [
                    (*place, label) for place, label in zip(places(content), labels, strict=True)
                ]
                digest = sha256(content).hexdigest()
                shards.append(
                    {"name": name, "bytes": len(content), "sha256": digest, "images": len(part)}
                )
                bar.update(len(part))
            index["splits"][split] = shards
            offset, size, crc, label = np.array(rows, np.int64).T
            with replacing(out / f"{split}.npz") as partial, partial.open("wb") as file:
                np.savez(file, offset=offset, size=size, crc=crc, label=label)
    write_atomically(out / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def digests(out: Path) -> dict[str, str]:
    """The checksums of shards that an earlier run finished."""
    try:
        splits = json.loads((out / INDEX).read_text())["splits"]
        return {shard["name"]: shard["sha256"] for shards in splits.values() for shard in shards}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def cut(samples: list[tuple[str, int]], limit: int) -> Iterator[list[tuple[str, int]]]:
    """Parts of the list whose files have so many bytes together, or a little more."""
    part, held = [], 0
    for sample in samples:
        part.append(sample)
        held += os.path.getsize(sample[0])
        if held >= limit:
            yield part
            part, held = [], 0
    if part:
        yield part


def whole_shard(path: Path, members: list[str], digest: str | None) -> bytes | None:
    """The bytes of a shard that is there and whole; None for one that is to be written."""
    if not path.exists():
        return None
    content = path.read_bytes()
    if digest and sha256(content).hexdigest() != digest:
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as shard:
            names = shard.getnames()
    except tarfile.TarError:
        return None
    if names != members:
        raise ValueError(f"{path} holds other images than these; pack into an empty folder")
    return content


def write_shard(path: Path, files: list[str], members: list[str]) -> None:
    with replacing(path) as partial, tarfile.open(partial, "w") as shard:
        for file, member in zip(files, members, strict=True):
            data = Path(file).read_bytes()
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))


def places(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each image lies in a shard: its offset, its size, and its CRC-32."""
    with tarfile.open(fileobj=io.BytesIO(content)) as shard:
        for entry in shard:
            start, size = entry.offset_data, entry.size
            yield start, size, zlib.crc32(content[start : start + size])


def is_shards(place: str) -> bool:
    """Whether that is an address, or a folder that `pack` wrote to."""
    return "://" in place or (Path(place) / INDEX).is_file()


class Shards(Dataset):
    """The images of one split of a packed set: `(image, label)` by number, with `classes`.

    Args:
        place: the folder, or an address that fsspec opens: `s3://...`, `https://...`.
        split: "train" or "val".
        read: as in `paperrepro.datasets.Folder`; it gets the bytes and a name.

    Raises:
        ShardError: a shard that is missing or cut off, at once where the shards are on a disk, on
            access where they are fetched; an index that is missing or damaged.
        UnreadableImage: on access, for an image that is damaged, naming it and its shard.
    """

    def __init__(
        self, place: str, split: str, read: Callable[[bytes, str], Any] = read_image
    ) -> None:
        self.place, self.read = place, read
        self.files, self.root = open_place(place)
        index = self.load(INDEX)
        try:
            facts = json.loads(index)
            if facts["format"] != FORMAT:
                raise ValueError(f"its format is {facts['format']}, this version reads {FORMAT}")
            self.classes: list[str] = facts["classes"]
            self.shards: list[dict[str, Any]] = facts["splits"][split]
            with np.load(io.BytesIO(self.load(f"{split}.npz")), allow_pickle=False) as table:
                self.offset, self.size, self.crc, self.label = (
                    table[name] for name in ("offset", "size", "crc", "label")
                )
            self.ends = np.cumsum([shard["images"] for shard in self.shards])
            if len(self.label) != self.ends[-1]:
                raise ValueError(f"{len(self.label)} images are listed, {self.ends[-1]} counted")
        except ShardError:
            raise
        except Exception as error:  # damaged bytes raise anything in a parser
            raise ShardError(f"the index of {place} is damaged ({error}); pack again") from error
        self.local = "file" in self.files.protocol
        self.digest = sha256(index).hexdigest()[:16]
        self.cache = cache_folder() / self.digest
        if self.local:
            self.check()

    def load(self, name: str) -> bytes:
        try:
            return self.files.cat_file(f"{self.root}/{name}")
        except OSError as error:
            raise ShardError(f"{self.place}/{name} cannot be read: {error}") from error

    def check(self) -> None:
        """Raises where shards are missing or not of their size."""
        wrong = []
        for shard in self.shards:
            path = os.path.join(self.root, shard["name"])
            if not os.path.exists(path):
                wrong.append(f"{shard['name']} is missing")
            elif os.path.getsize(path) != shard["bytes"]:
                wrong.append(f"{shard['name']} is cut off")
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ShardError(
                f"{self.place}: {', '.join(wrong[:5])}{more}, of {len(self.shards)} shards. Pack "
                "the folder again, which writes what is not whole, or copy the shard again"
            )

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        shard = self.shards[int(np.searchsorted(self.ends, index, side="right"))]
        start, size = int(self.offset[index]), int(self.size[index])
        path = os.path.join(self.root, shard["name"]) if self.local else self.fetched(shard)
        try:
            with open(path, "rb") as file:
                file.seek(start - tarfile.BLOCKSIZE)
                header, data = file.read(tarfile.BLOCKSIZE), file.read(size)
        except OSError as error:
            raise ShardError(f"{path} cannot be read: {error}") from error
        if len(data) < size:
            raise ShardError(f"{path} is cut off: image {index} is not in it")
        if zlib.crc32(data) != self.crc[index]:
            raise UnreadableImage(f"{path}: image {index}, {member(header)}, is damaged (CRC-32)")
        return self.read(data, f"{path}: image {index}, {member(header)}"), int(self.label[index])

    def fetched(self, shard: dict[str, Any]) -> Path:
        """The shard in the cache; one process fetches it, and the others wait."""
        path = self.cache / shard["name"]
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(f"{path}.lock", wait=True):
            if not path.exists():
                address = f"{self.place}/{shard['name']}"
                content = self.load(shard["name"])
                if sha256(content).hexdigest() != shard["sha256"]:
                    raise ShardError(f"{address} is damaged: its SHA-256 differs from the index's")
                write_atomically(path, content)
        return path

    def content_digest(self) -> str:
        """What `paperrepro.training` compares on resuming: every image's bytes are in it."""
        return self.digest

    def order(self, generator: torch.Generator) -> Tensor:
        """The numbers of all images, in the order of an epoch: shards at random, and the images at
        random within `WINDOW` shards at a time, so that few shards are in use at once."""
        starts = [0, *self.ends.tolist()]
        parts = []
        for window in torch.randperm(len(self.shards), generator=generator).split(WINDOW):
            images = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in window.tolist()])
            parts.append(images[torch.randperm(len(images), generator=generator)])
        return torch.cat(parts)


def member(header: bytes) -> str:
    """What an image is called in its shard."""
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "replace").name
    except tarfile.TarError:
        return "of unknown name"


def open_place(place: str) -> tuple[Any, str]:
    """fsspec's file system for a folder or an address, and the path in it.

    Raises:
        ValueError: an address that nothing here opens.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f'{place} cannot be opened ({error}): pip install "paperrepro[shards]"'
        ) from error
    return files, root.rstrip("/")


def cache_folder() -> Path:
    """Where fetched shards are kept, below the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "paperrepro" / "shards"
