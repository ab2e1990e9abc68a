"""What a training costs in operations, and from them an estimate of its hours on a GPU."""

from dataclasses import dataclass, replace

import pandas as pd
import torch

from ..complexity import count_macs
from ..dense import build_detector, build_segmenter
from ..dense.counts import dense_macs
from ..models import build_model
from .recipe import Recipe, find_recipe

IMAGENET = 1_281_167
"""Training images of ImageNet-1K."""

A100 = 312e12
"""FLOP/s of an NVIDIA A100 in bfloat16 by its data sheet, without sparsity."""

UTILISATION = (0.2, 0.02)
"""Shares of it that the estimate assumes: a network of dense convolutions, and one whose depthwise
convolutions and small maps wait for memory. Assumed, not measured."""

TEACHER_MACS = {"timm:regnety_160.deit_in1k": 15_911_510_272}
"""For an image of 224 pixels; `count_macs` of torchvision's `regnet_y_16gf`."""


def training_flops(recipe: Recipe, images: int = IMAGENET) -> float:
    """The FLOPs of a whole training: two per multiply-accumulate, three passes' worth for the
    network (the backward pass is two) and one for its teacher, at each epoch's size."""
    with torch.device("meta"):
        model = build_model(recipe.model, **recipe.config)
    answer = TEACHER_MACS[recipe.teacher] if recipe.teacher else 0
    sizes = [recipe.stage(epoch)[0] for epoch in range(recipe.epochs)]
    total = 0.0
    for size in set(sizes):
        macs = 3 * count_macs(model, size) + answer * (size / 224) ** 2
        total += 2 * macs * images * sizes.count(size)
    return total


def estimated_costs(
    names: tuple[str, ...], *, peak: float = A100, shares: tuple[float, ...] = UTILISATION
) -> pd.DataFrame:
    """ESTIMATES, nothing measured: the training of networks by their papers' recipes.

    Returns:
        A row per network: epochs, batch, exaflops (10^18 operations), and the hours of one GPU
        that reaches each of the `shares` of `peak` FLOP/s.
    """
    rows = []
    for name in names:
        recipe = find_recipe(name)
        flops = training_flops(recipe)
        rows.append(
            {
                "network": name,
                "epochs": recipe.epochs,
                "batch": recipe.batch_size,
                "exaflops": round(flops / 1e18, 1),
            }
            | {f"hours at {share:.0%}": round(flops / (peak * share) / 3600) for share in shares}
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Downstream:
    """What a paper's recipe for detection or segmentation is for.

    Attributes:
        task, head: of `paperrepro train`.
        data: the name of the set, as a user calls its folder.
        pictures, classes: of the set.
        size: height and width of a picture in training; None for crops of the recipe's size.
    """

    task: str
    head: str
    data: str
    pictures: int
    classes: int
    size: tuple[int, int] | None = None


COCO = Downstream("detect", "mask_rcnn", "coco", 118_287, 80, (800, 1280))
ADE20K = Downstream("segment", "upernet", "ade20k", 20_210, 150)
DOWNSTREAM = {
    **{head: replace(COCO, head=head) for head in ("mask_rcnn", "fcos", "cascade_mask_rcnn")},
    "ssdlite": replace(COCO, head="ssdlite", size=(320, 320)),
    **{head: replace(ADE20K, head=head) for head in ("semantic_fpn", "upernet", "deeplabv3")},
    "upernet-cityscapes": Downstream("segment", "upernet", "cityscapes", 2_975, 19),
}
"""By the recipe's name."""


def downstream_flops(name: str, recipe: str) -> float:
    """The FLOPs of a whole training by a recipe of `DOWNSTREAM`: two per multiply-accumulate and
    three passes' worth, as in `training_flops`.

    Args:
        name: the backbone.
        recipe: a key of `DOWNSTREAM` that the backbone has.
    """
    found, what = find_recipe(name, recipe), DOWNSTREAM[recipe]
    build = build_detector if what.task == "detect" else build_segmenter
    with torch.device("meta"):
        model = build(name, what.head, what.classes, config=found.config)
    macs = dense_macs(model, what.size or (found.size, found.size))
    return 6.0 * macs * what.pictures * found.epochs


def downstream_help(name: str, recipe: str) -> str:
    """The command of a training by a recipe of `DOWNSTREAM`, and an ESTIMATE of its GPU-hours."""
    what = DOWNSTREAM[recipe]
    flops = downstream_flops(name, recipe)
    low, high = (flops / (A100 * share) / 3600 for share in UTILISATION)
    return (
        f"torchrun --nproc-per-node 8 -m paperrepro train {name} --task {what.task} "
        f"--head {what.head} --recipe {recipe} --weights released --data {what.data} "
        f"--out runs/{name}-{recipe}\n"
        f"ESTIMATE, nothing measured: {flops / 1e18:.1f} exaFLOPs, {low:,.0f} to {high:,.0f} hours "
        f"of one A100 at {UTILISATION[0]:.0%} and {UTILISATION[1]:.0%} of its peak."
    )
