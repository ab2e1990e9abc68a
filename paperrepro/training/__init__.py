"""Training: the papers' recipes, and one loop for a laptop and a cluster."""

from ..signals import Interrupted
from .curves import draw_curves, read_log
from .evaluation import evaluate
from .place import Machine
from .recipe import Recipe, find_recipe, list_recipes, override
from .task import Classification, Task
from .trainer import Diverged, Trainer, fit, train

__all__ = [
    "Classification",
    "Diverged",
    "Interrupted",
    "Machine",
    "Recipe",
    "Task",
    "Trainer",
    "draw_curves",
    "evaluate",
    "find_recipe",
    "fit",
    "list_recipes",
    "override",
    "read_log",
    "train",
]
