"""Networks with their weights: the authors' released files, timm's, and this library's own.

Every file is read without running code from it: safetensors, or `torch.load(weights_only=True)`.

- `checkpoint`: reads a file.
- `match`: fits it to a network, and says whose it is where it does not fit.
- `layouts`: the names that other code gives to the same weights.
- `released`: downloads.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import safetensors.torch
import torch
from torch import Tensor

from ..files import write_atomically
from ..models import Backbone, FeatureExtractor, build_model
from .checkpoint import (
    SavedNetwork,
    WeightsError,
    read_checkpoint,
    saved_network,
    sealed,
)
from .match import fit, match
from .released import download_released, timm_weights

__all__ = [
    "WeightsError",
    "create_model",
    "download_released",
    "load_model",
    "load_weights",
    "read_checkpoint",
    "save_model",
]

Weights = str | os.PathLike[str]
LARGEST_SMALL_NETWORK = 1024  # numbers of options up to this are built on trust


@overload
def create_model(
    name: str,
    *,
    num_classes: int = ...,
    weights: Weights | None = ...,
    trunk_only: bool = ...,
    features_only: Literal[False] = ...,
    **options: Any,
) -> Backbone: ...
@overload
def create_model(
    name: str,
    *,
    weights: Weights | None = ...,
    features_only: Literal[True],
    out_indices: Sequence[int] = ...,
    **options: Any,
) -> FeatureExtractor: ...


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    weights: Weights | None = None,
    trunk_only: bool = False,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    **options: Any,
) -> Backbone | FeatureExtractor:
    """A network by name, freshly initialised or with weights.

    Args:
        name: one of `paperrepro.list_models()`.
        num_classes: the classes of the classifier; 0 for pooled features in their place.
        weights: None; "released" for the paper's checkpoint, downloaded once and cached;
            "timm:TAG" for one of timm's, such as "timm:mobileone_s0.apple_in1k"; or the path of a
            file: the authors', timm's, OpenMMLab's or one made by `save_model`.
        trunk_only: leaves the file's classifier out, and the network's as it was initialised; for
            another `num_classes` than the file's.
        features_only: returns a module that gives a list of maps, for detection and segmentation.
        out_indices: which of the four maps it gives.
        **options: of every network: `in_chans`, the channels of the images (3); `output_stride`,
            32, 16 or 8; `drop_path_rate`, the largest rate of stochastic depth. Further ones are
            those of the network's class, for the papers' ablations.

    Returns:
        The network in training mode, as PyTorch leaves it; re-parameterized and in eval mode if
        the file holds re-parameterized weights.

    Raises:
        ValueError: unknown name or option.
        WeightsError: the file is missing, damaged, unsafe, or another network's.
    """
    headless = num_classes == 0 and weights is not None
    model = build_model(name, num_classes=1 if headless else num_classes, **options)
    if weights is not None:
        source = os.fspath(weights)
        trunk_only = trunk_only or headless or features_only
        if source.startswith("timm:"):
            state = timm_weights(source.removeprefix("timm:"))
            model = fit(model, state, None, Path(source), trunk_only=trunk_only)
        else:
            path = download_released(name) if source == "released" else Path(source)
            model = load_weights(model, path, trunk_only=trunk_only)
    if headless:
        model.reset_classifier(0)
    return FeatureExtractor(model, out_indices) if features_only else model


def save_model(model: Backbone, path: str | os.PathLike) -> None:
    """Writes the weights as safetensors, with what describes the network in the file's metadata:
    its name and options, the preparation of its images and the names of its classes.

    The file is written under a temporary name beside `path` and then renamed.

    The same network gives the same bytes.

    Raises:
        ValueError: the network was not made by `create_model`, so that it has no name.
        OSError: the file cannot be written; what was there is whole.
    """
    name = getattr(model, "variant", None)
    if name is None:
        raise ValueError("save_model needs a network made by paperrepro.create_model")
    saved = SavedNetwork(
        name,
        model.num_classes,
        model.config,
        model.reparameterized,
        model.input,
        model.classes,
    )
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    content = safetensors.torch.save(state, saved.to_metadata())
    write_atomically(path, sealed(content))


def load_model(path: str | os.PathLike) -> Backbone:
    """The network in a file made by `save_model`: name, options, input, classes and weights.

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
    check_size(saved, state, path)
    try:
        with torch.device("meta"):
            outline = build_model(saved.name, num_classes=saved.num_classes, **saved.config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise WeightsError(
            f"{path} was saved as {saved.name} with {saved.config}, which this version of "
            f"paperrepro cannot build: {error}"
        ) from error
    match(outline, state, saved, path)  # before anything of that size is allocated
    model = build_model(saved.name, num_classes=saved.num_classes, **saved.config)
    return fit(model, state, saved, path)


def check_size(saved: SavedNetwork, state: dict[str, Tensor], path: Path) -> None:
    """Refuses metadata that asks for more layers or channels than the file has tensors for."""
    sides = [side for value in state.values() for side in value.shape]
    most = max([LARGEST_SMALL_NETWORK, len(state), *sides])
    for number in numbers_in([saved.num_classes, saved.config]):
        if not abs(number) <= most:
            raise WeightsError(
                f"{path} says it was built with {number} ({saved.config}, {saved.num_classes} "
                "classes), and its tensors have nothing of that size; save the network again"
            )


def numbers_in(value: object) -> Iterator[float]:
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, int | float):
        yield value


def load_weights(model: Backbone, path: Path, *, trunk_only: bool = False) -> Backbone:
    """Loads a file into a network made by `build_model`, and returns the network.

    What comes back is another, re-parameterized network where the file holds such weights.
    """
    state, metadata = read_checkpoint(path)
    return fit(model, state, saved_network(metadata, path), path, trunk_only=trunk_only)
