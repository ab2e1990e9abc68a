"""The thirty networks by name, and the test bed of RepLKNet's guidelines."""

import difflib
import inspect
from collections.abc import Callable

from .layers import Backbone

_NETWORKS: dict[str, tuple[type[Backbone], Callable[..., Backbone]]] = {}
_TEST_BEDS: set[str] = set()


def register(network: type[Backbone], *, test_bed: bool = False) -> Callable:
    """Makes the decorated function, which configures `network`, known under its own name.

    Args:
        test_bed: leaves it off the list of the papers' networks; it is built, trained and saved
            like those.
    """

    def add(build: Callable[..., Backbone]) -> Callable[..., Backbone]:
        _NETWORKS[build.__name__] = (network, build)
        if test_bed:
            _TEST_BEDS.add(build.__name__)
        return build

    return add


def list_models(family: str | None = None) -> list[str]:
    """The names of the networks, smallest first within a family.

    Args:
        family: one of mobileone, fasternet, replknet, mobilevig, mobilevigv2, rapidnet.

    Raises:
        ValueError: there is no such family.
    """
    names = [name for name in _NETWORKS if name not in _TEST_BEDS]
    families = list(dict.fromkeys(family_of(name) for name in names))
    if family is not None and family not in families:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(families)}")
    return [name for name in names if family in (None, family_of(name))]


def family_of(name: str) -> str:
    """The family of a registered name: `family_of("replknet_31b") == "replknet"`."""
    return name.partition("_")[0]


def check_name(name: str) -> None:
    """Raises a ValueError that names the nearest networks where there is none of that name."""
    if name not in _NETWORKS:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), _NETWORKS, 3, 0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "paperrepro.list_models() has all"
        raise ValueError(f"unknown network {name!r}: {hint}")


def build_model(name: str, *, num_classes: int = 1000, **config) -> Backbone:
    """A freshly initialised network; `paperrepro.create_model` adds the weights.

    Raises:
        ValueError: unknown name (the nearest are named), unknown option, or fewer than 1 class.
    """
    check_name(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 1")
    network, build = _NETWORKS[name]
    options = [
        option for option in inspect.signature(network).parameters if option != "num_classes"
    ]
    for option in config:
        if option not in options:
            raise ValueError(f"{name} has no option {option!r}: it takes {', '.join(options)}")
    model = build(num_classes=num_classes, **config)
    model.variant = name
    model.config = config
    return model
