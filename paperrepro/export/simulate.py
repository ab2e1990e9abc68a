"""Eight-bit arithmetic simulated in PyTorch: which layer breaks, and what helps.

Each convolution's and linear layer's weights, and what enters it, are rounded to a grid of 2^bits
numbers and back (Nagel et al., arXiv:2106.08295). A runtime computes with the integers themselves;
the rounding is the same. Gradients pass the rounding as if it were not there (Bengio et al.,
arXiv:1308.3432), so that a network can be trained on with it.
"""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

QUANTIZED = (nn.Conv2d, nn.Linear)


class FakeQuantized(nn.Module):
    """A layer whose weights and input are rounded.

    Args:
        layer: a convolution or a linear layer.
        bits: of both.
        per_channel: a scale for each output channel of the weights, or one for all.
        activations: rounds the input too, between the smallest and the largest value seen while
            `observing`.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, layer: nn.Module, bits: int, *, per_channel: bool = True, activations: bool = True
    ) -> None:
        super().__init__()
        self.layer, self.bits = layer, bits
        self.per_channel, self.activations = per_channel, activations
        self.observing = False
        self.register_buffer("low", torch.tensor(0.0))  # 0 is always on the grid, as paddings need
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self.low = torch.minimum(self.low, x.detach().min())
            self.high = torch.maximum(self.high, x.detach().max())
        elif self.activations:
            x = rounded_between(x, self.low, self.high, self.bits)
        weight = cast(Tensor, self.layer.weight)
        small = rounded_weight(weight, self.bits, self.per_channel)
        return torch.func.functional_call(self.layer, {"weight": small}, x)


def rounded_weight(weight: Tensor, bits: int, per_channel: bool) -> Tensor:
    """Weights on a symmetric grid: as many steps below zero as above."""
    dims = tuple(range(1, weight.ndim)) if per_channel else tuple(range(weight.ndim))
    scale = weight.detach().abs().amax(dims, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
    return weight + ((weight / scale).round() * scale - weight).detach()


def rounded_between(x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Values on a grid from `low` to `high`, on which zero lies; what lies outside is cut off."""
    scale = ((high - low) / (2**bits - 1)).clamp_min(1e-12)
    zero = (-low / scale).round()
    steps = (x / scale + zero).clamp(0, 2**bits - 1)
    return scale * (steps + (steps.round() - steps).detach() - zero)


def fake_quantized(
    model: nn.Module,
    images: Tensor,
    *,
    bits: int = 8,
    per_channel: bool = True,
    activations: bool = True,
    only: str | None = None,
) -> nn.Module:
    """A copy of a network that computes with rounded weights and activations.

    Args:
        images: `(N, C, H, W)` as the network takes them, to observe the activations on.
        only: the name of the one layer that is rounded; all when None.

    Raises:
        ValueError: there is no such layer.
    """
    model = copy.deepcopy(model).eval()
    names = [name for name, layer in model.named_modules() if isinstance(layer, QUANTIZED)]
    if only is not None and only not in names:
        raise ValueError(f"{only!r} is no convolution or linear layer of the network")
    for name in names if only is None else [only]:
        parent, _, last = name.rpartition(".")
        layer = model.get_submodule(name)
        small = FakeQuantized(layer, bits, per_channel=per_channel, activations=activations)
        setattr(model.get_submodule(parent), last, small)
    layers = [each for each in model.modules() if isinstance(each, FakeQuantized)]
    for layer in layers:
        layer.observing = True
    with torch.no_grad():
        for batch in images.split(32):
            model(batch)
    for layer in layers:
        layer.observing = False
    return model


def layers_of(model: nn.Module) -> list[str]:
    """The names of the layers that are quantised, in their order."""
    return [name for name, layer in model.named_modules() if isinstance(layer, QUANTIZED)]


@torch.no_grad()
def equalize(model: nn.Module) -> nn.Module:
    """A copy whose neighbouring convolutions share their ranges (Nagel et al., arXiv:1906.04721).

    Where a ReLU alone stands between two convolutions, a channel can be divided by a number in the
    first and multiplied by it in the second: the function stays, and the channel's weights become
    as large in the one as in the other. Re-parameterized MobileOne is such a chain; of the other
    networks little is.
    """
    model = copy.deepcopy(model)
    for _ in range(10):
        for first, second in chained(model):
            outgoing = first.weight.abs().amax((1, 2, 3)).clamp_min(1e-8)
            depthwise = second.groups == second.in_channels > 1
            incoming = second.weight.abs().amax((1, 2, 3) if depthwise else (0, 2, 3))
            ratio = (outgoing / incoming.clamp_min(1e-8)).sqrt().clamp(1e-3, 1e3)
            first.weight.div_(ratio.reshape(-1, 1, 1, 1))
            if first.bias is not None:
                first.bias.div_(ratio)
            second.weight.mul_(ratio.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)))
    return model


def chained(model: nn.Module) -> Iterable[tuple[nn.Conv2d, nn.Conv2d]]:
    """Convolutions that follow each other with a ReLU between, in the order of their execution."""
    leaves = sequence(model)
    for one, act, two in zip(leaves, leaves[1:], leaves[2:], strict=False):
        if (
            isinstance(one, nn.Conv2d)
            and isinstance(act, nn.ReLU)
            and isinstance(two, nn.Conv2d)
            and (two.groups == 1 or two.groups == two.in_channels == two.out_channels)
        ):
            yield one, two


def sequence(module: nn.Module) -> list[nn.Module]:
    """The layers of nested sequences in their order; what is no plain sequence stays whole."""
    parts = [getattr(module, name, None) for name in ("stem", "stages", "head")]
    if all(isinstance(part, nn.Module) for part in parts):
        return [leaf for part in parts for leaf in sequence(cast(nn.Module, part))]
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return [leaf for part in module for leaf in sequence(part)]
    return [module]
