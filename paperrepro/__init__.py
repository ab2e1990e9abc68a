"""paperrepro: five papers on fast vision backbones, reproduced.

>>> import paperrepro, torch
>>> model = paperrepro.create_model("mobileone_s0").eval()
>>> fused = paperrepro.reparameterize(model)
>>> fused(torch.rand(1, 3, 224, 224)).shape
torch.Size([1, 1000])
"""

from .models import list_models
from .reparam import reparameterize
from .weights import create_model, evaluation_transform, load_model, save_model

__version__ = "0.1.0"
__all__ = [
    "create_model",
    "evaluation_transform",
    "list_models",
    "load_model",
    "reparameterize",
    "save_model",
]
