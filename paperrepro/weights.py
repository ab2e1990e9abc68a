"""Networks with their weights: the authors' released files, and this library's own.

Every file is read without running code from it: safetensors, or `torch.load(weights_only=True)`.
Downloads go to a temporary name, are checked, and are renamed only then; the sha256 of what came
is written beside the file and verified at every later use.
"""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torchvision.transforms import v2

from .layouts import layouts
from .models import Backbone, build_model, check_name, family_of, list_models
from .reparam import reparameterize
from .transforms import validation_transform

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSIFIER = ("head.fc.", "head.classifier.")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


class WeightsError(RuntimeError):
    """A file of weights that cannot be used; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class Release:
    """A published checkpoint: where it is, how its network was evaluated, what the paper reports.

    Attributes:
        top1: the paper's top-1 accuracy on ImageNet-1k in percent, never ours.
        url: the file; None where there is no address to download from.
        page: where a reader finds the file and its licence.
        layout: the names of its weights, see `paperrepro.layouts`.
        sha256: the first digits of the file's checksum where one is published.
        size: the side of the evaluation images in pixels.
        crop: the share of the resized image that the centre crop keeps; None resizes the whole
            image to a square.
        interpolation, mean, std: of the evaluation transform.
        note: what else a user of the file should know.
    """

    top1: float
    url: str | None
    page: str
    layout: str = "released"
    sha256: str = ""
    size: int = 224
    crop: float | None = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    note: str = ""


def _mobileone(variant: str, top1: float, crop: float = 0.9) -> Release:
    base = "https://docs-assets.developer.apple.com/ml-research/datasets/mobileone"
    return Release(
        top1,
        url=f"{base}/mobileone_{variant}_unfused.pth.tar",
        page="https://github.com/apple/ml-mobileone",
        crop=crop,
        interpolation="bilinear",
        note="The authors do not state their evaluation transform; this is timm's. Their users "
        "measured 0.1 points below the paper with it.",
    )


def _fasternet(file: str, top1: float) -> Release:
    base = "https://github.com/JierunChen/FasterNet/releases/download/v1.0"
    return Release(top1, url=f"{base}/{file}.pth", page="https://github.com/JierunChen/FasterNet")


def _replknet(top1: float, file: str = "", note: str = "", **transform) -> Release:
    base = "https://download.openmmlab.com/mmclassification/v0/replknet"
    return Release(
        top1,
        url=f"{base}/{file}.pth" if file else None,
        page="https://github.com/DingXiaoH/RepLKNet-pytorch",
        layout="openmmlab" if file else "released",
        sha256=file.rpartition("-")[2],
        note=note or "OpenMMLab's copy of the authors' file, with the keys renamed.",
        **({"crop": 0.875} | transform),
    )


def _sldgroup(repository: str, top1: float, file: str = "") -> Release:
    page = f"https://huggingface.co/SLDGroup/{repository}"
    return Release(
        top1,
        url=f"{page}/resolve/main/{file}" if file else None,
        page=page,
        note="Holds plain and averaged (EMA) weights; the averaged ones are loaded."
        if file
        else "Fetch the ImageNet checkpoint from the page and pass its path as weights=.",
    )


_UNRELEASED = "Table 5's network of 120 epochs; the authors published no weights for it."

RELEASED: dict[str, Release] = {
    "mobileone_s0": _mobileone("s0", 71.4, crop=0.875),
    "mobileone_s1": _mobileone("s1", 75.9),
    "mobileone_s2": _mobileone("s2", 77.4),
    "mobileone_s3": _mobileone("s3", 78.1),
    "mobileone_s4": _mobileone("s4", 79.4),
    "fasternet_t0": _fasternet("fasternet_t0-epoch.281-val_acc1.71.9180", 71.9),
    "fasternet_t1": _fasternet("fasternet_t1-epoch.291-val_acc1.76.2180", 76.2),
    "fasternet_t2": _fasternet("fasternet_t2-epoch.289-val_acc1.78.8860", 78.9),
    "fasternet_s": _fasternet("fasternet_s-epoch.299-val_acc1.81.2840", 81.3),
    "fasternet_m": _fasternet("fasternet_m-epoch.291-val_acc1.82.9620", 83.0),
    "fasternet_l": _fasternet("fasternet_l-epoch.299-val_acc1.83.5060", 83.5),
    "replknet_3": _replknet(82.11, note=_UNRELEASED),
    "replknet_7": _replknet(82.73, note=_UNRELEASED),
    "replknet_13": _replknet(
        83.02, note="The authors' README links a 120-epoch file; fetch it and pass its path."
    ),
    "replknet_25": _replknet(83.0, note=_UNRELEASED),
    "replknet_31b": _replknet(83.5, "RepLKNet-31B_ImageNet-1K_224_20221024-debd6715"),
    "replknet_31l": _replknet(
        86.6, "RepLKNet-31L_ImageNet-22K-to-1K_384_20221024-6f8ee74d", size=384, crop=None
    ),
    "replknet_xl": _replknet(
        87.8,
        "RepLKNet-XL_MegData73M_ImageNet1K_20221024-664f2980",
        "OpenMMLab's copy of the authors' file; they measured 87.57 with it.",
        size=320,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "mobilevig_ti": _sldgroup("MobileViG", 75.7),
    "mobilevig_s": _sldgroup("MobileViG", 78.2),
    "mobilevig_m": _sldgroup("MobileViG", 80.6),
    "mobilevig_b": _sldgroup("MobileViG", 82.6),
    "mobilevigv2_ti": _sldgroup("MobileViGv2", 77.7),
    "mobilevigv2_s": _sldgroup("MobileViGv2", 79.8),
    "mobilevigv2_m": _sldgroup("MobileViGv2", 81.7),
    "mobilevigv2_b": _sldgroup("MobileViGv2", 83.4),
    "rapidnet_ti": _sldgroup("RapidNet", 76.3, "RapidNet_Ti.pth"),
    "rapidnet_s": _sldgroup("RapidNet", 78.6, "RapidNet_S.pth"),
    "rapidnet_m": _sldgroup("RapidNet", 81.0, "RapidNet_M.pth"),
    "rapidnet_b": _sldgroup("RapidNet", 82.8, "RapidNet_B.pth"),
    "mobilenetv2": Release(
        71.76,
        url=None,
        page="https://github.com/DingXiaoH/RepLKNet-pytorch",
        layout="paperrepro",
        crop=0.875,
        note="RepLKNet's test bed (Tables 2 to 4, 11); the authors published no weights for it.",
    ),
}


def evaluation_transform(name: str) -> v2.Compose:
    """The transform with which the released network of that name was evaluated.

    Returns:
        A transform of a PIL image or a uint8 tensor `(3, H, W)` to a float tensor of the
        network's input size, normalised.
    """
    check_name(name)
    release = RELEASED[name]
    return validation_transform(
        release.size,
        crop=release.crop,
        interpolation=release.interpolation,
        mean=release.mean,
        std=release.std,
    )


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    weights: str | os.PathLike | None = None,
    trunk_only: bool = False,
    **config,
) -> Backbone:
    """A network by name, freshly initialised or with weights.

    Args:
        name: one of `paperrepro.list_models()`.
        num_classes: the classes of the classifier.
        weights: None; "released" for the paper's checkpoint, downloaded once and cached; or the
            path of a file: the authors', timm's, OpenMMLab's or one made by `save_model`.
        trunk_only: leaves the file's classifier out, and the network's as it was initialised; for
            another `num_classes` than the file's.
        **config: options of the network's class, for the papers' ablations.

    Returns:
        The network in training mode, as PyTorch leaves it; re-parameterized and in eval mode if
        the file holds re-parameterized weights.

    Raises:
        ValueError: unknown name or option.
        WeightsError: the file is missing, damaged, unsafe, or another network's.
    """
    model = build_model(name, num_classes=num_classes, **config)
    if weights is None:
        return model
    path = download_released(name) if os.fspath(weights) == "released" else Path(weights)
    return load_weights(model, path, trunk_only=trunk_only)


def save_model(model: Backbone, path: str | os.PathLike) -> None:
    """Writes the weights as safetensors, with name and configuration in the file's metadata.

    The file is written under a temporary name beside `path` and then renamed.

    Raises:
        ValueError: the network was not made by `create_model`, so that it has no name.
    """
    if getattr(model, "variant", None) is None:
        raise ValueError("save_model needs a network made by paperrepro.create_model")
    metadata = {
        "paperrepro": model.variant,
        "num_classes": str(model.num_classes),
        "config": json.dumps(model.config),
        "reparameterized": json.dumps(model.reparameterized),
    }
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        safetensors.torch.save_file(state, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: str | os.PathLike) -> Backbone:
    """The network in a file made by `save_model`: name, configuration and weights.

    Raises:
        WeightsError: the file is missing, damaged, or not made by `save_model`.
    """
    path = Path(path)
    state, metadata = read_checkpoint(path)
    saved = saved_network(metadata, path)
    if saved is None:
        raise WeightsError(
            f"{path} does not say which network it holds, because save_model did not write it; "
            "name the network: create_model(name, weights=path)"
        )
    try:
        model = build_model(saved.name, num_classes=saved.num_classes, **saved.config)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} was saved as {saved.name} with {saved.config}, which this version of "
            f"paperrepro cannot build: {error}"
        ) from error
    return fit(model, state, saved, path)


def load_weights(model: Backbone, path: Path, *, trunk_only: bool = False) -> Backbone:
    """Loads a file into a network made by `build_model`, and returns the network.

    What comes back is another, re-parameterized network where the file holds such weights.
    """
    state, metadata = read_checkpoint(path)
    return fit(model, state, saved_network(metadata, path), path, trunk_only=trunk_only)


@dataclass(frozen=True)
class SavedNetwork:
    """What `save_model` writes of a network beside its weights."""

    name: str
    num_classes: int
    config: dict
    reparameterized: bool


def saved_network(metadata: dict[str, str], path: Path) -> SavedNetwork | None:
    """The network that a file of `save_model` says it holds; None for another's file."""
    if "paperrepro" not in metadata:
        return None
    try:
        return SavedNetwork(
            name=metadata["paperrepro"],
            num_classes=int(metadata["num_classes"]),
            config=dict(json.loads(metadata["config"])),
            reparameterized=bool(json.loads(metadata["reparameterized"])),
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


def fit(
    model: Backbone,
    state: dict[str, Tensor],
    saved: SavedNetwork | None,
    path: Path,
    *,
    trunk_only: bool = False,
) -> Backbone:
    """Puts the tensors into the network, strictly: every key, every shape."""
    if saved:
        check_saved(model, saved, path, trunk_only)
        forms = [reparameterize(model) if saved.reparameterized else model]
    else:
        forms = published_forms(model)
    model, names = max(
        ((form, table) for form in forms for table in layouts(form).values()),
        key=lambda pair: overlap(pair[1].values(), state),
    )
    ours = {key: value.shape for key, value in model.state_dict().items()}
    wanted = {names[key]: shape for key, shape in ours.items()}
    heads = {names[key] for key in ours if key.startswith(CLASSIFIER)}
    if trunk_only:
        state = {key: value for key, value in state.items() if key not in heads}
        wanted = {key: shape for key, shape in wanted.items() if key not in heads}
    missing = [key for key in wanted if key not in state]
    surplus = [key for key in state if key not in wanted]
    different = [key for key in wanted if key in state and wanted[key] != state[key].shape]
    if different and not missing and not surplus and heads.issuperset(different):
        raise other_classes(path, len(state[different[0]]), model.num_classes)
    if missing or surplus or different:
        raise WeightsError(mismatch(model, state, path, missing, surplus, different))
    ours_by_name = {name: key for key, name in names.items()}
    model.load_state_dict(
        {ours_by_name[key]: value for key, value in state.items()}, strict=not trunk_only
    )
    return model


def published_forms(model: Backbone) -> list[Backbone]:
    """The forms in which others publish the network: MobileOne also re-parameterized."""
    if family_of(model.variant or "") == "mobileone":
        return [model, reparameterize(model)]
    return [model]


def check_saved(model: Backbone, saved: SavedNetwork, path: Path, trunk_only: bool) -> None:
    """Refuses a file of `save_model` whose name, classes or configuration is not the network's."""
    if saved.name != model.variant:
        raise WeightsError(
            f"{path} holds {saved.name}, not {model.variant}: create_model({saved.name!r}, "
            "weights=...) or load_model(path)"
        )
    if saved.num_classes != model.num_classes and not trunk_only:
        raise other_classes(path, saved.num_classes, model.num_classes)
    if saved.config != json.loads(json.dumps(model.config)):
        raise WeightsError(
            f"{path} was saved with the options {saved.config}, and the network has "
            f"{model.config}; load_model(path) takes the options from the file"
        )


def other_classes(path: Path, theirs: int, ours: int) -> WeightsError:
    return WeightsError(
        f"{path} classifies {theirs} classes and the network {ours}: pass num_classes={theirs}, or "
        "trunk_only=True to load everything but the classifier"
    )


def mismatch(
    model: Backbone,
    state: dict[str, Tensor],
    path: Path,
    missing: list[str],
    surplus: list[str],
    different: list[str],
) -> str:
    """Says what a file lacks, has too much or in another shape, and whose file it looks like."""
    lines = [f"{path} does not hold the weights of {model.variant}:"]
    for word, keys in (("missing", missing), ("surplus", surplus), ("other shape", different)):
        if keys:
            lines.append(f"  {len(keys)} {word}: {few(keys)}")
    looks = recognise(state)
    if looks and looks != model.variant:
        lines.append(f"It looks like {looks}: create_model({looks!r}, weights=...)")
    elif model.config:
        lines.append(f"The network was built with {model.config}; the file with other options?")
    else:
        lines.append("It is incomplete or of another network; download the original file again.")
    return "\n".join(lines)


def recognise(state: dict[str, Tensor]) -> str | None:
    """The registered network whose keys and shapes are nearest to the file's, if any is near."""
    shapes = {(key, tuple(value.shape)) for key, value in state.items()}
    best, best_name = 0.5, None
    for name in list_models():
        with torch.device("meta"):
            forms = published_forms(build_model(name))
        for form in forms:
            ours = {key: tuple(value.shape) for key, value in form.state_dict().items()}
            for table in layouts(form).values():
                score = overlap([(table[key], shape) for key, shape in ours.items()], shapes)
                if score > best:
                    best, best_name = score, name
    return best_name


def overlap(a: Iterable, b: Iterable) -> float:
    """Shared elements over all elements."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b)


def few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def cache_folder() -> Path:
    """Where downloads are kept: `paperrepro` in torch.hub's folder, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "paperrepro"


def download_released(name: str) -> Path:
    """The released checkpoint of a network: from the cache, or downloaded into it.

    Raises:
        WeightsError: there is no address to download from, the download failed or has another
            checksum than the published one, or the cached file changed since it came.
    """
    release = RELEASED[name]
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
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        torch.hub.download_url_to_file(release.url, os.fspath(partial), release.sha256 or None)
        read_checkpoint(partial)
        record.write_text(sha256(partial) + "\n")
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{name} could not be downloaded from {release.url}: {error}. Nothing was kept; try "
            f"again, or fetch the file from {release.page} and pass its path as weights="
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
