"""Training: the papers' recipes, and one loop for a laptop and a cluster."""

from .curves import draw_curves, read_log
from .evaluation import evaluate
from .recipe import Recipe, find_recipe, list_recipes, override
from .trainer import Diverged, Interrupted, train

__all__ = [
    "Diverged",
    "Interrupted",
    "Recipe",
    "draw_curves",
    "evaluate",
    "find_recipe",
    "list_recipes",
    "override",
    "read_log",
    "train",
]
