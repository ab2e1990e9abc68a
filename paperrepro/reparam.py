"""Structural re-parameterization: the network that is trained to the network that is run.

At inference a BatchNorm is a scale and a shift per channel, and so is a layer scale. Sums, scales
and shifts of convolutions are convolutions. `reparameterize` walks once over a network and folds
what is linear: MobileOne's branches (its Section 3.3), RepLKNet's small kernels (Guideline 3), the
skip around a conditional position encoding (RapidNet, Eqs. 4-5), layer scales, the two heads of a
distilled network, and every BatchNorm, into the convolution before it or, where no padding stands
in between, after it.
"""

import copy
from collections.abc import Iterable
from functools import singledispatch
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import DeformConv2d, StochasticDepth

from .models.layers import Branches, LayerScale, TwoHeads

Linear: TypeAlias = nn.Conv2d | nn.Linear | DeformConv2d
Affine: TypeAlias = tuple[Tensor, Tensor]
Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def reparameterize(model: Network) -> Network:
    """A copy of the network, in eval mode, with everything folded that is linear at inference.

    The argument stays as it is: its mode, its weights, its gradients. Of the thirty networks no
    BatchNorm, no stochastic depth and no parallel linear branch is left. A network that was
    already re-parameterized comes back as an equal copy.

    Args:
        model: one of this library's networks, or any `nn.Module` whose layers to fold stand in
            `nn.Sequential`s or in `models.layers.Branches`; torchvision's MobileNetV2, say.

    Returns:
        The network with the same output, up to rounding: `model.eval()(images)`.
    """
    fused: Any = fold(copy.deepcopy(model).eval())
    fused.reparameterized = True
    return fused


@singledispatch
def fold(module: nn.Module) -> nn.Module:
    """Folds what is inside a module, in place, and returns the module that takes its place."""
    for name, child in module.named_children():
        module._modules[name] = fold(child)
    return module


@fold.register(StochasticDepth)
@fold.register(nn.Dropout)
def _(layer: nn.Module) -> nn.Module:
    return nn.Identity()


@fold.register
def _(chain: nn.Sequential) -> nn.Module:
    """Layers in a row: each BatchNorm and layer scale goes into the convolution before or after."""
    previous = None
    waiting: tuple[str, Affine] | None = None  # an affine layer that found no convolution before it
    for name, child in list(chain.named_children()):
        child = chain._modules[name] = fold(child)
        affine = as_affine(child)
        if isinstance(child, nn.Identity):
            del chain._modules[name]
        elif affine and (conv := edge_layer(previous, last=True)) is not None:
            fold_after(conv, affine)
            del chain._modules[name]
        elif affine:
            waiting, previous = (name, affine), child
        else:
            if waiting and fold_before(waiting[1], edge_layer(child, last=False)):
                del chain._modules[waiting[0]]
                waiting = None
            elif not commutes_with_affine(child):
                waiting = None
            previous = child
    if is_plain(chain) and len(chain) == 1 and isinstance(chain[0], Linear):
        return chain[0]
    return chain


@fold.register
def _(branches: Branches) -> nn.Module:
    """Parallel layers: one convolution where all are linear, else the folded branches."""
    for name, child in branches.named_children():
        branches._modules[name] = fold(child)
    return merge(branches.values()) or branches


@fold.register
def _(heads: TwoHeads) -> nn.Module:
    """The mean of two classifiers is the classifier of the mean weights."""
    heads.head.weight.add_(heads.dist_head.weight).div_(2)
    ensure_bias(heads.head).add_(ensure_bias(heads.dist_head)).div_(2)
    return heads.head


def as_affine(layer: nn.Module) -> Affine | None:
    """`(scale, shift)` per channel of a BatchNorm at inference or a layer scale, else None.

    A BatchNorm computes `(x - mean) / sqrt(var + eps) * weight + bias`.
    """
    if isinstance(layer, LayerScale):
        scale = layer.weight.flatten()
        return scale, torch.zeros_like(scale)
    if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
        assert layer.running_var is not None
        scale = (layer.running_var + layer.eps).rsqrt()
        if layer.affine:
            scale = scale * layer.weight
        shift = -layer.running_mean * scale
        return scale, shift + layer.bias if layer.affine else shift
    return None


def fold_after(layer: Linear, affine: Affine) -> None:
    """Folds `scale * layer(x) + shift` into the layer, in place."""
    scale, shift = affine
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    ensure_bias(layer).mul_(scale).add_(shift)


def fold_before(affine: Affine, layer: nn.Module | None) -> bool:
    """Folds `layer(scale * x + shift)` into the layer, in place, where that is exact.

    It is not where the layer pads its input: the shift would have to be padded too.
    """
    if isinstance(layer, nn.Linear):
        groups = 1
    elif isinstance(layer, nn.Conv2d) and layer.padding in ((0, 0), "valid"):
        groups = layer.groups
    else:
        return False
    if affine[0].numel() != groups * layer.weight.shape[1]:
        return False
    scale, shift = (part.reshape(groups, 1, -1, *[1] * (layer.weight.dim() - 2)) for part in affine)
    weight = layer.weight.unflatten(0, (groups, -1))
    ensure_bias(layer).add_((weight * shift).flatten(0, 1).flatten(1).sum(1))
    layer.weight.copy_((weight * scale).flatten(0, 1))
    return True


def merge(branches: Iterable[nn.Module]) -> nn.Conv2d | None:
    """The convolution that equals a sum of branches, or None where there is none.

    The branches may be convolutions of different odd kernel sizes that keep the map aligned
    (padding of half the dilated kernel), with one stride and one number of groups; BatchNorms and
    the identity, as 1x1 kernels, where the stride is 1.
    """
    branches = list(branches)
    convs = [branch for branch in branches if isinstance(branch, nn.Conv2d)]
    if not convs:
        return None
    target = max(convs, key=lambda conv: conv.kernel_size)
    for branch in branches:
        if isinstance(branch, nn.Conv2d):
            if not is_aligned(branch, target):
                return None
        elif as_affine(branch) is None and not isinstance(branch, nn.Identity):
            return None
        elif target.stride != (1, 1) or target.in_channels != target.out_channels:
            return None
    bias_of_target = ensure_bias(target)
    for branch in branches:
        if branch is not target:
            kernel, bias = as_kernel(branch, target)
            margin = (target.kernel_size[0] - kernel.shape[-1]) // 2
            target.weight.add_(nn.functional.pad(kernel, [margin] * 4))
            bias_of_target.add_(bias)
    return target


def is_aligned(conv: nn.Conv2d, target: nn.Conv2d) -> bool:
    """Whether the kernel, padded with zeros to the size of the target's, does the same."""
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return (
        (conv.stride, conv.groups) == (target.stride, target.groups)
        and conv.weight.shape[:2] == target.weight.shape[:2]
        and conv.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and conv.padding == (dilation * (kernel // 2),) * 2
        and conv.padding_mode == "zeros"
        and (conv.dilation == target.dilation or kernel == 1)
    )


def as_kernel(branch: nn.Module, target: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a branch: a convolution's own, else a 1x1 kernel over the same groups."""
    if isinstance(branch, nn.Conv2d):
        return branch.weight, ensure_bias(branch)
    identity = torch.empty_like(target.weight[:, :, :1, :1])
    nn.init.dirac_(identity, target.groups)
    affine = as_affine(branch)
    if affine is None:
        return identity, torch.zeros_like(ensure_bias(target))
    scale, shift = affine
    return identity * scale.reshape(-1, 1, 1, 1), shift


def edge_layer(module: nn.Module | None, *, last: bool) -> Linear | None:
    """The convolution or linear layer that a plain chain ends (or begins) with, if it does."""
    while isinstance(module, nn.Sequential) and is_plain(module) and len(module):
        module = module[-1 if last else 0]
    return module if isinstance(module, Linear) else None


def is_plain(module: nn.Module) -> bool:
    """Whether the module does nothing but apply its layers in a row."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def commutes_with_affine(layer: nn.Module) -> bool:
    """Whether a scale and a shift per channel may be moved behind the layer."""
    return isinstance(layer, nn.AdaptiveAvgPool2d) or (
        isinstance(layer, nn.Flatten) and layer.start_dim == 1
    )


def ensure_bias(layer: Linear) -> Tensor:
    """The layer's bias; one of zeros is added to a layer without."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    return layer.bias
