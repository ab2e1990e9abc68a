"""The networks by name, and all that is particular to the family of each.

A `Family` stands in the file of its network and holds what the rest of the library asks about it.
What a family does not state is nobody else's to fill in: asking for it is a `MissingFactError`.

    >>> family_of("replknet_31b").paper.year
    2022
    >>> list_models("fasternet_t*")
    ['fasternet_t0', 'fasternet_t1', 'fasternet_t2']
"""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from .backbone import Backbone, set_output_stride

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, from 0 to 1."""


class MissingFactError(ValueError):
    """A family does not state what was asked of it; the message names the fact and the place."""


@dataclass(frozen=True)
class Paper:
    """A publication, for citing it; `arxiv` is its number there."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str = ""

    def __str__(self) -> str:
        return f"{self.title} ({self.authors}, {self.venue} {self.year})"


@dataclass(frozen=True)
class Input:
    """How an image is prepared for a network.

    Attributes:
        size: the side of the square that the network sees, in pixels.
        crop: the share of the resized image that the centre crop keeps; None resizes the whole
            image to a square.
        interpolation: "bilinear" or "bicubic".
        mean, std: of each channel, for values from 0 to 1.
    """

    size: int = 224
    crop: float | None = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]


@dataclass(frozen=True)
class Release:
    """A published checkpoint: where it is, and what the paper reports of it.

    Attributes:
        top1: the paper's top-1 accuracy on ImageNet-1k in percent, never ours.
        url: the file; None where there is no address to download from.
        page: where a reader finds the file and its licence.
        layout: the names of its weights, a key of the family's `layouts`.
        sha256: the first digits of the file's checksum where one is published.
        input: where it is not the family's.
        note: what else a user of the file should know.
    """

    top1: float
    url: str | None
    page: str
    layout: str = "released"
    sha256: str = ""
    input: Input | None = None
    note: str = ""


@dataclass(frozen=True)
class DenseCount:
    """How a paper's tables count a detector or segmenter, as their digits reveal it.

    Beside the multiply-adds the counter of OpenMMLab, which they used, counts an operation for each
    output of a convolution with a bias and of a ReLU.

    Attributes:
        fused: whether the backbone is re-parameterized, as far as the released code does that.
        per_norm: the operations that it counts for each output of a BatchNorm.
        mask_predictor: whether it counts the last two layers of a mask head.
    """

    fused: bool
    per_norm: int
    mask_predictor: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """One paper's networks. Only `network` and `variants` are required.

    Attributes:
        network: the class; its options are the keyword arguments of its constructor.
        variants: by name, which begins with the family's, the options that differ from defaults.
        name: the class's in lower case, unless given.
        paper: where the networks come from.
        input: how images are prepared for evaluation.
        parameters: the parameters as the paper's tables count them, of the network in training
            form and its re-parameterized copy.
        macs_of: which of the two forms the paper's multiply-adds are of.
        described: what the tables state of a variant besides; functions of a network to a text,
            each named as the quantity is in data/claims.
        releases: the published checkpoint of each variant.
        layouts: names of the published weights: functions of a network to renaming rules, by
            layout (see `paperrepro.weights.layouts`); or "module:name", where they stand.
        fused_releases: whether checkpoints of the re-parameterized form are published too.
        normalised_maps: the variants whose detectors and segmenters put a BatchNorm on each map.
        dense_count: how the paper's tables count those.
        recipes: how a variant is trained: a function of its name to fields of
            `paperrepro.training.Recipe` by the recipe's name, "paper" first; or "module:name".
        small: fields of the recipe "small", its `config` a narrow and shallow network.
        color: of the family in figures.
        test_bed: leaves it off the list of the papers' networks.
    """

    network: type[Backbone]
    variants: Mapping[str, Mapping[str, Any]]
    name: str = ""
    paper: Paper | None = None
    input: Input | None = None
    parameters: Callable[[Backbone, Backbone], int] | None = None
    macs_of: Literal["training", "fused"] | None = None
    described: tuple[Callable[[Backbone], str], ...] = ()
    releases: Mapping[str, Release] = field(default_factory=dict)
    layouts: str | Mapping[str, Callable] = field(default_factory=dict)
    fused_releases: bool = False
    normalised_maps: tuple[str, ...] = ()
    dense_count: DenseCount | None = None
    recipes: str | Callable[[str], Mapping[str, Mapping[str, Any]]] | None = None
    small: Mapping[str, Any] | None = None
    color: str | None = None
    test_bed: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.network.__name__.lower())

    def need(self, fact: str) -> Any:
        """What the family states; "module:name" is looked up there.

        Raises:
            MissingFactError: it does not state this.
        """
        value = getattr(self, fact)
        if value is None:
            raise MissingFactError(
                f"the family {self.name} does not state its {fact}: give {fact}= in the Family "
                f"record in {inspect.getfile(self.network)}"
            )
        return pkgutil.resolve_name(value) if isinstance(value, str) and ":" in value else value


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Makes a family's variants known by name, in the order of its table.

    Raises:
        ValueError: a variant's name does not begin with the family's, or is another family's.
    """
    for name in family.variants:
        if name.partition("_")[0] != family.name:
            raise ValueError(f"the variant {name!r} of {family.name} must begin with {family.name}")
        if name in _FAMILIES and _FAMILIES[name].network is not family.network:
            raise ValueError(f"{name!r} is a network of {_FAMILIES[name].network} already")
    _FAMILIES.update(dict.fromkeys(family.variants, family))
    return family


def unregister(family: Family) -> None:
    """Takes a family's variants off the list again."""
    for name in family.variants:
        del _FAMILIES[name]


def families() -> dict[str, Family]:
    """The papers' families by name, in the order of the book."""
    return {family.name: family for family in _FAMILIES.values() if not family.test_bed}


def list_models(pattern: str | None = None, *, weights: str | None = None) -> list[str]:
    """The names of the networks, smallest first within a family.

    Args:
        pattern: a family's name, or a pattern such as `fast*` or `*_ti`; None for all.
        weights: "released" for those whose checkpoint can be downloaded.

    Raises:
        ValueError: nothing has such a name, or `weights` is something else.
    """
    if weights not in (None, "released"):
        raise ValueError(f"weights is {weights!r}; list_models takes None or 'released'")
    names = [name for name, family in _FAMILIES.items() if not family.test_bed]
    if pattern is not None:
        if pattern in families():
            names = [name for name in names if _FAMILIES[name].name == pattern]
        else:
            names = [name for name in names if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(
                f"no network is called {pattern!r}: give a pattern such as 'fast*', or a family, "
                f"one of {', '.join(families())}"
            )
    return [name for name in names if weights is None or downloadable(name)]


def downloadable(name: str) -> bool:
    release = _FAMILIES[name].releases.get(name)
    return release is not None and release.url is not None


def family_of(name: str | None) -> Family:
    """The family of a registered network.

    Raises:
        ValueError: there is none of that name; the nearest are named.
    """
    if name is None:
        raise ValueError("the network has no name: build it with paperrepro.create_model")
    check_name(name)
    return _FAMILIES[name]


def release_of(name: str) -> Release:
    """The published checkpoint of a network.

    Raises:
        MissingFactError: its family states none.
    """
    family = family_of(name)
    if name not in family.releases:
        raise MissingFactError(
            f"the family {family.name} states no release of {name}: give one in releases= of the "
            f"Family record in {inspect.getfile(family.network)}, or the path of a file as weights="
        )
    return family.releases[name]


def input_of(name: str) -> Input:
    """How images are prepared for the network's evaluation.

    Raises:
        MissingFactError: its family does not state it.
    """
    family = family_of(name)
    release = family.releases.get(name)
    return (release and release.input) or family.need("input")


def is_known(name: str) -> bool:
    """Whether a network of that name is registered."""
    return name in _FAMILIES


def check_name(name: str) -> None:
    """Raises a ValueError that names the nearest networks where there is none of that name."""
    if name not in _FAMILIES:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), _FAMILIES, 3, 0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "paperrepro.list_models() has all"
        raise ValueError(f"unknown network {name!r}: {hint}")


def build_model(
    name: str, *, num_classes: int = 1000, output_stride: int = 32, **options: Any
) -> Backbone:
    """A freshly initialised network; `paperrepro.create_model` adds the weights.

    Args:
        num_classes: 0 leaves the classifier out: the network returns pooled features.
        output_stride: 8 or 16 for dense prediction: the later stages are dilated instead of
            halving the map.
        **options: of the network's class.

    Raises:
        ValueError: unknown name (the nearest are named), unknown option or one of which no network
            can be made, or a negative number of classes.
    """
    family = family_of(name)
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}; give 1 or more, or 0 for no classifier")
    known = [o for o in inspect.signature(family.network).parameters if o != "num_classes"]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}: it takes {', '.join(known)}")
    arguments = {**family.variants[name], **options}
    try:
        model = family.network(num_classes=max(num_classes, 1), **arguments)
        empty = [key for key, weight in model.named_parameters() if not weight.numel()]
        if empty:
            raise ValueError(f"{empty[0]} would have no weights")
        if not 0 <= arguments.get("drop_path_rate", 0) < 1:
            raise ValueError("drop_path_rate is a probability below 1")
    except Exception as error:  # of an option that does not fit any may come
        if not options:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise ValueError(f"{name} with {given}: {reason}") from error
    if num_classes == 0:
        model.reset_classifier(0)
    model.variant, model.config = name, dict(options)
    release = family.releases.get(name)
    model.input = (release and release.input) or family.input
    if output_stride != 32:
        set_output_stride(model, output_stride)
        model.config["output_stride"] = output_stride
    return model
