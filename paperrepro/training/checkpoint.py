"""Checkpoints that a kill at any moment leaves whole, with a digest that tells a damaged one.

`last.pt` is the last and `previous.pt` the one before it; `torch.load` reads both. Behind what
PyTorch wrote stands the digest of it.
"""

import hashlib
import io
import os
import pickle
import shutil
from pathlib import Path

import torch

from ..files import write_atomically

LAST, PREVIOUS, MODEL, BEST = "last.pt", "previous.pt", "model.safetensors", "best.safetensors"
MARK = b"\nsha256:"
TAIL = len(MARK) + 64


def save_checkpoint(run: Path, state: dict) -> None:
    """Makes `state` the last checkpoint of a run, and the last one the previous."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(MARK + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    try:
        write_atomically(run / LAST, buffer.getvalue(), previous=run / PREVIOUS)
    except OSError as error:
        raise OSError(f"{error}; then go on with --resume") from error


def keep_checkpoint(run: Path, epoch: int, count: int) -> None:
    """Keeps the last checkpoint as `epoch-N.pt`, and of those the last `count`."""
    path = run / f"epoch-{epoch}.pt"
    path.unlink(missing_ok=True)
    try:
        os.link(run / LAST, path)
    except OSError:  # a file system without links
        shutil.copyfile(run / LAST, path)
    kept = sorted(run.glob("epoch-*.pt"), key=lambda path: int(path.stem.partition("-")[2]))
    for old in kept[:-count]:
        old.unlink()


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
        if (state := read_checkpoint(path)) is not None:
            return state, damaged
        damaged.append(path)
    if damaged:
        names = " and ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in damaged)
        raise OSError(f"damaged or cut off: {names}. Begin anew in another folder")
    return None, []


def read_checkpoint(path: Path) -> dict | None:
    """What `save_checkpoint` wrote; None where the file is anything else than that."""
    content = path.read_bytes()
    written, tail = content[:-TAIL], content[-TAIL:]
    if tail != MARK + hashlib.sha256(written).hexdigest().encode():
        return None
    try:
        state = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) else None
