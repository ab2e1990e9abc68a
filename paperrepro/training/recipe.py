"""The papers' training settings as data: one recipe per network and purpose.

    >>> recipe = find_recipe("fasternet_m")
    >>> recipe.lr, recipe.batch_size, recipe.clip_grad
    (0.002, 2048, 1.0)
    >>> override(recipe, ["lr=0.001", "clip_grad=0.1"]).lr
    0.001

Every network has the recipe "paper" and the recipe "small", which trains a narrow and shallow
version in minutes; RepLKNet has more. What a paper leaves open and its released code says is taken
from the code, and `Recipe.source` says so.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches

from ..models import check_name, family_of
from ..weights import RELEASED

OPTIMIZERS = ("sgd", "adamw")
INTERPOLATIONS = ("bilinear", "bicubic", "random")
DISTILLATIONS = ("none", "hard", "soft")
SMALLEST = 32  # pixels: the last stage halves the image five times


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        model: the network's registered name.
        source: where the settings stand, and what they leave open.
        config: options of the network.
        epochs, batch_size: the batch is that of all processes and accumulated steps together.
        accumulate: forward and backward passes per step.
        optimizer: "sgd" with momentum 0.9, or "adamw" with betas 0.9 and 0.999.
        lr: the highest learning rate, for this batch size.
        warmup_epochs, warmup_lr: a linear rise from `warmup_lr`, then a cosine down to `min_lr`.
        weight_decay: of all but norms and biases.
        final_weight_decay: what the same cosine anneals it to; None leaves it as it is.
        layer_decay: the learning rate falls by this factor from each stage to the one before it.
        clip_grad: the largest norm of the gradient, None for no limit.
        size: the side of the images in pixels, in the end and in validation.
        progressive: from which epoch on, the size, and a factor of AutoAugment's strength.
        crop_scale: the share of an image that a random resized crop keeps.
        interpolation: of the random resized crop.
        flip: mirrors every other image where the data allow it.
        rand_augment: magnitude from 0 to 10.
        auto_augment: strength from 0 to 1.
        erasing: the probability of random erasing.
        mixup, cutmix: their alpha.
        repeats: of repeated augmentation.
        label_smoothing: of the cross entropy.
        ema: the decay of the weights' exponential moving average, which is kept; 0 for none.
        amp: computes in float16 on a GPU; a CPU stays in float32.
        sync_bn: BatchNorm over all processes.
        distillation: "none"; "hard" learns the teacher's answer; "soft" its probabilities.
        teacher: "timm:NAME", "torchvision:NAME", or a file made by `save_model`.
        distillation_weight: of the teacher's part of the loss, the labels having the rest.
        temperature: of soft distillation.
        test_crop: the share that validation's centre crop keeps; None takes the whole image.
        max_unreadable: the share of unreadable images that stops the training.
        seed: of the weights' initialisation, the order and the augmentation.

    Raises:
        ValueError: naming the field, its value and what it takes.
    """

    model: str
    source: str
    config: dict = field(default_factory=dict)
    epochs: int
    batch_size: int
    accumulate: int = 1
    optimizer: str
    lr: float
    warmup_epochs: int = 0
    warmup_lr: float = 1e-6
    min_lr: float = 0.0
    weight_decay: float
    final_weight_decay: float | None = None
    layer_decay: float = 1.0
    clip_grad: float | None = None
    size: int = 224
    progressive: tuple[tuple[int, int, float], ...] = ()
    crop_scale: tuple[float, float] = (0.08, 1.0)
    interpolation: str = "bicubic"
    flip: bool = True
    rand_augment: float = 0.0
    auto_augment: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
    label_smoothing: float = 0.0
    ema: float = 0.0
    amp: bool = False
    sync_bn: bool = False
    distillation: str = "none"
    teacher: str | None = None
    distillation_weight: float = 0.5
    temperature: float = 1.0
    test_crop: float | None = None
    max_unreadable: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.model)
        for each in fields(self):
            value = fitting(each.name, getattr(self, each.name), each.type)
            object.__setattr__(self, each.name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise wrong(self, name, f"one of {', '.join(choices)}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise wrong(self, name, f"between {low} and {high}")
        if self.warmup_epochs >= self.epochs:
            raise wrong(self, "warmup_epochs", f"less than epochs={self.epochs}")
        if self.batch_size % self.accumulate:
            raise wrong(self, "accumulate", f"a divisor of batch_size={self.batch_size}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise wrong(self, "crop_scale", "two shares, the smaller first")
        if (self.distillation != "none") != (self.teacher is not None):
            raise wrong(self, "teacher", f"given with distillation, here {self.distillation!r}")
        starts = [start for start, _, _ in self.progressive]
        if starts and (
            starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.epochs
        ):
            raise wrong(self, "progressive", f"from epoch 0, rising, before epochs={self.epochs}")
        if any(size < SMALLEST for _, size, _ in self.progressive):
            raise wrong(self, "progressive", f"of at least {SMALLEST} pixels")
        if starts and self.progressive[-1][1] != self.size:
            raise wrong(self, "progressive", f"of size={self.size} in the end")

    def stage(self, epoch: int) -> tuple[int, float]:
        """Progressive learning: the size in that epoch, and the factor of AutoAugment."""
        reached = [stage for stage in self.progressive if stage[0] <= epoch]
        return reached[-1][1:] if reached else (self.size, 1.0)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


CHOICES = {
    "optimizer": OPTIMIZERS,
    "interpolation": INTERPOLATIONS,
    "distillation": DISTILLATIONS,
}
LIMIT = 1e9
RANGES = {
    "epochs": (1, LIMIT),
    "batch_size": (1, LIMIT),
    "accumulate": (1, LIMIT),
    "lr": (1e-12, LIMIT),
    "warmup_epochs": (0, LIMIT),
    "warmup_lr": (0, LIMIT),
    "min_lr": (0, LIMIT),
    "weight_decay": (0, LIMIT),
    "final_weight_decay": (0, LIMIT),
    "layer_decay": (0, 1),
    "clip_grad": (0, LIMIT),
    "size": (SMALLEST, LIMIT),
    "rand_augment": (0, 10),
    "auto_augment": (0, 1),
    "erasing": (0, 1),
    "mixup": (0, LIMIT),
    "cutmix": (0, LIMIT),
    "repeats": (1, LIMIT),
    "label_smoothing": (0, 1),
    "ema": (0, 1),
    "distillation_weight": (0, 1),
    "temperature": (1e-3, LIMIT),
    "test_crop": (0.1, 1),
    "max_unreadable": (0, 1),
}


def wrong(recipe: Recipe, name: str, expected: str) -> ValueError:
    return ValueError(f"recipe: {name} is {getattr(recipe, name)!r}; it must be {expected}")


def fitting(name: str, value: object, kind: type) -> object:
    """The value as the field's type, and as what JSON makes of it."""
    if kind == float | None and value is None or kind == str | None and value is None:
        return None
    if kind in (float, float | None) and isinstance(value, int | float) and value is not True:
        return float(value)
    if kind in (str, str | None) and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is dict and isinstance(value, dict):
        return json.loads(json.dumps(value))
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if name == "progressive":
            return tuple((int(start), int(size), float(by)) for start, size, by in value)
        if name == "crop_scale":
            low, high = value
            return float(low), float(high)
    except (TypeError, ValueError):
        pass
    expected = getattr(kind, "__name__", str(kind))
    raise ValueError(f"recipe: {name} is {value!r}; it must be of type {expected}")


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
    for name in values:
        check_field(name)
    missing = {"model", "source", "epochs", "batch_size", "optimizer", "lr", "weight_decay"}
    if missing := sorted(missing - set(values)):
        raise ValueError(f"the recipe lacks {', '.join(missing)}")
    return Recipe(**values)


def check_field(name: str) -> None:
    names = [each.name for each in fields(Recipe)]
    if name not in names:
        near = get_close_matches(name, names, 3, 0.5)
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
    return replace(recipe, config=config, **values)


def mobileone(name: str) -> Recipe:
    strong = name in ("mobileone_s2", "mobileone_s3", "mobileone_s4")
    return Recipe(
        model=name,
        source="MobileOne, Sections 3.4 and 4, Table 10. Open, and chosen here: no warm-up, no "
        "decay of norms and biases, bilinear crops.",
        epochs=300,
        batch_size=256,
        optimizer="sgd",
        lr=0.1,
        weight_decay=1e-4,
        final_weight_decay=1e-5,
        progressive=((0, 160, 0.3), (39, 192, 0.6), (114, 224, 1.0)),
        interpolation="bilinear",
        auto_augment=1.0 if strong else 0.0,
        label_smoothing=0.1,
        ema=0.9995,
        test_crop=RELEASED[name].crop,
    )


# Table 6 by variant: weight decay, RandAugment's magnitude, MixUp's alpha, learning rate, batch
# size; and the norm of the gradient at which the released configuration clips.
FASTERNET = {
    "fasternet_t0": (0.005, 0, 0.05, 4e-3, 4096, None),
    "fasternet_t1": (0.01, 3, 0.1, 4e-3, 4096, None),
    "fasternet_t2": (0.02, 5, 0.1, 4e-3, 4096, None),
    "fasternet_s": (0.03, 7, 0.3, 4e-3, 4096, None),
    "fasternet_m": (0.05, 7, 0.5, 2e-3, 2048, 1.0),
    "fasternet_l": (0.05, 7, 0.7, 2e-3, 2048, 0.01),
}


def fasternet(name: str) -> Recipe:
    weight_decay, magnitude, mixup, lr, batch_size, clip_grad = FASTERNET[name]
    clipping = " The table clips no gradients; the released code of M and L does."
    return Recipe(
        model=name,
        source="FasterNet, Table 6; warm-up from 1e-6 and cosine to 1e-5 are the released code's."
        + (clipping if clip_grad else ""),
        epochs=300,
        batch_size=batch_size,
        optimizer="adamw",
        lr=lr,
        warmup_epochs=20,
        min_lr=1e-5,
        weight_decay=weight_decay,
        clip_grad=clip_grad,
        progressive=((0, 192, 1.0), (280, 224, 1.0)),
        rand_augment=magnitude,
        mixup=mixup,
        cutmix=1.0,
        label_smoothing=0.1,
        amp=True,
        test_crop=0.9,
    )


def local_global(name: str) -> Recipe:
    """MobileViG, MobileViGv2 and RapidNet, which one code base trains."""
    return Recipe(
        model=name,
        source="MobileViGv2, Section 5.1, and RapidNet, Section 4.1. What they leave open (weight "
        "decay, warm-up, strengths, label smoothing, EMA, BatchNorm, RapidNet's batch) is the "
        "released code's. The code multiplies the papers' rate by batch_size / 1024: set lr=0.004 "
        "for that.",
        epochs=300,
        batch_size=2048,
        optimizer="adamw",
        lr=2e-3,
        warmup_epochs=20,
        min_lr=1e-5,
        weight_decay=0.05,
        interpolation="random",
        rand_augment=9,
        erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
        label_smoothing=0.1,
        ema=0.99996,
        amp=True,
        sync_bn=True,
        distillation="hard",
        teacher="timm:regnety_160.deit_in1k",
        test_crop=0.9,
    )


def replknet(name: str) -> dict[str, Recipe]:
    """RepLKNet's recipes: 120 epochs for the kernel sizes, 300 and more for the large networks."""
    base = Recipe(
        model=name,
        source="RepLKNet, Appendix A, 120 epochs; BatchNorm over all processes is the code's.",
        config={"drop_path_rate": 0.3},
        epochs=120,
        batch_size=2048,
        optimizer="adamw",
        lr=4e-3,
        warmup_epochs=10,
        weight_decay=0.05,
        rand_augment=9,
        erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        label_smoothing=0.1,
        sync_bn=True,
        test_crop=0.875,
    )
    finetune = replace(
        base,
        source="RepLKNet, Appendix A, finetuning; weight decay 1e-8 is the released command's.",
        epochs=30,
        batch_size=512,
        lr=4e-4,
        warmup_epochs=1,
        weight_decay=1e-8,
        mixup=0.0,
        cutmix=0.0,
        ema=0.9999,
    )
    at_384 = {"size": 384, "test_crop": None}
    pretrain = replace(
        base,
        source="RepLKNet, Appendix A, pretraining on ImageNet-22K.",
        config={"drop_path_rate": 0.1},
        epochs=90,
        batch_size=4096,
    )
    if name == "replknet_31b":
        long = replace(
            base,
            source="RepLKNet, Appendix A, 300 epochs, drop-path 0.5. The released command also "
            "averages the weights: set ema=0.9999 for that.",
            config={"drop_path_rate": 0.5},
            epochs=300,
        )
        at_384_from_1k = replace(
            finetune,
            source="RepLKNet, Appendix A, finetuning at 384 pixels from the weights of 'paper'; "
            "weight decay, drop-path 0.8 and layer decay 0.7 are the released command's.",
            config={"drop_path_rate": 0.8},
            batch_size=1024,
            layer_decay=0.7,
            **at_384,
        )
        at_224_from_22k = replace(finetune, config={"drop_path_rate": 0.2})
        return {
            "paper": long,
            "120": base,
            "384": at_384_from_1k,
            "22k": pretrain,
            "22k-224": at_224_from_22k,
            "22k-384": replace(finetune, **at_384),
        }
    if name == "replknet_31l":
        return {"paper": pretrain, "384": replace(finetune, **at_384)}
    if name == "replknet_xl":
        last = replace(
            finetune,
            source="RepLKNet, Appendix A, finetuning at 320 pixels after the private MegData73M; "
            "'following BEiT' leaves open what is taken from the finetuning of B and L here.",
            lr=1e-4,
            layer_decay=0.4,
            size=320,
            test_crop=RELEASED[name].crop,
        )
        return {"paper": last}
    return {"paper": base}


def mobilenetv2(name: str) -> Recipe:
    return Recipe(
        model=name,
        source="RepLKNet, Appendix A, MobileNet V2 of Section 3; decay of norms and biases is left "
        "open there, and none is chosen here.",
        epochs=100,
        batch_size=256,
        optimizer="sgd",
        lr=0.1,
        warmup_epochs=5,
        weight_decay=4e-5,
        test_crop=0.875,
    )


# The small recipe. Every change has its reason; tests/test_recipe.py holds that none lacks one.

SMALL: dict[str, dict] = {
    "mobileone": {
        "config": {"widths": (0.5, 0.5, 0.5, 0.5), "blocks": (1, 2, 3, 1)},
        "lr": 0.05,
    },
    "fasternet": {
        "config": {"embed_dim": 24, "depths": (1, 1, 3, 1), "drop_path_rate": 0.0},
    },
    "replknet": {
        "config": {"channels": (24, 48, 96, 192), "depths": (1, 1, 2, 1), "drop_path_rate": 0.0},
        "lr": 4e-3,
    },
    "mobilevig": {
        "config": {"channels": (16, 32, 64, 128), "local": (1, 1, 2, 0), "graphs": (0, 0, 0, 1)},
    },
    "mobilevigv2": {
        "config": {"channels": (16, 32, 64, 128), "local": (1, 1, 2, 1), "graphs": (0, 1, 1, 1)},
    },
    "rapidnet": {
        "config": {"channels": (16, 32, 64, 128), "local": (1, 1, 2, 1), "dilated": (0, 0, 1, 1)},
    },
    "mobilenetv2": {
        "config": {
            "width": 0.35,
            "blocks": (1, 1, 2, 2, 1, 2, 1),
            "strides": (1, 1, 1, 2, 1, 2, 1),
        },
        "lr": 0.05,
    },
}
ONE_HEAD = {"embed_dim": 128, "drop_path_rate": 0.0, "distilled": False}
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
    "auto_augment": "as for rand_augment",
    "erasing": "as for rand_augment",
    "mixup": "as for rand_augment",
    "cutmix": "as for rand_augment",
    "repeats": "a batch of 64 shall hold 64 images",
    "ema": "an average over as large a part of the training: over the last epoch or two",
    "amp": "a CPU computes in float32",
    "sync_bn": "one process has the whole batch",
    "distillation": "no teacher for the small data; every family by the same rule",
    "teacher": "as for distillation",
    "test_crop": "the whole of a small picture",
}


def small(paper: Recipe) -> Recipe:
    """The recipe by which a network of the family learns in minutes on two CPU cores."""
    family = family_of(paper.model)
    changes = SMALL[family]
    config = changes["config"] | (ONE_HEAD if "vig" in family or family == "rapidnet" else {})
    return replace(
        paper,
        source=f"The library's, after: {paper.source}",
        config=config,
        epochs=20,
        batch_size=64,
        lr=changes.get("lr", 2e-3),
        warmup_epochs=1 if paper.warmup_epochs else 0,
        weight_decay=paper.weight_decay if paper.optimizer == "sgd" else 0.05,
        layer_decay=1.0,
        size=SMALLEST,
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
    )


def list_recipes(name: str) -> dict[str, Recipe]:
    """The recipes of a network by their names, the paper's first.

    Raises:
        ValueError: unknown network.
    """
    check_name(name)
    family = family_of(name)
    if family == "replknet":
        recipes = replknet(name)
    else:
        makers = {"mobileone": mobileone, "fasternet": fasternet, "mobilenetv2": mobilenetv2}
        make = makers.get(family, local_global)
        recipes = {"paper": make(name)}
    return recipes | {"small": small(recipes["paper"])}


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
    pairs = {
        each.name: (getattr(recipe, each.name), getattr(base, each.name)) for each in fields(Recipe)
    }
    return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}
