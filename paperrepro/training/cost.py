"""What a training costs in operations, and from them an estimate of its hours on a GPU."""

import pandas as pd
import torch

from ..complexity import count_macs
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
