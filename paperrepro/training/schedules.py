"""How the learning rate and the weight decay move during a training."""

import math

from .recipe import Recipe

POWER = 0.9
"""Of the schedule "poly" (DeepLab; Chen et al., 2017)."""
DROP = 0.1
"""By which the schedule "step" multiplies the rate at each milestone."""


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate after `epoch` epochs, parts of one included: a linear warm-up, then the schedule."""
    if epoch < recipe.warmup_epochs:
        share = epoch / recipe.warmup_epochs
        return recipe.warmup_lr + share * (recipe.lr - recipe.warmup_lr)
    if recipe.schedule == "step":
        return recipe.lr * DROP ** sum(epoch >= milestone for milestone in recipe.milestones)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    if recipe.schedule == "poly":
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * max(1 - done, 0.0) ** POWER
    return anneal(recipe.lr, recipe.min_lr, done)


def weight_decay(recipe: Recipe, epoch: float) -> float:
    """The weight decay after `epoch` epochs, annealed by the same cosine (MobileOne, Section 4)."""
    if recipe.final_weight_decay is None:
        return recipe.weight_decay
    return anneal(recipe.weight_decay, recipe.final_weight_decay, epoch / recipe.epochs)


def anneal(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` to `end`, at a share from 0 to 1 (Loshchilov and Hutter, 2017)."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
