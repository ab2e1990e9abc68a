"""What is read off a network: counts, and the texts of the papers' tables of configurations."""

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbone import Backbone
from .layers import Branches

Value = TypeVar("Value", bound=Hashable)


def count_parameters(model: nn.Module) -> int:
    """All learned numbers of the network, both heads of a distilled one included."""
    return sum(parameter.numel() for parameter in model.parameters())


def norm_parameters(model: nn.Module) -> int:
    """The weights and biases of the BatchNorms."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return sum(count_parameters(norm) for norm in norms)


def modules_of(module: nn.Module, kind: type) -> list:
    """Every module of a type, at any depth."""
    return [child for child in module.modules() if isinstance(child, kind)]


def only(values: Iterable[Value], what: str) -> Value:
    """The one value of a set.

    Raises:
        ValueError: there are several, all of which it shows, or none.
    """
    distinct = set(values)
    if len(distinct) != 1:
        raise ValueError(f"{what} has not one value but {sorted(distinct, key=str)}")
    return distinct.pop()


def commas(values: Iterable) -> str:
    return ",".join(map(str, values))


def stage_maps(model: Backbone) -> list[torch.Size]:
    """The shapes of the four stage maps for an image of 224 pixels."""
    device = next(model.parameters()).device
    return [x.shape for x in model.features(torch.zeros(1, 3, 224, 224, device=device))]


def blocks_of(stage: nn.Module) -> list[nn.Module]:
    """The modules of a stage, less what halves the map before them."""
    return list(stage.get_submodule("blocks").children())


def stage_depths(model: Backbone) -> list[int]:
    """Blocks per stage, as the paper counts blocks."""
    return [len(blocks_of(stage)) // model.modules_per_block for stage in model.stages]


def classifier_layer(model: Backbone) -> nn.Linear:
    return modules_of(model.head, nn.Linear)[-1]


def convs_in_a_row(module: nn.Module) -> Iterator[nn.Conv2d]:
    """The convolutions that follow one another: of parallel branches the one with the largest
    kernel."""
    if isinstance(module, nn.Conv2d):
        yield module
    elif isinstance(module, Branches):
        yield max(modules_of(module, nn.Conv2d), key=lambda conv: conv.kernel_size)
    else:
        for child in module.children():
            yield from convs_in_a_row(child)


# Each of these is a quantity of data/claims under its own name.


def channels(model: Backbone) -> str:
    return commas(shape[1] for shape in stage_maps(model))


def reduction(model: Backbone) -> str:
    return commas(224 // shape[2] for shape in stage_maps(model))


def depths(model: Backbone) -> str:
    return commas(stage_depths(model))


def stem_strides(model: Backbone) -> str:
    return commas(conv.stride[0] for conv in convs_in_a_row(model.stem))


def stem_channels(model: Backbone) -> str:
    return str([*convs_in_a_row(model.stem)][-1].out_channels)


def head_channels(model: Backbone) -> str:
    return str(classifier_layer(model).in_features)


def classes(model: Backbone) -> str:
    return str(classifier_layer(model).out_features)
