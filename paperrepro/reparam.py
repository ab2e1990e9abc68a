"""Structural re-parameterization: the network that is trained to the network that is run.

At inference a BatchNorm is a scale and a shift per channel, and so is a layer scale. Sums, scales
and shifts of convolutions are convolutions. `reparameterize` walks once over a network and folds
what is linear: MobileOne's branches (its Section 3.3), RepLKNet's small kernels (Guideline 3), the
skip around a conditional position encoding (RapidNet, Eqs. 4-5), layer scales, the two heads of a
distilled network, and every BatchNorm, into the convolution before it or, where no padding stands
in between, after it.

It folds what it can prove, and leaves the rest as it is: a layer of a class that it does not know,
one that is used twice, shares a parameter, is pruned or parametrized, or has a hook, and the layers
of a chain that the code around it takes apart (`chains`). `explain` says of each layer what became
of it, and why.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torchvision.ops import DeformConv2d, FrozenBatchNorm2d, StochasticDepth

from .chains import UnreadableCodeError, taken_apart
from .models import Backbone
from .models.layers import Branches, Chain, LayerScale, Residual, TwoHeads
from .ops import PointwiseConv2d

Linear: TypeAlias = nn.Conv2d | nn.Linear | DeformConv2d
Affine: TypeAlias = tuple[Tensor, Tensor]
Network = TypeVar("Network", bound=nn.Module)

# Whose forward is known. A subclass counts where it says `foldable = True` itself.
CONVS = (nn.Conv2d, DeformConv2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d, StochasticDepth)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)


class Step(NamedTuple):
    """What became of a layer.

    Attributes:
        layer: its name in the network.
        outcome: "folded", "merged" (parallel branches), "removed" (what does nothing at inference)
            or "left".
        why: what took it up, or what kept it.
    """

    layer: str
    outcome: str
    why: str


def reparameterize(model: Network, *, for_inference: bool = False) -> Network:
    """A copy of the network, in eval mode, with everything folded that is linear at inference.

    The argument stays as it is: its mode, its weights, its gradients. Of the thirty networks no
    BatchNorm, no stochastic depth and no parallel linear branch is left. A network that was
    already re-parameterized comes back as an equal copy.

    Args:
        model: one of this library's networks, or any `nn.Module` whose layers to fold stand in
            `nn.Sequential`s or in `models.layers.Branches`; torchvision's MobileNetV2, say. A
            Sequential that some `forward` does not just call, but indexes or loops over, stays as
            it is, by its name and its source.

    Returns:
        The network with the same output, up to rounding: `model.eval()(images)`.

    Raises:
        ValueError: the network is wrapped for several processes, or is no Python code any more.
    """
    fused, _ = fold_network(model)
    if for_inference:
        hasten(fused)
    return fused


def hasten(model: nn.Module) -> None:
    """What `for_inference` asks for, in place."""
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for module in model.modules():
        if type(module) is nn.Conv2d and is_pointwise(module):
            module.__class__ = PointwiseConv2d
        if type(module).forward in (nn.Sequential.forward, Residual.forward):
            layers = [layer for layer in module.children() if type(layer) is not nn.Identity]
            for before, layer in itertools.pairwise(layers):
                hooked = before._forward_hooks or layer._forward_pre_hooks
                alone = uses[id(layer)] == 1 and not hooked
                if alone and type(layer) is nn.ReLU and is_known(before, CONVS):
                    layer.inplace = True


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether it does nothing but multiply each pixel's channels by a matrix."""
    geometry = conv.kernel_size, conv.stride, conv.dilation, conv.groups
    return geometry == ((1, 1), (1, 1), (1, 1), 1) and conv.padding in ((0, 0), "valid", "same")


def explain(model: nn.Module) -> list[Step]:
    """What `reparameterize` does with each layer of a network that could be folded, and why not."""
    _, steps = fold_network(model)
    return steps


@torch.no_grad()
def fold_network(model: Network) -> tuple[Network, list[Step]]:
    if isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        inner = "._orig_mod" if hasattr(model, "_orig_mod") else ".module"
        raise ValueError(
            f"a {type(model).__name__} cannot be re-parameterized; give the network inside it "
            f"(model{inner}), before it was wrapped, scripted or compiled"
        )
    # Pruning and old weight norm keep tensors that autograd made, which deepcopy refuses.
    made = {
        id(value): value.detach()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    folding = Folding(copy.deepcopy(model, made).eval())
    fused: Any = folding.fold(folding.model)
    fused.reparameterized = True
    return fused, folding.steps


@dataclass
class Waiting:
    """A scale and shift that found no convolution before it, on its way to one behind.

    Attributes:
        flattened: whether it has become one of features, not of maps.
    """

    name: str
    affine: Affine
    flattened: bool = False


class Folding:
    """One walk over a network, which is changed in place."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps: list[Step] = []
        self.modules = list(model.modules())  # for as long as they are known by their ids
        self.names = {id(module): name for name, module in model.named_modules()}
        paths = model.named_modules(remove_duplicate=False)
        self.uses = Counter(id(module) for _, module in paths)
        self.uses.update(id(module) for module in unregistered(model))
        try:
            self.apart, self.unreadable = taken_apart(model), ""
        except UnreadableCodeError as error:
            self.apart, self.unreadable = set(), str(error)
        self.owners = Counter(
            id(parameter)
            for module in model.modules()
            for parameter in {id(p): p for p in module._parameters.values()}.values()
            if parameter is not None
        )

    def fold(self, module: nn.Module) -> nn.Module:
        """Folds what is inside a module, in place, and returns the module that takes its place."""
        if isinstance(module, nn.Sequential):
            return self.fold_sequential(module)
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = self.fold(child)
        if isinstance(module, Branches):
            return self.fold_branches(module)
        if isinstance(module, TwoHeads):
            return self.fold_heads(module)
        if type(module) in IDENTITIES[1:]:
            if why := self.obstacle(module):
                self.note(module, "left", why)
                return module
            self.note(module, "removed", "does nothing at inference")
            return nn.Identity()
        return module

    def fold_sequential(self, chain: nn.Sequential) -> nn.Module:
        """Layers in a row: each BatchNorm and layer scale goes into the convolution before or
        after."""
        for name, child in list(chain._modules.items()):
            if child is not None:
                chain._modules[name] = self.fold(child)
        if type(chain).forward not in (nn.Sequential.forward, Residual.forward):
            return chain
        if why := self.unreadable or self.part_of(chain):
            self.note(chain, "left", why)
            return chain
        previous: nn.Module | None = None
        waiting: Waiting | None = None
        for name, child in list(chain._modules.items()):
            affine = self.as_affine(child)
            if self.is_identity(child):
                self.take_out(chain, name)
            elif affine and (conv := self.edge_layer(previous, last=True)) is not None:
                fold_after(conv, affine)
                self.note(child, "folded", f"into {self.name_of(conv)} before it")
                self.take_out(chain, name)
            elif affine:
                waiting, previous = Waiting(name, affine), child
            else:
                if waiting and self.fold_before(waiting, chain, child):
                    waiting = None
                elif waiting and not self.commutes_with_affine(child):
                    waiting = None
                elif waiting and isinstance(child, nn.Flatten):
                    waiting.flattened = True
                previous = child
        for child in chain._modules.values():
            if self.as_affine(child):
                self.note(child, "left", "no convolution that it could go into stands beside it")
        if isinstance(chain, Chain) and self.is_plain(chain) and len(chain) == 1:
            return chain[0] if self.is_conv(chain[0]) else chain
        return chain

    def part_of(self, chain: nn.Sequential) -> str:
        """Who takes the chain apart; nothing where it runs as a whole."""
        name = self.name_of(chain).rpartition(".")[2]
        return f"some forward does more with its {name} than call it" if name in self.apart else ""

    def take_out(self, chain: nn.Sequential, name: str) -> None:
        """Takes a layer out of a chain. Of others' chains an identity stays in its place: the
        module around it may count its layers, or call one by its name."""
        if isinstance(chain, Chain):
            del chain._modules[name]
        else:
            chain._modules[name] = nn.Identity()

    def fold_before(self, waiting: Waiting, chain: nn.Sequential, child: nn.Module) -> bool:
        layer = self.edge_layer(child, last=False, flattened=waiting.flattened)
        norm = chain._modules[waiting.name]
        if norm is None or not fold_before(waiting.affine, layer):
            return False
        self.note(norm, "folded", f"into {self.name_of(layer)} after it")
        for module in self.modules:
            if isinstance(module, Backbone) and layer is module.get_classifier():
                module.classifier_has_norm = True
        self.take_out(chain, waiting.name)
        return True

    def fold_branches(self, branches: Branches) -> nn.Module:
        """Parallel layers: one convolution where all are linear, else the folded branches."""
        blocked = self.obstacle(branches) or next(
            filter(None, (self.obstacle(branch) for branch in branches.values())), None
        )
        if not is_known(branches, (Branches,)):
            blocked = f"it is a {type(branches).__name__}, whose sum is not known"
        merged = None if blocked else merge(branches.values())
        if merged is None:
            self.note(branches, "left", blocked or "its branches are not one convolution")
            return branches
        self.note(branches, "merged", f"{len(branches)} branches in one convolution")
        return merged

    def fold_heads(self, heads: TwoHeads) -> nn.Module:
        """The mean of two classifiers is the classifier of the mean weights."""
        parts = (heads, heads.head, heads.dist_head)
        blocked = next(filter(None, map(self.obstacle, parts)), None)
        if blocked or type(heads) is not TwoHeads:
            self.note(heads, "left", blocked or f"it is a {type(heads).__name__}")
            return heads
        heads.head.weight.add_(heads.dist_head.weight).div_(2)
        ensure_bias(heads.head).add_(ensure_bias(heads.dist_head)).div_(2)
        self.note(heads, "merged", "two classifiers in one")
        return heads.head

    def as_affine(self, layer: nn.Module | None) -> Affine | None:
        """`as_affine` of a layer that may be taken out."""
        affine = as_affine(layer)
        if layer is None or affine is None:
            return None
        if why := self.obstacle(layer):
            self.note(layer, "left", why)
            return None
        return affine

    def edge_layer(
        self, module: nn.Module | None, *, last: bool, flattened: bool = False
    ) -> Linear | None:
        """The convolution that a plain chain ends (or begins) with, if it does and may be changed;
        for what is flattened, the linear layer."""
        while isinstance(module, nn.Sequential) and self.is_plain(module):
            layers = [layer for layer in module if not self.is_identity(layer)]
            if not layers:
                break
            module = layers[-1 if last else 0]
        if flattened:
            known = type(module) is nn.Linear
        else:
            known = module is not None and self.is_conv(module)
        if not known or module is None:
            return None
        if why := self.obstacle(module):
            self.note(module, "left", why)
            return None
        assert isinstance(module, nn.Conv2d | nn.Linear | DeformConv2d)
        return module

    def is_conv(self, module: nn.Module) -> bool:
        return is_known(module, CONVS)

    def is_identity(self, module: nn.Module | None) -> bool:
        return type(module) is nn.Identity and not self.obstacle(module)

    def is_plain(self, module: nn.Module) -> bool:
        """Whether the module does nothing but apply its layers in a row."""
        return type(module).forward is nn.Sequential.forward and not self.obstacle(module)

    def commutes_with_affine(self, layer: nn.Module | None) -> bool:
        """Whether a scale and a shift per channel may be moved behind the layer."""
        if layer is None or self.obstacle(layer):
            return False
        return type(layer) is nn.AdaptiveAvgPool2d or (
            type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
        )

    def obstacle(self, module: nn.Module) -> str:
        """Why a module must stay as it is; nothing where it need not."""
        if (uses := self.uses[id(module)]) > 1:
            return f"it is used in {uses} places"
        if is_parametrized(module):
            return "its weights are parametrized"
        if module._forward_hooks or module._forward_pre_hooks:
            return "it has a hook (pruning, weight and spectral norm are hooks too)"
        if "forward" in vars(module):
            return "its forward was replaced"
        if any(self.owners[id(p)] > 1 for p in module._parameters.values() if p is not None):
            return "it shares a parameter with another layer"
        return ""

    def note(self, layer: nn.Module, outcome: str, why: str) -> None:
        step = Step(self.name_of(layer), outcome, why)
        if step not in self.steps:
            self.steps.append(step)

    def name_of(self, layer: nn.Module | None) -> str:
        return self.names.get(id(layer), "a merged convolution")


def unregistered(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that modules keep in lists, tuples, dictionaries and attributes of their own."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name == "_modules" or name.endswith("_hooks"):
                continue
            if isinstance(value, dict):
                value = list(value.values())
            values = value if isinstance(value, list | tuple) else [value]
            for each in values:
                if isinstance(each, nn.Module):
                    yield from each.modules()


def is_known(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """Whether a module is just one of these kinds, or of a class that says `foldable = True`."""
    return type(module) in kinds or (isinstance(module, kinds) and "foldable" in vars(type(module)))


def as_affine(layer: nn.Module | None) -> Affine | None:
    """`(scale, shift)` per channel of a BatchNorm at inference or a layer scale, else None.

    A BatchNorm computes `(x - mean) / sqrt(var + eps) * weight + bias`. That of one dimension is
    left out: what its second dimension is depends on its input.
    """
    if type(layer) is LayerScale:
        scale = layer.weight.flatten()
        return scale, torch.zeros_like(scale)
    if type(layer) is FrozenBatchNorm2d:
        frozen: Any = layer
        scale = (frozen.running_var + frozen.eps).rsqrt() * frozen.weight
        return scale, frozen.bias - frozen.running_mean * scale
    if type(layer) in NORMS and isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
        if layer.running_mean is None or layer.running_var is None:
            return None
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
    convs = [b for b in branches if isinstance(b, nn.Conv2d) and is_known(b, CONVS)]
    if not convs:
        return None
    target = max(convs, key=lambda conv: conv.kernel_size)
    for branch in branches:
        if branch in convs:
            assert isinstance(branch, nn.Conv2d)
            if not is_aligned(branch, target):
                return None
        elif as_affine(branch) is None and type(branch) is not nn.Identity:
            return None
        elif target.stride != (1, 1) or target.in_channels != target.out_channels:
            return None
    target_bias = ensure_bias(target)
    for branch in branches:
        if branch is not target:
            kernel, bias = as_kernel(branch, target)
            margin = (target.kernel_size[0] - kernel.shape[-1]) // 2
            target.weight.add_(nn.functional.pad(kernel, [margin] * 4))
            target_bias.add_(bias)
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


def ensure_bias(layer: Linear) -> Tensor:
    """The layer's bias; one of zeros is added to a layer without."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    return layer.bias
