"""The machine: where the package finds files, how it writes them, reads images, what computes.

Whatever is written comes under a temporary name first and is renamed when it is whole, so that a
kill at any moment leaves the file that was there.
"""

import hashlib
import io
import os
import platform
import re
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from glob import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from PIL import Image

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
}
VALIDATION_FOLDERS = ("val", "test")
ORIENTATION = 0x0112  # of EXIF
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(OSError):
    """An image file that cannot be decoded; the message names it."""


def data_folder(name: str) -> Path:
    """The folder `data/<name>`: the installed copy, or the checkout's.

    Raises:
        FileNotFoundError: naming both places, where neither exists.
    """
    package = Path(__file__).resolve().parent
    installed, checkout = package / "_data" / name, package.parent / "data" / name
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no {name} at {installed} or {checkout}; reinstall paperrepro, or name the folder yourself"
    )


@contextmanager
def replacing(path: str | os.PathLike, *, previous: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, a file or a folder, that takes its place at the end.

    What a killed process left behind of this file is removed.

    Args:
        previous: the name that what was at `path` gets.

    Raises:
        OSError: naming the file, which is then as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("it is no regular file")  # but a device, which a file would replace
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        if previous and path.exists():
            path.replace(previous)
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        remove(partial)


def remove_partial(path: Path) -> None:
    """Removes what killed processes left of a file or folder: `.NAME.PROCESS.partial`."""
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        process = left.name.split(".")[-2]
        if process.isdigit() and not is_running(int(process)):
            remove(left)


def is_running(process: int) -> bool:
    """Whether there is a process of that number here."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def write_atomically(
    path: str | os.PathLike, content: bytes | str, *, previous: Path | None = None
) -> None:
    """Writes a file, a text as UTF-8; whole, or not at all (see `replacing`)."""
    with replacing(path, previous=previous) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(path: str | os.PathLike, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock file within the block. The lock ends with its process, however that ends.

    Args:
        wait: for whoever holds it, in place of an error.

    Raises:
        OSError: another process holds it, or the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"another process works in {path.parent}; choose another place"
            ) from error
        yield


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Makes a folder where it is missing; before a long measurement, not after it.

    Raises:
        OSError: naming the folder, where nothing can be written to it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: str | os.PathLike, error: OSError) -> OSError:
    return OSError(
        f"cannot write {os.fspath(path)}: {error.strerror or error}; what was there before is "
        "whole. Make room, or choose another place (--out)"
    )


def sha256(path: str | os.PathLike) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_images(path: str | os.PathLike) -> list[Path]:
    """The image at `path`, or every image in the folder and below, sorted by path.

    Hidden folders and files (`.ipynb_checkpoints`, `._photo.jpg`), and what is no regular file (a
    pipe would be waited for, for ever), are left out with a warning.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither an image nor a folder of images")
    skipped: list[str] = []
    images = sorted(Path(file) for file in walk(os.fspath(path), skipped))
    tell_skipped(skipped)
    if not images:
        raise FileNotFoundError(
            f"{path} holds no image: none of its files ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


def walk(folder: str, skipped: list[str], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The images below a folder; what was left out is added to `skipped`."""
    above = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
            if entry.is_dir():
                if entry.name.startswith("."):
                    skipped.append(entry.path)
                elif os.path.realpath(entry.path) not in above:  # a link may lead back
                    yield from walk(entry.path, skipped, above)
            elif is_image and (
                entry.name.startswith(".") or not (entry.is_file() or entry.is_symlink())
            ):
                skipped.append(entry.path)
            elif is_image:
                yield entry.path


def tell_skipped(skipped: list[str]) -> None:
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warnings.warn(
            f"left out, as hidden or no regular file: {', '.join(sorted(skipped)[:3])}{more}",
            stacklevel=3,
        )


def labelled_images(folder: str | os.PathLike) -> tuple[list[str], list[tuple[str, int]]]:
    """The names of a folder's folders, its classes, and every image below with its class's number.

    Hidden folders and files are left out with a warning.

    Raises:
        FileNotFoundError: no class, or one without images.
        ValueError: only one class.
    """
    folder = os.fspath(folder)
    folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    skipped = [os.path.join(folder, name) for name in folders if name.startswith(".")]
    classes = [name for name in folders if not name.startswith(".")]
    files = [sorted(walk(os.path.join(folder, name), skipped)) for name in classes]
    tell_skipped(skipped)
    empty = [name for name, held in zip(classes, files, strict=True) if not held]
    if empty or not files:
        reason = f"{', '.join(empty[:5])} holds none" if empty else "it has no folder"
        raise FileNotFoundError(
            f"{folder} holds no images to train on: it needs one folder of images per class "
            f"({reason}; an image ends in {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has one class only, {classes[0]!r}; a classifier needs two folders"
        )
    return classes, [(path, label) for label, held in enumerate(files) for path in held]


def split_folder(
    folder: Path,
) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, int]]]:
    """The classes, and the images to train and to validate on, as `labelled_images` gives them.

    Args:
        folder: with `train/` and `val/` or `test/`, or the classes' folders alone, of which every
            tenth image validates.
    """
    if not (folder / "train").is_dir():
        classes, samples = labelled_images(folder)
        return classes, [s for i, s in enumerate(samples) if i % 10], samples[::10]
    held_out = [folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()]
    if not held_out:
        raise FileNotFoundError(f"{folder} has train/ but neither val/ nor test/ to validate on")
    (classes, train), (tested, val) = (
        labelled_images(folder / "train"),
        labelled_images(held_out[0]),
    )
    if classes != tested:
        differ = sorted(set(classes) ^ set(tested))
        raise ValueError(
            f"{folder}/train and {held_out[0]} have different classes: {', '.join(differ[:5])}; "
            "give both the same folders"
        )
    return classes, train, val


def evenly(paths: list[Path], count: int) -> list[Path]:
    """So many of the paths, evenly spread in their order; all where there are no more."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def open_image(source: str | os.PathLike | bytes, name: str | None = None) -> Image.Image:
    """An image of any kind in RGB, upright, eight bits a channel, read by PIL.

    What is deeper is scaled: 16 bits by 65,535, floats within [0, 1] by 1, and other floats and 32
    bits, which have no usual range, by their own smallest and largest value.

    Args:
        source: a file, or the bytes of one.
        name: what an error calls it; the file's path when None.

    Raises:
        UnreadableImage: naming the file, which is missing, damaged, no image, too large to be
            decoded safely (PIL's limit), or no regular file.
    """
    with decoding(source, name) as (image, _):
        return as_rgb(image).convert("RGB")


def read_image(source: str | os.PathLike | bytes, name: str | None = None) -> "torch.Tensor":
    """The same pixels as `open_image` gives, as a uint8 tensor `(3, H, W)`, and faster.

    A JPEG is decoded by torchcodec where it is installed. Its memory format is channels_last,
    which torchvision's resize prefers.
    """
    import numpy as np
    import torch

    with decoding(source, name) as (image, file):
        decode = jpeg_decoder()
        if decode and image.format == "JPEG" and orientation(image) == 1:
            file.seek(0)
            try:
                return decode(file.read())
            except RuntimeError:
                file.seek(0)  # PIL has the last word on what is damaged
        return torch.from_numpy(np.array(as_rgb(image))).permute(2, 0, 1)


@contextmanager
def decoding(
    source: str | os.PathLike | bytes, name: str | None
) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """The image, not decoded yet, and its file; whatever goes wrong with them is an
    `UnreadableImage` of that name."""
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise OSError("it is no regular file")
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            with Image.open(file) as image:
                yield image, file
    except Exception as error:  # a decoder of a damaged file raises anything
        name = name or ("an image" if isinstance(source, bytes) else os.fspath(source))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{name}: cannot be read as an image: {reason}") from error


@cache
def jpeg_decoder() -> "Callable[[bytes], torch.Tensor] | None":
    """torchcodec's, where it is installed and fits this PyTorch."""
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError):
        return None
    return cast("Callable[[bytes], torch.Tensor]", decode_jpeg)


def orientation(image: Image.Image) -> int:
    """EXIF's number from 1, upright, to 8; 1 where it is missing or damaged."""
    try:
        number = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return number if number in TO_UPRIGHT else 1


def as_rgb(image: Image.Image) -> Image.Image:
    image.load()  # PIL turns a TIFF by itself, and forgets its orientation, here
    number = orientation(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = to_eight_bits(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.transpose(TO_UPRIGHT[number]) if number != 1 else image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits, or floats, as `open_image` scales them."""
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16") or image.format == "PNG":
        low, high = 0, 65535
    elif image.mode == "F" and 0 <= low and high <= 1:
        low, high = 0, 1
    scaled = (values - low) * (255 / max(high - low, 1e-300))
    return Image.fromarray(scaled.round().astype(np.uint8))


def pick_device(name: str | None = None) -> "torch.device":
    """The device of that name; a GPU where there is one (CUDA, else MPS), else the CPU, when None.

    Raises:
        ValueError: unknown name, or there is no such device here.
    """
    import torch

    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda, cuda:0 or mps") from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise ValueError(f"there is no GPU here that PyTorch can use; leave out {name!r}")
    return device


def processor() -> str:
    """The processor's name, its number of cores and PyTorch's instruction set."""
    import torch

    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    match = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    name = match[1] if match else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
