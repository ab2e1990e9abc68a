"""paperrepro: five papers on fast vision backbones, reproduced.

>>> import paperrepro, torch
>>> model = paperrepro.create_model("mobileone_s0").eval()
>>> fused = paperrepro.reparameterize(model)
>>> fused(torch.rand(1, 3, 224, 224)).shape
torch.Size([1, 1000])

PyTorch is imported with the first of these names that is used, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .drawing import draw
    from .models import list_models
    from .networks import evaluation_transform
    from .reparam import reparameterize
    from .weights import create_model, load_model, save_model

__version__ = "0.1.0"
__all__ = [
    "create_model",
    "draw",
    "evaluation_transform",
    "list_models",
    "load_model",
    "reparameterize",
    "save_model",
]
_MODULES = {
    "create_model": "weights",
    "draw": "drawing",
    "evaluation_transform": "networks",
    "list_models": "models",
    "load_model": "weights",
    "reparameterize": "reparam",
    "save_model": "weights",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'paperrepro' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
