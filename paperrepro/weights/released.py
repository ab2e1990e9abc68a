"""The authors' checkpoints: downloaded once, checked, and kept.

A download goes to a temporary name, is checked, and is renamed only then; the sha256 of what came
is written beside the file and verified at every later use.
"""

import os
from pathlib import Path

import torch
from torch import Tensor

from ..files import replacing, sha256
from ..models import release_of
from .checkpoint import WeightsError, read_checkpoint


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
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial:
            torch.hub.download_url_to_file(release.url, os.fspath(partial), release.sha256 or None)
            read_checkpoint(partial)
            record.write_text(sha256(partial) + "\n")
    except (OSError, RuntimeError, WeightsError) as error:
        raise WeightsError(
            f"{name} could not be downloaded from {release.url}: {error}. Nothing was kept; try "
            f"again, or fetch the file from {release.page} and pass its path as weights="
        ) from error
    return path


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
        return timm.create_model(tag, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"timm gives no weights {tag!r}: {reason}") from error
