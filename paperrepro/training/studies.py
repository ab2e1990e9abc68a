"""The experiments of the ablations, as data: what is compared, on what, by which recipe.

An experiment holds everything but one thing: the same data, the same recipe, the same seeds. Its
variants are recipes "small" with some fields replaced.

    >>> experiment = EXPERIMENTS["mobileone-factor"]
    >>> list(experiment.variants)
    ['no branches', 'k = 1', 'k = 2', 'k = 3', 'k = 4', 'k = 5']
    >>> experiment.recipe("k = 4", seed=1).config["k"]
    4
"""

from dataclasses import dataclass, field, replace
from typing import Any

from .recipe import Recipe, find_recipe

TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One question, asked with several variants of a network or of its training.

    Attributes:
        source: the tables and figures of the paper that ask it.
        data: what the networks are trained on, a name of `load_data`.
        common: fields of the recipe that all variants share.
        variants: by its label, the network and the fields in which it differs.
        teacher: a network that is trained first, for the variants that distil.
        differs: how this is smaller than the paper's experiment, where that matters.
        seeds: how many runs of each variant the design asks for, fixed before they began.
        images: how many training images are used, evenly spaced; all of them by default.
        watched: how many test images, evenly spaced, are looked at after each epoch; all of them
            by default. The trained network always answers to all.
        rates: what each variant tries first as its learning rate, in multiples of the recipe's; it
            then keeps its best (`training.experiments.best_rates`).
        trial: fields of the recipe in which these trials differ, such as fewer epochs.
    """

    source: str
    data: str
    common: dict
    variants: dict[str, tuple[str, dict]]
    teacher: tuple[str, dict] | None = None
    differs: str = ""
    seeds: int = 3
    images: int | None = None
    watched: int | None = None
    rates: tuple[float, ...] = ()
    trial: dict = field(default_factory=dict)

    def recipe(
        self, label: str, seed: int = 0, teacher: str | None = None, rate: float = 1.0
    ) -> Recipe:
        """The recipe of a variant; of the teacher too, by the label "teacher".

        Args:
            teacher: the file of the teacher, for a variant that distils.
            rate: multiplies the learning rate.
        """
        variant = self.teacher if label == TEACHER else self.variants[label]
        if variant is None:
            raise ValueError("the experiment has no teacher")
        network, fields = variant
        base = find_recipe(network, "small")
        fields = self.common | fields
        fields["config"] = base.config | fields.get("config", {})
        if fields.get("distillation", "none") != "none":
            fields["teacher"] = teacher or "the experiment's teacher"
        recipe = replace(base, **fields, seed=seed)
        return replace(recipe, lr=recipe.lr * rate)


# Networks of about 200 thousand parameters; sixteen of them are kept in data/weights.
TINY = {
    "mobileone": (
        "mobileone_s0",
        {"widths": (0.375, 0.375, 0.25, 0.25), "blocks": (1, 2, 3, 1)},
    ),
    "fasternet": ("fasternet_t0", {"embed_dim": 12, "depths": (1, 1, 3, 1)}),
    "replknet": ("replknet_31b", {"channels": (16, 24, 48, 64), "depths": (1, 1, 2, 1)}),
    "mobilevigv2": (
        "mobilevigv2_ti",
        {
            "channels": (16, 24, 32, 64),
            "local": (1, 1, 2, 1),
            "graphs": (0, 1, 1, 1),
            "distances": (8, 4, 2, 1),
            "embed_dim": 32,
        },
    ),
    "rapidnet": (
        "rapidnet_ti",
        {
            "channels": (16, 24, 32, 64),
            "local": (1, 1, 2, 1),
            "dilated": (0, 0, 1, 1),
            "embed_dim": 32,
        },
    ),
}
SMALL_KERNELS = {
    "replknet-k3": "replknet_3",
    "replknet-k7": "replknet_7",
    "replknet-k13": "replknet_13",
}
FAMILIES = {family: (name, {"config": config}) for family, (name, config) in TINY.items()} | {
    label: (name, {"config": TINY["replknet"][1]}) for label, name in SMALL_KERNELS.items()
}


def tiny(family: str, **fields: Any) -> tuple[str, dict]:
    """The family's tiny network with other options: `config` and further fields of the recipe."""
    name, config = TINY[family]
    return name, fields | {"config": config | fields.get("config", {})}


def rapid(
    mixer: str = "mldc", *, cpe: bool = True, lk_ffn: bool = True, **more: Any
) -> tuple[str, dict]:
    config = {"local": (1, 1, 1, 1), "dilated": (2, 1, 0, 0), "mixer": mixer}
    fields = more.pop("fields", {})
    return tiny("rapidnet", config=config | {"cpe": cpe, "lk_ffn": lk_ffn} | more, **fields)


def graphs(graph: str, stages: int, *, cpe: bool) -> tuple[str, dict]:
    config = {
        "local": (1, 1, 1, 1),
        "graphs": (1, 1, 1, 0) if stages == 3 else (0, 0, 3, 0),
        "distances": (2, 2, 2, 2) if graph == "svga" else (8, 4, 2, 1),
        "graph": graph,
        "cpe": cpe,
    }
    return tiny("mobilevigv2", config=config)


def kernels(size: int, depths: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """A narrow RepLKNet whose stages have the kernels of Table 5, as backbone of the segmenters."""
    sizes = {31: (31, 29, 27, 13), 13: (13,) * 4, 7: (7,) * 4, 3: (3,) * 4}[size]
    config = dict(
        channels=(16, 32, 64, 128),
        depths=depths,
        kernels=sizes,
        small_kernel=None if size == 3 else 5,
        drop_path_rate=0.0,
    )
    return "replknet_31b", config


def large_kernel(kernel_size: int, **config: Any) -> tuple[str, dict]:
    return "mobilenetv2", {"config": {"kernel_size": kernel_size} | config}


PLAIN = {"ema": 0.0, "final_weight_decay": None}
PROGRESSIVE = {"progressive": ((0, 32, 1.0), (1, 36, 1.0), (2, 40, 1.0))}
ANNEALED = {"final_weight_decay": 1e-5}

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
MOBILEONE_WIDTHS = {
    "S1": {"widths": (0.75, 0.75, 0.5, 0.5)},
    "S3": {"widths": (1.0, 1.25, 0.75, 0.75)},
}

EXPERIMENTS: dict[str, Experiment] = {
    "shapes": Experiment(
        source="The five families, and RepLKNet's kernel sizes (its Table 5), under one budget.",
        data="shapes",
        common={"size": 64, "epochs": 4},
        variants=FAMILIES,
    ),
    "cifar10-full": Experiment(
        source="The five families, and RepLKNet's kernel sizes (its Table 5), under one budget.",
        data="cifar10",
        watched=2000,
        common={"size": 64, "epochs": 20},
        rates=(0.5, 1.0, 2.0),
        trial={"epochs": 2},
        variants=FAMILIES,
        differs="Images of 64 pixels, so the four stages' maps have 16, 8, 4 and 2 pixels: most of "
        "a kernel of 31 meets padding.",
    ),
    "cifar10-kernels": Experiment(
        source="RepLKNet, Table 5: kernels of 31 against kernels of 3, with seeds enough.",
        data="cifar10",
        seeds=8,
        images=10000,
        watched=1000,
        common={"size": 64, "epochs": 5},
        variants={label: FAMILIES[label] for label in ("replknet-k3", "replknet")},
        differs="Images of 64 pixels, so the four stages' maps have 16, 8, 4 and 2 pixels: most of "
        "a kernel of 31 meets padding.",
    ),
    "tiny-imagenet": Experiment(
        source="The five families, and RepLKNet's kernels of 31 and 3, on ImageNet's pictures.",
        data="tiny_imagenet_50",
        common={"size": 64, "epochs": 20},
        rates=(0.5, 1.0, 2.0),
        trial={"epochs": 2},
        variants={label: FAMILIES[label] for label in (*TINY, "replknet-k3")},
        differs="Fifty classes, and pictures of 64 pixels, so the four stages' maps have 16, 8, 4 "
        "and 2 pixels.",
    ),
    "mobileone-factor": Experiment(
        source="MobileOne, Tables 6 and 7, Figure 4: each arm at its own best learning rate.",
        data="cifar10",
        seeds=8,
        images=5000,
        watched=1000,
        common={"epochs": 10, "batch_size": 32},
        rates=RATES,
        trial={"epochs": 4},
        variants={
            "no branches": tiny("mobileone", config={"branches": False, "k": 1}),
            **{f"k = {k}": tiny("mobileone", config={"k": k}) for k in (1, 2, 3, 4, 5)},
        },
        differs="A network of 29 thousand parameters, 5,000 images of 32 pixels, 10 epochs.",
    ),
    "mobileone-widths": Experiment(
        source="MobileOne, Table 7: S1 and S3, each arm at its own best learning rate.",
        data="cifar10",
        seeds=8,
        images=5000,
        watched=1000,
        common={"epochs": 10, "batch_size": 32},
        rates=RATES,
        trial={"epochs": 4},
        variants={
            f"{size}, {label}": tiny("mobileone", config=MOBILEONE_WIDTHS[size] | config)
            for size in MOBILEONE_WIDTHS
            for label, config in {
                "no branches": {"branches": False, "k": 1},
                "with branches": {"k": 1},
            }.items()
        },
        differs="Two and three times the widths of the network in the place of S0.",
    ),
    "mobileone-training": Experiment(
        source="MobileOne, Tables 5 and 10.",
        data="cifar10",
        seeds=8,
        images=5000,
        watched=1000,
        common={"epochs": 4, "size": 40, "batch_size": 32},
        variants={
            "baseline": tiny("mobileone", **PLAIN),
            "+ progressive learning": tiny("mobileone", **PLAIN | PROGRESSIVE),
            "+ annealed weight decay": tiny("mobileone", **PLAIN | PROGRESSIVE | ANNEALED),
            "+ EMA": tiny("mobileone", **PROGRESSIVE | ANNEALED),
        },
        differs="Sizes 32, 36 and 40 for the paper's 160, 192 and 224, from about the same "
        "fractions of the training; no AutoAugment, so its strength is not progressive; S0 for S2.",
    ),
    "fasternet-block": Experiment(
        source="FasterNet, Table 5.",
        data="cifar10",
        seeds=13,
        images=5000,
        watched=1000,
        common={"epochs": 4, "batch_size": 32},
        variants={
            "r = 1/2": tiny("fasternet", config={"embed_dim": 24, "n_div": 2}),
            "r = 1/4": tiny("fasternet", config={"embed_dim": 24, "n_div": 4}),
            "r = 1/8": tiny("fasternet", config={"embed_dim": 24, "n_div": 8}),
            "LayerNorm": tiny("fasternet", config={"embed_dim": 24, "norm": "layer"}),
            "ReLU": tiny("fasternet", config={"embed_dim": 24, "act": "relu"}),
        },
        differs="The widths stay the same for every r, where the paper adapts them to the FLOPs.",
    ),
    "rapidnet-mixers": Experiment(
        source="RapidNet, Tables 4, 5 and 6.",
        data="cifar10",
        seeds=8,
        images=10000,
        watched=1000,
        common={"epochs": 3},
        variants={
            "pointwise": rapid("pointwise", cpe=False, lk_ffn=False),
            "3x3": rapid("conv3x3", cpe=False, lk_ffn=False),
            "SVGA": rapid("svga"),
            "SLDC": rapid("dilated", cpe=False, lk_ffn=False),
            "SLDC + CPE": rapid("dilated", lk_ffn=False),
            "SLDC + CPE + LK-FFN": rapid("dilated"),
            "MLDC": rapid(),
            "MLDC, dilations 3 and 4": rapid(dilations=(3, 4)),
            "MLDC, 5x5": rapid(kernels=(5, 5)),
            "deformable": rapid("deformable"),
            "MLDC, distilled": rapid(
                distilled=True, fields={"distillation": "hard", "distillation_weight": 0.5}
            ),
        },
        teacher=("mobileone_s0", {"epochs": 12}),
        differs="Images of 32 pixels, so the dilated blocks stand in stages 1 and 2, whose maps "
        "have 8 and 4 pixels; the teacher is a MobileOne of the recipe 'small'.",
    ),
    "mobilevigv2-graphs": Experiment(
        source="MobileViGv2, Table 3.",
        data="cifar10",
        seeds=13,
        images=5000,
        watched=1000,
        common={"epochs": 3, "size": 64, "batch_size": 32},
        variants={
            "SVGA, 1 stage": graphs("svga", 1, cpe=False),
            "SVGA, 3 stages": graphs("svga", 3, cpe=False),
            "SVGA + CPE, 1 stage": graphs("svga", 1, cpe=True),
            "SVGA + CPE, 3 stages": graphs("svga", 3, cpe=True),
            "fully connected, 3 stages": graphs("fc", 3, cpe=False),
            "MGC + CPE, 3 stages": graphs("mgc", 3, cpe=True),
        },
        differs="Images of 64 pixels, so the graphs stand in stages 1 to 3 (maps of 16, 8 and 4 "
        "pixels) or in stage 3 alone.",
    ),
    "mobilenetv2-kernels": Experiment(
        source="RepLKNet, Tables 2, 3 and 11.",
        data="cifar10",
        seeds=8,
        images=5000,
        watched=1000,
        common={"epochs": 5, "batch_size": 32},
        variants={
            "3x3": large_kernel(3),
            "13x13": large_kernel(13),
            "3x3, no shortcut": large_kernel(3, shortcut=False),
            "13x13, no shortcut": large_kernel(13, shortcut=False),
            "9x9": large_kernel(9),
            "9x9 + 3x3": large_kernel(9, small_kernel=3),
            "13x13 + 3x3": large_kernel(13, small_kernel=3),
            "3x3 dilated by 4": large_kernel(3, dilation=4),
            "3x3 dilated by 6": large_kernel(3, dilation=6),
        },
        differs="Images of 32 pixels and a network of 12 blocks that halves the map three times: "
        "maps of 16, 8 and 4 pixels, so that most of a 13x13 kernel, and all but the centre of a "
        "dilated one, often meets padding.",
    ),
    "mobilenetv2-last-stage": Experiment(
        source="RepLKNet, Table 4.",
        data="cifar10",
        seeds=8,
        images=5000,
        watched=1000,
        common={"epochs": 4, "size": 56, "batch_size": 32},
        variants={
            "3x3": large_kernel(3),
            "7x7": large_kernel(7, last_stage_only=True, small_kernel=3),
            "13x13": large_kernel(13, last_stage_only=True, small_kernel=3),
        },
        differs="Images of 56 pixels and a network of 12 blocks that halves the map three times: "
        "the last stage's map has 7 pixels, as the paper's at 224.",
    ),
    "camvid-classifiers": Experiment(
        source="RepLKNet, Table 5: the backbones of `training.dense_studies` as classifiers.",
        data="cifar10",
        seeds=5,
        images=5000,
        watched=1000,
        common={"size": 64, "epochs": 5, "batch_size": 32},
        variants={
            f"K = {k}": (name, {"config": config})
            for k in (3, 7, 13, 31)
            for name, config in [kernels(k, (1, 1, 3, 1))]
        },
        differs="Images of 64 pixels, so the first stage's maps have 16 pixels.",
    ),
    "cues": Experiment(
        source="RepLKNet, Figure 5: the shape bias of kernels of 31 and of 3.",
        data="cues",
        seeds=20,
        watched=256,
        common={"size": 64, "epochs": 4},
        variants={label: FAMILIES[label] for label in ("replknet-k3", "replknet")},
        differs="Pictures of shapes of which, by lot, the shape or the texture tells the class, so "
        "that both have to be learned.",
    ),
}
