"""Whether a run is resumed as it was begun, and what was changed on purpose."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .recipe import Recipe, changes, from_json

FIXED = ("model", "config", "optimizer", "layer_decay")
"""Fields of a recipe that a checkpoint's tensors depend on."""
OTHER = ("data", "processes")


def check_same(
    run: Path,
    state: Mapping[str, Any],
    recipe: Recipe,
    identity: Mapping[str, Any],
    allow: Collection[str] = (),
) -> None:
    """Refuses a checkpoint that was written by another network, recipe, data or processes.

    Args:
        state: of the checkpoint.
        identity: what the task says of itself, and the processes.
        allow: fields of the recipe, "data" and "processes" that may differ.

    Raises:
        ValueError: naming what differs, and how to go on.
    """
    known = {one.name for one in fields(Recipe)} - set(FIXED) | set(OTHER)
    for name in allow:
        if name not in known:
            raise ValueError(
                f"--allow {name}: a resumed run may change {', '.join(OTHER)} or a field of the "
                f"recipe other than {', '.join(FIXED)}"
            )
    theirs = from_json(state["recipe"])
    before = dict(state["identity"])
    differ = {name: (before.get(name), now) for name, now in identity.items()}
    differ = {name: pair for name, pair in differ.items() if pair[0] != pair[1]}
    for name, (was, now) in differ.items():
        if name in OTHER or (name == "images" and "data" in allow):
            continue
        raise ValueError(
            f"{run} is another run: {name} was {short(was)}, now {short(now)}; resume it as it "
            "began, or choose another folder"
        )
    if changed := {k: pair for k, pair in changes(recipe, theirs).items() if k not in allow}:
        pairs = ", ".join(f"{k} was {was!r}, now {now!r}" for k, (now, was) in changed.items())
        raise ValueError(
            f"{run} was begun by another recipe: {pairs}; resume it as it began, or change it on "
            f"purpose ({' '.join(f'--allow {name}' for name in changed)})"
        )
    if "data" in differ and "data" not in allow:
        raise ValueError(
            f"{run} was begun on data with other content (digest {differ['data'][0]}, now "
            f"{differ['data'][1]}); resume it on its own, or with --allow data"
        )
    if "processes" in differ and "processes" not in allow:
        was, now = differ["processes"]
        raise ValueError(
            f"{run} was begun by {was} processes, and now there are {now}: BatchNorm's statistics "
            "and the rounding change; resume it with as many, or with --allow processes"
        )


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
