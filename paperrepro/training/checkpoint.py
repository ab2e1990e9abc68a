"""Checkpoints that a kill at any moment leaves whole: `last.pt`, and the one before it."""

import io
import os
import pickle
from pathlib import Path

import torch

LAST, PREVIOUS = "last.pt", "previous.pt"


def write_atomically(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Writes under a temporary name, down to the disk, and renames.

    Args:
        previous: the name that a file already at `path` gets.

    Raises:
        OSError: naming the file, which is then as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {path}: {error.strerror or error}; what was there before is whole. Make "
            "room and go on with --resume"
        ) from error


def save_checkpoint(run: Path, state: dict) -> None:
    """Makes `state` the last checkpoint of a run, and the last one the previous."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(run / LAST, buffer.getvalue(), run / PREVIOUS)


def has_checkpoint(run: Path) -> bool:
    return any((run / name).exists() for name in (LAST, PREVIOUS))


def load_checkpoint(run: Path) -> tuple[dict | None, list[Path]]:
    """The last whole checkpoint of a run, None if it has none, and the files that are not whole.

    Raises:
        OSError: there are checkpoints, and none of them is whole.
    """
    damaged = []
    for path in (run / LAST, run / PREVIOUS):
        if not path.exists():
            continue
        try:
            return torch.load(path, map_location="cpu", weights_only=True), damaged
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError):
            damaged.append(path)
    if damaged:
        names = " and ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in damaged)
        raise OSError(f"damaged or cut off: {names}. Begin anew in another folder")
    return None, []
