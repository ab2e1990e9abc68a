"""Fitting a file's tensors to a network: every key, every shape, and whose file it is if not."""

import json
from collections.abc import Iterable
from functools import cache
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from ..models import Backbone, build_model, family_of, list_models
from ..reparam import reparameterize
from .checkpoint import SavedNetwork, WeightsError, few
from .layouts import layouts

CLASSIFIER = ("head.fc.", "head.classifier.")
WEIGHTLESS = {"drop_path_rate", "in_chans", "output_stride"}
"""Options under which the same weights fit."""


def fit(
    model: Backbone,
    state: dict[str, Tensor],
    saved: SavedNetwork | None,
    path: Path,
    *,
    trunk_only: bool = False,
) -> Backbone:
    """Puts the tensors into the network, strictly: every key, every shape.

    A stem for other images than RGB takes the file's weights as timm does: their sum for one
    channel, repeated for more.

    Returns:
        The network; another, re-parameterized one where the tensors are of that form.

    Raises:
        WeightsError: the file holds another network, other classes, or what is no weight.
    """
    model, state = match(model, state, saved, path, trunk_only=trunk_only)
    own = model.state_dict()
    for key, value in state.items():
        check_values(own[key], value, f"{path}: {key}")
    model.load_state_dict(state, strict=not trunk_only)
    if saved:
        model.input = saved.input or model.input
        model.classes = None if trunk_only else saved.classes
    return model


def match(
    model: Backbone,
    state: dict[str, Tensor],
    saved: SavedNetwork | None,
    path: Path,
    *,
    trunk_only: bool = False,
) -> tuple[Backbone, dict[str, Tensor]]:
    """The network in the form of the tensors, and the tensors under the network's names.

    Raises:
        WeightsError: the file holds another network, or other classes.
    """
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
    if model.in_chans != 3:
        stem = {names[key] for key in ours if key.startswith("stem.")}
        state = {
            key: for_channels(value, wanted[key]) if key in stem and key in wanted else value
            for key, value in state.items()
        }
    missing = [key for key in wanted if key not in state]
    surplus = [key for key in state if key not in wanted]
    different = [key for key in wanted if key in state and wanted[key] != state[key].shape]
    if different and not missing and not surplus and heads.issuperset(different):
        raise other_classes(path, len(state[different[0]]), model.num_classes)
    if missing or surplus or different:
        raise WeightsError(mismatch(model, state, path, missing, surplus, different))
    ours_by_name = {name: key for key, name in names.items()}
    return model, {ours_by_name[key]: value for key, value in state.items()}


def check_values(own: Tensor, value: Tensor, name: str) -> None:
    """Refuses integers instead of floating numbers, and variances below 0."""
    if value.is_floating_point() != own.is_floating_point():
        raise WeightsError(f"{name} holds {value.dtype} numbers, and the network's are {own.dtype}")
    if name.endswith("running_var") and bool((value < 0).any()):
        raise WeightsError(f"{name}, a variance, is below 0; save the network again")


def for_channels(kernel: Tensor, shape: torch.Size) -> Tensor:
    """A kernel over RGB as one over `shape[1]` channels, which answers alike to a grey image."""
    channels = shape[1] if len(shape) == 4 else 0
    if kernel.dim() != 4 or kernel.shape[1] != 3 or channels in (0, 3):
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    return kernel.repeat(1, ceil(channels / 3), 1, 1)[:, :channels] * (3 / channels)


def published_forms(model: Backbone) -> list[Backbone]:
    """The forms in which others publish the network: some also re-parameterized."""
    if model.variant is not None and family_of(model.variant).fused_releases:
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
    theirs, ours = (
        {key: value for key, value in config.items() if key not in WEIGHTLESS}
        for config in (saved.config, json.loads(json.dumps(model.config)))
    )
    if theirs != ours:
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
        for published in published_shapes(name):
            if (score := overlap(published, shapes)) > best:
                best, best_name = score, name
    return best_name


@cache
def published_shapes(name: str) -> list[frozenset[tuple[str, tuple[int, ...]]]]:
    """The keys and shapes of a network in every form and layout."""
    with torch.device("meta"):
        forms = published_forms(build_model(name))
    return [
        frozenset((table[key], tuple(value.shape)) for key, value in form.state_dict().items())
        for form in forms
        for table in layouts(form).values()
    ]


def overlap(a: Iterable, b: Iterable) -> float:
    """Shared elements over all elements."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b)
