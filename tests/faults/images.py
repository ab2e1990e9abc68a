"""Image files, damaged at random: bytes changed, cut out, repeated or moved, of every kind that PIL
writes. Each is refused by its name, in one line, or comes out as an image of eight bits, the same
by both readers. Pixels that changed are not seen: most kinds of file carry no checksum of them."""

import io
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from paperrepro import files
from paperrepro.files import UnreadableImage, open_image, read_image

from ._tally import Tally, main

KINDS = {
    "RGB": "JPEG PNG BMP GIF TIFF WEBP PPM AVIF DDS ICO TGA PCX SGI JPEG2000".split(),
    "P": ["GIF", "PNG"],
    "I;16": ["PNG", "TIFF"],
    "F": ["TIFF"],
}


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(width=48, height=32):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def whole_files() -> list[tuple[str, bytes]]:
    """One of each kind that PIL writes here: (format, content)."""
    Image.init()
    exif = Image.Exif()
    exif[files.ORIENTATION] = 6
    whole = []
    for mode, formats in KINDS.items():
        image = photo().convert("L") if mode in ("F", "I;16") else photo()
        for format in {*formats} & {*Image.SAVE}:
            extra = {"exif": exif} if format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
            whole.append((format, encoded(image.convert(mode), format, **extra)))
    return sorted(whole)


def damaged(content: bytes, chance: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        kind, at = chance.randrange(4), chance.randrange(len(result) or 1)
        if kind == 0 and result:
            result[at] = chance.randrange(256)
        elif kind == 1:
            del result[at:]
        elif kind == 2:
            result[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            del result[at : at + chance.randrange(1, 9)]
    return bytes(result)


def read(reader, path: Path):
    """What comes of a file: pixels `(H, W, 3)`, or the message."""
    try:
        image = reader(path)
    except UnreadableImage as error:
        return str(error)
    return np.asarray(image) if isinstance(image, Image.Image) else image.permute(1, 2, 0).numpy()


def attempt(count: int, seed: int = 0) -> Tally:
    tally, chance = Tally("images"), random.Random(seed)
    whole = whole_files()
    tally.refused = 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, about what it mends
        path = Path(folder) / "damaged.jpg"
        for _ in range(count):
            format, content = chance.choice(whole)
            path.write_bytes(damaged(content, chance))
            what = f"{format}, number {tally.tried}"
            with tally.one(what):
                tensor, image = (read(reader, path) for reader in (read_image, open_image))
                tally.wrong += [f"{what}: {each}" for each in faults_of(path, tensor, image)]
                tally.refused += isinstance(tensor, str)
    print(f"images: {tally.refused} refused")
    return tally


def faults_of(path: Path, tensor, image) -> list[str]:
    if isinstance(tensor, str) or isinstance(image, str):
        if type(tensor) is not type(image):
            return [f"refused by one reader only: {tensor if isinstance(tensor, str) else image}"]
        return [] if path.name in tensor and "\n" not in tensor else [f"is told by {tensor!r}"]
    if tensor.dtype != np.uint8 or tensor.ndim != 3 or tensor.shape[2] != 3:
        return [f"is {tensor.dtype} of {tensor.shape}"]
    if not np.array_equal(tensor, image):
        return ["differs between the readers"]
    return []


if __name__ == "__main__":
    main(attempt, 10000)
