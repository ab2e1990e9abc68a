"""Parameters and multiply-accumulates, plainly counted and as each paper counts them.

A network has one number of parameters and the papers print five kinds. Each family states its
paper's rule (`Family.parameters`), as its released code or its table reveals it, so that a table
can be checked to its last digit while the network stays right.
"""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from tqdm import tqdm

from .models import Backbone, build_model, family_of, list_models
from .models.describe import count_parameters, norm_parameters, stage_depths
from .reparam import reparameterize
from .results import load_result

__all__ = [
    "Complexity",
    "complexity",
    "complexity_table",
    "count_macs",
    "count_moved",
    "count_parameters",
    "layer_counts",
    "norm_parameters",
    "paper_macs",
    "paper_parameters",
    "stage_table",
    "stored_complexity",
]


@dataclass(frozen=True)
class Complexity:
    """The size of a network: parameters in training, re-parameterized and as its paper counts
    (None where the family states no rule); multiply-accumulates (MACs) for one image in training
    form and re-parameterized."""

    params: int
    params_fused: int
    params_paper: int | None
    macs: int
    macs_fused: int


def count_macs(model: nn.Module, size: int | tuple[int, int] = 224) -> int:
    """Multiply-accumulates for one image, by torch's own counter of operations.

    Convolutions and matrix products count; BatchNorm, activations, pooling, additions and the
    comparisons of a graph convolution do not. The FLOPs of the papers are these MACs.

    Args:
        size: the side of the image in pixels, or (height, width).
    """
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: deform_conv_flops}
    )
    see_one_image(model, size, counter)
    return counter.get_total_flops() // 2


def count_moved(model: nn.Module, size: int | tuple[int, int] = 224) -> int:
    """Numbers that convolutions and matrix products read and write for one image.

    Each reads its inputs and its weights once and writes its output once: FasterNet's Eqs. 2 and 3,
    summed over a network. What else touches a map (activations, additions, BatchNorm, a rewriting
    of the layout) is left out, as in `count_macs`.

    Args:
        size: the side of the image in pixels, or (height, width).
    """
    counter = MovedNumbers()
    see_one_image(model, size, counter)
    return counter.total


def see_one_image(
    model: nn.Module, size: int | tuple[int, int], counter: AbstractContextManager[Any]
) -> None:
    """Runs a network in eval mode on one empty image, under a counter, and restores its mode."""
    height, width = (size, size) if isinstance(size, int) else size
    first = next(model.parameters())
    channels = getattr(model, "in_chans", 3)
    image = torch.zeros(1, channels, height, width, device=first.device, dtype=first.dtype)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        model.train(training)


class MovedNumbers(TorchDispatchMode):
    """Adds up the sizes of the tensors that counted operations read and write."""

    total = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = operation(*args, **(kwargs or {}))
        if operation._overloadpacket in flop_registry:
            tensors = [one for one in (*args, out) if isinstance(one, torch.Tensor)]
            self.total += sum(one.numel() for one in tensors)
        return out


def deform_conv_flops(
    x_shape: torch.Size, weight_shape: torch.Size, *_: Any, out_shape: torch.Size, **__: Any
) -> int:
    """The FLOPs of a deformable convolution, which torch's counter does not know; those of the
    bilinear sampling left out."""
    per_output = 2 * weight_shape[1] * weight_shape[2] * weight_shape[3]
    return out_shape.numel() * per_output


def paper_parameters(model: Backbone) -> int:
    """The parameters as the tables of the network's paper count them.

    Args:
        model: a network in its training form, made by `paperrepro.create_model`.

    Raises:
        MissingFactError: the family does not state its paper's rule.
    """
    rule = family_of(model.variant).need("parameters")
    return rule(model, reparameterize(model))


def paper_macs(model: Backbone, size: int = 224) -> int:
    """Multiply-accumulates for one image, of the form of the network that its paper counts.

    Raises:
        MissingFactError: the family does not state which form that is.
    """
    fused = family_of(model.variant).need("macs_of") == "fused"
    return count_macs(reparameterize(model) if fused else model, size)


def stage_table(model: Backbone, size: int = 224) -> pd.DataFrame:
    """Output shape, blocks, parameters and multiply-accumulates of the stem, the stages and the
    head, for one image; a row for each."""
    parts: list[tuple[str, str, nn.Module]] = [("stem", "", model.stem)]
    for i, (stage, count) in enumerate(zip(model.stages, stage_depths(model), strict=True), 1):
        parts.append((f"stage {i}", str(count), stage))
    x = torch.zeros(1, model.in_chans, size, size, device=next(model.parameters()).device)
    rows = []
    for part, depth, module in [*parts, ("head", "", model.head)]:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = module(x)
        rows.append(
            {
                "stage": part,
                "output": " x ".join(map(str, x.shape[1:])),
                "blocks": depth,
                "params": count_parameters(module),
                "macs": counter.get_total_flops() // 2,
            }
        )
    return pd.DataFrame(rows)


def layer_counts(model: nn.Module) -> dict[str, int]:
    """How many layers of each kind a network has, the most frequent first."""
    leaves = (layer for layer in model.modules() if not any(layer.children()))
    return dict(Counter(type(layer).__name__ for layer in leaves).most_common())


@cache
def complexity(name: str, size: int | tuple[int, int] = 224) -> Complexity:
    """The size of a registered network; computed from shapes alone, without its memory.

    >>> complexity("replknet_31b").params
    79864168
    """
    with torch.device("meta"):
        model = build_model(name)
        fused = reparameterize(model)
        rule = family_of(name).parameters
        return Complexity(
            params=count_parameters(model),
            params_fused=count_parameters(fused),
            params_paper=rule(model, fused) if rule else None,
            macs=count_macs(model, size),
            macs_fused=count_macs(fused, size),
        )


@cache
def stored_complexity(name: str) -> Complexity:
    """`complexity(name)` for images of 224 pixels, read from `data/results/complexity.csv` where
    the network stands there."""
    try:
        table = load_result("complexity").table.set_index("name")
    except FileNotFoundError:
        return complexity(name)
    if name not in table.index:
        return complexity(name)
    counts = {str(key): int(value) for key, value in table.loc[name].to_dict().items()}
    return Complexity(**counts)


def complexity_table() -> pd.DataFrame:
    """`complexity` of the papers' networks, counted again: a row per network."""
    names = tqdm(list_models(), desc="Counting", leave=False, disable=None)
    return pd.DataFrame([{"name": name} | asdict(complexity(name)) for name in names])
