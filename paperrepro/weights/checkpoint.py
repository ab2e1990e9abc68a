"""Reading a file of weights: tensors, and what `save_model` says of them; no code from it runs."""

import hashlib
import json
import pickle
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ..models import Input

DIGEST = "sha256"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
    """The tensors and the metadata of a file, out of their wrappers, without running its code.

    Raises:
        WeightsError: the file is missing, damaged or unsafe, or a tensor in it is no plain one of
            finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path} is not a file; weights= takes None, 'released' or the path of a checkpoint"
        )
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:9] == b"{":
            state, metadata = read_safetensors(path)
        else:
            check_archive(path)
            state = unwrap(torch.load(path, map_location="cpu", weights_only=True), path)
    except WeightsError:
        raise
    except Exception as error:  # what is damaged raises anything
        asks = "GLOBAL|Unsupported (global|class)|Trying to"
        if isinstance(error, pickle.UnpicklingError) and re.search(asks, str(error)):
            raise WeightsError(
                f"{path} holds more than weights: it asks to run code when it is opened, and was "
                "refused. Ask its author for a file of tensors alone (a state_dict), or convert it "
                "where you trust it"
            ) from error
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is not a checkpoint, or it is damaged or "
            "truncated; if you downloaded it, compare its size with the original's and download "
            "it again"
        ) from error
    check_numbers(state, path)
    return state, metadata


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if DIGEST in metadata and digest_of(path) != metadata.pop(DIGEST):
            raise WeightsError(
                f"{path} was changed after it was saved: its checksum is another than it says; "
                "save the network again, or take a copy that is whole"
            )
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return state, metadata


def sealed(content: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names (else it is random), and
    among them the checksum of all the rest."""
    header, size = header_of(content)
    described = header.pop("__metadata__", {})
    text = {key: described[key] for key in sorted(described)}
    data = memoryview(content)[8 + size :]
    seal = {DIGEST: checksum({"__metadata__": text} | header, data)}
    ordered = json.dumps({"__metadata__": text | seal} | header, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return b"".join([len(ordered).to_bytes(8, "little"), ordered, data])


def digest_of(path: Path) -> str:
    """The checksum that a file of `sealed` should have."""
    content = path.read_bytes()
    header, size = header_of(content)
    header["__metadata__"].pop(DIGEST)
    return checksum(header, memoryview(content)[8 + size :])


def header_of(content: bytes) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), size


def checksum(header: dict[str, Any], data: memoryview) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def check_archive(path: Path) -> None:
    """Refuses an archive that grows when it is opened (PyTorch's are stored as they are), and one
    with another checksum than it says, which PyTorch would not notice."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        expanded = sum(entry.file_size for entry in entries)
        if expanded > 2 * path.stat().st_size:
            raise WeightsError(
                f"{path} ({path.stat().st_size:,} bytes) would expand to {expanded:,} bytes, and "
                "torch.save does not compress; save the tensors again"
            )
        for entry in entries:
            if entry.CRC:  # some writers leave it out
                with archive.open(entry) as file:
                    while file.read(1 << 20):
                        pass


def check_numbers(state: dict[str, Tensor], path: Path | str) -> None:
    """Refuses tensors that are not plain, complex numbers, and numbers that are not finite.

    Raises:
        WeightsError: naming the first such tensor.
    """
    for name, value in state.items():
        if reason := what_is_wrong(value):
            raise WeightsError(f"{path}: {name} {reason}; save finite weights again")


def what_is_wrong(value: Tensor) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout is not torch.strided or value.is_quantized or value.is_complex():
        return f"is a {kind} tensor of the layout {value.layout}, not one of plain real numbers"
    if value.device.type != "cpu" or value.nbytes > value.untyped_storage().nbytes():
        return "declares more numbers than the file holds"
    if not value.is_floating_point():
        return ""
    if value.dtype not in FLOATS:
        return f"is {kind}; weights are float16, bfloat16, float32 or float64"
    wrong = value.numel() - int(value.isfinite().sum())
    return f"has {wrong:,} of {value.numel():,} numbers that are not finite" if wrong else ""


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state_dict in `{"model": ...}`, `{"state_dict": ...}`, with averaged weights first, and
    without the `module.` that DataParallel puts before every key."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state_dict of tensors")
    if isinstance(content.get("recipe"), dict | str) and "epoch" in content:
        raise WeightsError(
            f"{path} is a checkpoint of a training, which --resume goes on with; its weights stand "
            "in model.safetensors beside it when the training ends"
        )
    strays = [
        str(key)
        for key, value in content.items()
        if not isinstance(value, Tensor) or not isinstance(key, str)
    ]
    if strays:
        raise WeightsError(
            f"{path} holds no state_dict: {few(strays)} are not tensors by a name; expected "
            f"tensors, or a state_dict under one of {', '.join(WRAPPERS)}"
        )
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
