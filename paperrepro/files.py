"""The machine: where the package finds files, how it writes them, reads images, what computes.

Whatever is written comes under a temporary name first and is renamed when it is whole, so that a
kill at any moment leaves the file that was there.
"""

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


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

    Raises:
        FileNotFoundError: there is nothing at `path`, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither an image nor a folder of images")
    images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise FileNotFoundError(
            f"{path} holds no image: none of its files ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


def evenly(paths: list[Path], count: int) -> list[Path]:
    """So many of the paths, evenly spread in their order; all where there are no more."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def open_image(path: str | os.PathLike) -> Image.Image:
    """The image as PIL reads it, in RGB.

    Raises:
        UnreadableImage: naming the file, which is missing, damaged or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path}: cannot be read as an image: {error}") from error


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
