"""Parameters and multiply-accumulates, plainly counted and as each paper counts them.

A network has one number of parameters and the papers print five kinds. `paper_parameters` holds
each paper's rule, as its released code or its table reveals it, so that a table can be checked to
its last digit while the network stays right.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from ..models import Backbone, build_model, family_of
from ..models.layers import ConvNorm
from ..reparam import reparameterize


@dataclass(frozen=True)
class Complexity:
    """The size of a network: parameters in training, re-parameterized and as its paper counts;
    multiply-accumulates (MACs) for one image in training form and re-parameterized."""

    params: int
    params_fused: int
    params_paper: int
    macs: int
    macs_fused: int


def count_parameters(model: nn.Module) -> int:
    """All learned numbers of the network, both heads of a distilled one included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: int | tuple[int, int] = 224) -> int:
    """Multiply-accumulates for one image, by torch's own counter of operations.

    Convolutions and matrix products count; BatchNorm, activations, pooling, additions and the
    comparisons of a graph convolution do not. The FLOPs of the papers are these MACs.

    Args:
        size: the side of the image in pixels, or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    first = next(model.parameters())
    image = torch.zeros(1, 3, height, width, device=first.device, dtype=first.dtype)
    training = model.training
    model.eval()
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: deform_conv_flops}
    )
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        model.train(training)
    return counter.get_total_flops() // 2


def deform_conv_flops(x_shape, weight_shape, *args, out_shape, **kwargs) -> int:
    """The FLOPs of a deformable convolution, which torch's counter does not know; those of the
    bilinear sampling left out."""
    per_output = 2 * weight_shape[1] * weight_shape[2] * weight_shape[3]
    return out_shape.numel() * per_output


def paper_parameters(model: Backbone) -> int:
    """The parameters as the tables of the network's paper count them.

    Args:
        model: a network in its training form, made by `paperrepro.create_model`.

    The rules, as the released counter (MobileViG) or the digits of the tables reveal them:

    - MobileOne: after re-parameterization.
    - FasterNet: without the weights and biases of BatchNorm.
    - RepLKNet: after the released re-parameterization, which merges the small kernel and folds
      each BatchNorm that follows a convolution; the BatchNorms that open a block and the last one
      stay. The table truncates. (Rounded, the completely fused count fits as many of its rows.)
    - MobileViG and MobileViGv2: the released counter, which sees convolutions only, and takes for
      each its weights and, for a bias, the weight's second dimension.
    - RapidNet: all parameters, both heads included. The table truncates.
    - MobileNetV2, as the test bed of RepLKNet (its Table 11): all parameters.
    """
    family = family_of(model.variant or "")
    if family == "mobileone":
        return count_parameters(reparameterize(model))
    if family == "fasternet":
        return count_parameters(model) - norm_parameters(model)
    if family == "replknet":
        return count_parameters(reparameterize(model)) + opening_norm_parameters(model)
    if family in ("mobilevig", "mobilevigv2"):
        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        return sum(conv.weight.numel() + conv.weight.shape[1] for conv in convs)
    if family in ("rapidnet", "mobilenetv2"):
        return count_parameters(model)
    raise ValueError(
        f"no paper's counting rule for {model.variant!r}: build the network with create_model"
    )


def norm_parameters(model: nn.Module) -> int:
    """The weights and biases of the BatchNorms."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return sum(count_parameters(norm) for norm in norms)


def opening_norm_parameters(model: nn.Module) -> int:
    """The weights and biases of the BatchNorms that no convolution precedes: RepLKNet's at the
    start of each block and before the pooling."""
    return sum(
        count_parameters(child)
        for parent in model.modules()
        if not isinstance(parent, ConvNorm)
        for child in parent.children()
        if isinstance(child, _BatchNorm)
    )


@cache
def complexity(name: str, size: int | tuple[int, int] = 224) -> Complexity:
    """The size of a registered network; computed from shapes alone, without its memory.

    >>> complexity("replknet_31b").params
    79864168
    """
    with torch.device("meta"):
        model = build_model(name)
        fused = reparameterize(model)
        return Complexity(
            params=count_parameters(model),
            params_fused=count_parameters(fused),
            params_paper=paper_parameters(model),
            macs=count_macs(model, size),
            macs_fused=count_macs(fused, size),
        )
