"""Checkpoints that a kill at any moment leaves whole: `last.pt`, and the one before it."""

import io
import pickle
from pathlib import Path

import torch

from ..files import write_atomically

LAST, PREVIOUS = "last.pt", "previous.pt"


def save_checkpoint(run: Path, state: dict) -> None:
    """Makes `state` the last checkpoint of a run, and the last one the previous."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_atomically(run / LAST, buffer.getvalue(), previous=run / PREVIOUS)
    except OSError as error:
        raise OSError(f"{error}; then go on with --resume") from error


def has_checkpoint(run: Path) -> bool:
    return any((run / name).exists() for name in (LAST, PREVIOUS))


def load_checkpoint(run: Path) -> tuple[dict | None, list[Path]]:
    """The last whole checkpoint of a run, None if it has none, and the files that are not whole.

    Raises:
        OSError: there are checkpoints, and none of them is whole.
    """
    damaged: list[Path] = []
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
