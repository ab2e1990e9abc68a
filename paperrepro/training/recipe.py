"""How a network is trained, as data: one recipe per network and purpose.

    >>> recipe = find_recipe("fasternet_m")
    >>> recipe.lr, recipe.batch_size, recipe.clip_grad
    (0.002, 2048, 1.0)
    >>> override(recipe, ["lr=0.001", "clip_grad=0.1"]).lr
    0.001

Every network has the recipe "paper" and the recipe "small", which trains a narrow and shallow
version in minutes; RepLKNet has more. The papers' settings stand in `papers`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, fields, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from ..models import check_name, family_of
from ..models.backbone import SMALLEST_SIDE

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Amount = Annotated[float, Field(ge=0, le=1e9)]


def about(text: str) -> Any:
    """What a field means."""
    return Field(description=text)


def as_tuples(value: object) -> object:
    """Lists as tuples, at any depth: JSON has no tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def as_json(value: object) -> object:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class Recipe:
    """How a network is trained.

    Each field states its type, its range and its meaning, which `paperrepro recipe` prints.

    Raises:
        ValueError: naming the field, its value and what it takes.
    """

    model: Annotated[str, about("the network's registered name")]
    source: Annotated[str, about("where the settings stand, and what they leave open")]
    config: Annotated[dict[str, Any], BeforeValidator(as_json), about("options of the network")] = (
        field(default_factory=dict)
    )
    epochs: Annotated[Positive, about("passes over the images")]
    batch_size: Annotated[
        Positive, about("images per step, of all processes and accumulated passes together")
    ]
    accumulate: Annotated[Positive, about("forward and backward passes per step")] = 1
    optimizer: Annotated[
        Literal["sgd", "adamw", "lamb"],
        about("sgd with momentum 0.9, or adamw or lamb with betas 0.9 and 0.999"),
    ]
    lr: Annotated[
        float, Field(ge=1e-12, le=1e9), about("the highest learning rate, for this batch size")
    ]
    warmup_epochs: Annotated[
        int | float, Field(ge=0), about("of a linear rise from warmup_lr, before the schedule")
    ] = 0
    warmup_lr: Annotated[Amount, about("where the warm-up begins")] = 1e-6
    min_lr: Annotated[Amount, about("where the schedule ends")] = 0.0
    schedule: Annotated[
        Literal["cosine", "step", "poly"],
        about("half a cosine, a tenth from each milestone on, or a power of 0.9"),
    ] = "cosine"
    milestones: Annotated[
        tuple[Positive, ...], BeforeValidator(as_tuples), about("epochs of the schedule step")
    ] = ()
    weight_decay: Annotated[Amount, about("of all but norms and biases")]
    final_weight_decay: Annotated[
        Amount | None, about("what the same cosine anneals it to; None leaves it as it is")
    ] = None
    layer_decay: Annotated[
        Share, about("the learning rate falls by this factor from each stage to the one before")
    ] = 1.0
    clip_grad: Annotated[
        Annotated[float, Field(gt=0, le=1e9)] | None,
        about("the largest norm of the gradient, None for no limit"),
    ] = None
    size: Annotated[
        int,
        Field(ge=SMALLEST_SIDE),
        about("side of the images in pixels, in the end and in validation"),
    ] = 224
    progressive: Annotated[
        tuple[tuple[int, int, float], ...],
        BeforeValidator(as_tuples),
        about("from which epoch on: the size, and a factor of AutoAugment's strength"),
    ] = ()
    crop_scale: Annotated[
        tuple[float, float],
        BeforeValidator(as_tuples),
        about("the share of an image that a random resized crop keeps"),
    ] = (0.08, 1.0)
    interpolation: Annotated[
        Literal["bilinear", "bicubic", "random"], about("of the random resized crop")
    ] = "bicubic"
    flip: Annotated[bool, about("mirrors every other image where the data allow it")] = True
    rand_augment: Annotated[float, Field(ge=0, le=10), about("RandAugment's magnitude")] = 0.0
    auto_augment: Annotated[Share, about("AutoAugment's strength")] = 0.0
    erasing: Annotated[Share, about("the probability of random erasing")] = 0.0
    mixup: Annotated[Amount, about("MixUp's alpha; 0 for none")] = 0.0
    cutmix: Annotated[Amount, about("CutMix's alpha; 0 for none")] = 0.0
    mix_epochs: Annotated[
        Positive | None, about("how many epochs mix images by MixUp and CutMix; None for all")
    ] = None
    repeats: Annotated[Positive, about("of repeated augmentation")] = 1
    loss: Annotated[
        Literal["cross_entropy", "bce"],
        about("cross entropy over the classes, or a binary one for each (bce)"),
    ] = "cross_entropy"
    label_smoothing: Annotated[Share, about("of the labels")] = 0.0
    ema: Annotated[
        float,
        Field(ge=0, lt=1),
        about("decay of the weights' moving average, which is kept; 0 for none"),
    ] = 0.0
    ema_every: Annotated[Positive, about("steps between two updates of the average")] = 1
    ema_warmup: Annotated[
        bool, about("a smaller decay at first: (1 + n) / (10 + n) after n updates")
    ] = False
    amp: Annotated[bool, about("computes in mixed precision, in training and validation")] = False
    amp_dtype: Annotated[
        Literal["float16", "bfloat16"],
        about("of mixed precision on an NVIDIA GPU; elsewhere it is bfloat16"),
    ] = "float16"
    sync_bn: Annotated[bool, about("BatchNorm over all processes")] = False
    distillation: Annotated[
        Literal["none", "hard", "soft"],
        about("hard learns the teacher's answer, soft its probabilities"),
    ] = "none"
    teacher: Annotated[
        str | None, about("timm:NAME, torchvision:NAME, or a file made by save_model")
    ] = None
    distillation_weight: Annotated[
        Share, about("of the teacher's part of the loss, the labels having the rest")
    ] = 0.5
    temperature: Annotated[float, Field(ge=1e-3, le=1e9), about("of soft distillation")] = 1.0
    test_crop: Annotated[
        Annotated[float, Field(ge=0.1, le=1)] | None,
        about("the share that validation's centre crop keeps; None takes the whole image"),
    ] = None
    max_unreadable: Annotated[
        Share, about("the share of unreadable images that stops the training")
    ] = 0.01
    seed: Annotated[int, about("of the initialisation, the order and the augmentation")] = 0

    @model_validator(mode="after")
    def fields_fit_together(self) -> "Recipe":
        check_name(self.model)
        if self.warmup_epochs >= self.epochs:
            raise wrong(self, "warmup_epochs", f"less than epochs={self.epochs}")
        if self.batch_size % self.accumulate:
            raise wrong(self, "accumulate", f"a divisor of batch_size={self.batch_size}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise wrong(self, "crop_scale", "two shares, the smaller first")
        if (self.distillation != "none") != (self.teacher is not None):
            raise wrong(self, "teacher", f"given with distillation, here {self.distillation!r}")
        if (self.schedule == "step") != bool(self.milestones) or list(self.milestones) != sorted(
            set(self.milestones)
        ):
            raise wrong(self, "milestones", "rising, and given with schedule='step' alone")
        if self.repeats > self.batch_size:
            raise wrong(self, "repeats", f"at most batch_size={self.batch_size}")
        starts = [start for start, _, _ in self.progressive]
        if starts and (
            starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.epochs
        ):
            raise wrong(self, "progressive", f"from epoch 0, rising, before epochs={self.epochs}")
        if any(size < SMALLEST_SIDE for _, size, _ in self.progressive):
            raise wrong(self, "progressive", f"of at least {SMALLEST_SIDE} pixels")
        if starts and self.progressive[-1][1] != self.size:
            raise wrong(self, "progressive", f"of size={self.size} in the end")
        return self

    def stage(self, epoch: int) -> tuple[int, float]:
        """Progressive learning: the size in that epoch, and the factor of AutoAugment."""
        reached = [stage for stage in self.progressive if stage[0] <= epoch]
        return reached[-1][1:] if reached else (self.size, 1.0)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


def wrong(recipe: Recipe, name: str, expected: str) -> ValueError:
    return ValueError(f"{name} is {getattr(recipe, name)!r}; it must be {expected}")


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe of its fields.

    Raises:
        ValueError: in one line: an unknown or a missing field, or a value that does not fit.
    """
    for name in values:
        check_field(name)
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise ValueError(f"recipe: {'; '.join(map(first_fault, error.errors()))}") from error


def first_fault(fault: Any) -> str:
    """One of pydantic's errors in words: the field, its value, what it must be."""
    if not fault["loc"]:
        return fault["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{name} is missing"
    return f"{name} is {fault['input']!r}; {fault['msg'][0].lower()}{fault['msg'][1:]}"


def meanings() -> dict[str, str]:
    """What each field of a recipe means."""
    properties = TypeAdapter(Recipe).json_schema()["properties"]
    return {name: properties[name]["description"] for name in properties}


def from_json(text: str) -> Recipe:
    """The recipe that `to_json` wrote.

    Raises:
        ValueError: not JSON, an unknown or a missing field, or a value that does not fit.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the recipe is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("the recipe is not a JSON object of fields and values")
    return make_recipe(values)


def check_field(name: str) -> None:
    names = [one.name for one in fields(Recipe)]
    if name not in names:
        near = get_close_matches(name, names, 3, 0.6)
        if not near:
            words = name.lower().split("_")
            near = [one for one, text in meanings().items() if all(map(text.__contains__, words))]
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names)}"
        raise ValueError(f"a recipe has no field {name!r}: {hint}")


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with some fields replaced.

    Args:
        settings: such as "lr=0.01", "clip_grad=null" or "config.k=2"; the value is read as JSON,
            and as a string where it is none.

    Raises:
        ValueError: no "=", an unknown field, or a value that does not fit.
    """
    values: dict = {}
    config = dict(recipe.config)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} sets nothing; write field=value, such as lr=0.01")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        head, _, option = name.partition(".")
        check_field(head)
        if head == "config" and option:
            config[option] = value
        elif option:
            raise ValueError(f"{name!r}: only config has options, such as config.{option}=...")
        elif head == "config":
            config = value
        else:
            values[head] = value
    return make_recipe(asdict(recipe) | {"config": config} | values)


# The small recipe. Every change has its reason; tests/test_recipe.py holds that none lacks one.

REASONS = {
    "config": "about a hundredth of the network: narrow and shallow, with the same blocks; without "
    "stochastic depth and, having no teacher, with one head",
    "epochs": "minutes on two cores instead of days on many GPUs",
    "batch_size": "a thousand steps out of a few thousand images",
    "lr": "for a batch of 64 and so few steps; it learned the digits",
    "warmup_epochs": "one of twenty epochs",
    "weight_decay": "one value for every family: at this length it makes little difference",
    "layer_decay": "trained from scratch, not finetuned",
    "size": "the smallest image that the networks take",
    "progressive": "no stage can be smaller than the smallest image",
    "crop_scale": "a small picture of one object loses it in a small crop",
    "interpolation": "bilinear is cheaper, and at this size as good",
    "rand_augment": "a short training of a small network underfits; augmentation would slow it",
    "auto_augment": "a short training of a small network underfits; augmentation would slow it",
    "erasing": "as for rand_augment",
    "mixup": "as for rand_augment",
    "cutmix": "as for rand_augment",
    "repeats": "a batch of 64 shall hold 64 images",
    "ema": "an average over as large a part of the training: over the last epoch or two",
    "amp": "a small network on a CPU gains nothing by it",
    "sync_bn": "one process has the whole batch",
    "distillation": "no teacher for the small data; every family by the same rule",
    "teacher": "as for distillation",
    "test_crop": "the whole of a small picture",
}


def small(paper: Recipe) -> Recipe:
    """The recipe by which a network of the family learns in minutes on two CPU cores.

    Raises:
        MissingFactError: the family does not state its narrow and shallow network.
    """
    changes = {"lr": 2e-3} | family_of(paper.model).need("small")
    return replace(
        paper,
        source=f"The library's, after: {paper.source}",
        config=changes.pop("config"),
        epochs=20,
        batch_size=64,
        warmup_epochs=1 if paper.warmup_epochs else 0,
        weight_decay=paper.weight_decay if paper.optimizer == "sgd" else 0.05,
        layer_decay=1.0,
        size=SMALLEST_SIDE,
        progressive=(),
        crop_scale=(0.6, 1.0),
        interpolation="bilinear",
        rand_augment=0.0,
        auto_augment=0.0,
        erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        repeats=1,
        ema=0.98 if paper.ema else 0.0,
        amp=False,
        sync_bn=False,
        distillation="none",
        teacher=None,
        test_crop=None,
        **changes,
    )


def list_recipes(name: str) -> dict[str, Recipe]:
    """The recipes of a network by their names, the paper's first.

    Raises:
        ValueError: unknown network.
        MissingFactError: its family states no recipes.
    """
    family = family_of(name)
    recipes = {
        label: make_recipe({"model": name} | dict(settings))
        for label, settings in family.need("recipes")(name).items()
    }
    return recipes if family.small is None else recipes | {"small": small(recipes["paper"])}


def find_recipe(name: str, recipe: str = "paper") -> Recipe:
    """One recipe of a network.

    Raises:
        ValueError: unknown network, or it has no recipe of that name.
    """
    recipes = list_recipes(name)
    if recipe not in recipes:
        raise ValueError(f"{name} has no recipe {recipe!r}; it has {', '.join(recipes)}")
    return recipes[recipe]


def changes(recipe: Recipe, base: Recipe) -> dict[str, tuple[object, object]]:
    """The fields in which two recipes differ: `{field: (recipe's value, base's value)}`."""
    names = [one.name for one in fields(Recipe)]
    pairs = {name: (getattr(recipe, name), getattr(base, name)) for name in names}
    return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}
