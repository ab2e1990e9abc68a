"""The authors' checkpoints: downloaded once, checked, and kept.

A download goes to a temporary name, is checked, and is renamed only then; the sha256 of what came
is written beside the file, shown, and verified at every later use. Of several processes one
downloads, and the others wait.
"""

import os
import socket
import sys
from pathlib import Path

import torch
from torch import Tensor

from ..files import locked, replacing, sha256, write_atomically
from ..models import release_of
from .checkpoint import WeightsError, check_numbers, read_checkpoint

PATIENCE = 60.0
"""Seconds without a byte after which a download is given up."""


def cache_folder() -> Path:
    """Where downloads are kept: `paperrepro` in torch.hub's folder, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "paperrepro"


def download_released(name: str) -> Path:
    """The released checkpoint of a network: from the cache, or downloaded into it.

    Raises:
        WeightsError: there is no address to download from, the download failed or has another
            checksum than the published one, or the cached file changed since it came.
    """
    release = release_of(name)
    if release.url is None:
        raise WeightsError(
            f"there is no address to download {name} from. {release.note} See {release.page}"
        )
    path = cache_folder() / release.url.rpartition("/")[2]
    record = path.with_name(f"{path.name}.sha256")
    if path.exists() and record.exists():
        digest = sha256(path)
        if digest != record.read_text().strip():
            raise WeightsError(
                f"{path} is not what was downloaded: its sha256 is {digest[:16]}..., the recorded "
                f"one {record.read_text()[:16]}...; delete both files to download it again"
            )
        return path
    try:
        with locked(path.with_name(f".{path.name}.lock"), wait=True):
            if not (path.exists() and record.exists()):  # another process may have brought it
                download(release.url, path, record, release.sha256)
    except (OSError, RuntimeError, WeightsError) as error:
        raise WeightsError(
            f"{name} could not be downloaded from {release.url}: {error}. Nothing was kept; try "
            f"again, or fetch the file from {release.page} and pass its path as weights="
        ) from error
    return path


def download(url: str, path: Path, record: Path, published: str | None) -> None:
    """Brings a file, looks into it, and writes down its checksum."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with replacing(path) as partial:
            torch.hub.download_url_to_file(url, os.fspath(partial), published or None)
            read_checkpoint(partial)
            digest = sha256(partial)
            write_atomically(record, digest + "\n")
    finally:
        socket.setdefaulttimeout(before)
    known = "as published" if published else "published by nobody: compare it with another source"
    print(f"{path}: sha256 {digest}, {known}", file=sys.stderr)


def timm_weights(tag: str) -> dict[str, Tensor]:
    """The tensors of a file of timm's, which timm downloads and keeps.

    Args:
        tag: such as "mobileone_s0.apple_in1k"; timm's MobileOne and FasterNet are networks of ours.

    Raises:
        WeightsError: timm is not installed, has no such file, or could not download it.
    """
    try:
        import timm
    except ImportError as error:
        raise WeightsError(
            f'weights of timm ({tag}) need timm: pip install "paperrepro[train]"'
        ) from error
    try:
        state = timm.create_model(tag, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"timm gives no weights {tag!r}: {reason}") from error
    check_numbers(state, f"timm:{tag}")
    return state
