"""Reading a file of weights: tensors, and what `save_model` says of them; no code from it runs."""

import json
import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ..models import Input

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class SavedNetwork:
    """What `save_model` writes of a network beside its weights.

    Attributes:
        input, classes: how images are prepared, and the names of the classes; None in files of
            before they were written, and where nobody said.
    """

    name: str
    num_classes: int
    config: dict[str, Any]
    reparameterized: bool
    input: Input | None = None
    classes: tuple[str, ...] | None = None

    def to_metadata(self) -> dict[str, str]:
        metadata = {
            "paperrepro": self.name,
            "num_classes": str(self.num_classes),
            "config": json.dumps(self.config),
            "reparameterized": json.dumps(self.reparameterized),
        }
        if self.input:
            metadata["input"] = json.dumps(asdict(self.input))
        if self.classes:
            metadata["classes"] = json.dumps(self.classes)
        return metadata


def saved_network(metadata: dict[str, str], path: Path) -> SavedNetwork | None:
    """The network that a file of `save_model` says it holds; None for another's file."""
    if "paperrepro" not in metadata:
        return None
    try:
        settings = json.loads(metadata.get("input", "null"))
        names = json.loads(metadata.get("classes", "null"))
        if settings:
            settings = Input(**settings | {key: tuple(settings[key]) for key in ("mean", "std")})
        return SavedNetwork(
            name=metadata["paperrepro"],
            num_classes=int(metadata["num_classes"]),
            config=dict(json.loads(metadata["config"])),
            reparameterized=bool(json.loads(metadata["reparameterized"])),
            input=settings,
            classes=tuple(map(str, names)) if names else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} has metadata that save_model does not write ({error!r}): {metadata}; save the "
            "network again"
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file, out of their wrappers, without running its code."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path} is not a file; weights= takes None, 'released' or the path of a checkpoint"
        )
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        return read_safetensors(path)
    damaged = (
        f"{path} ({path.stat().st_size:,} bytes) is not a checkpoint, or it is truncated; "
        "compare its size with the original's and download it again"
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search("GLOBAL|Unsupported (global|class)|Trying to", str(error)):
            raise WeightsError(
                f"{path} holds more than weights: it asks to run code when it is opened, and was "
                "refused. Ask its author for a file of tensors alone (a state_dict), or convert it "
                "where you trust it"
            ) from error
        raise WeightsError(damaged) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, IndexError) as error:
        raise WeightsError(damaged) from error
    return unwrap(content, path), {}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is a damaged or truncated safetensors file "
            f"({error}); compare its size with the original's and download it again"
        ) from error


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state_dict in `{"model": ...}`, `{"state_dict": ...}`, with averaged weights first, and
    without the `module.` that DataParallel puts before every key."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state_dict of tensors")
    strays = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strays:
        raise WeightsError(
            f"{path} holds no state_dict: {few(strays)} are not tensors; expected tensors, or a "
            f"state_dict under one of {', '.join(WRAPPERS)}"
        )
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
