"""Gradients of the image alone, in half the memory.

PyTorch keeps the input of every convolution and BatchNorm for the gradient of its weights, whether
anyone asks for it or not, and of a ReLU four bytes where one bit would do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def for_input_only(model: nn.Module) -> Iterator[None]:
    """Let plain convolutions, ReLUs and, in eval mode, BatchNorms keep only what their input's
    gradient needs. Those of their weights do not come about in the meantime."""
    forwards = {module: forward for module in model.modules() if (forward := lean_forward(module))}
    before = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward:
                module.forward = forward
            else:
                del module.forward


def lean_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The layer's forward pass that keeps little; None for a layer that stays as it is.

    Subclasses may compute something else, and stay too.
    """
    if type(module) is nn.ReLU:
        return _ReLU.apply
    if type(module) is nn.BatchNorm2d and not module.training and module.track_running_stats:
        return partial(_Affine.apply, module.forward, partial(scaled, module))
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and module.padding != "same":
        return partial(_Affine.apply, module.forward, partial(convolved_back, module))
    return None


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return F.relu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.where(ctx.saved_tensors[0], 0)


class _Affine(torch.autograd.Function):
    """y = A x + b: nothing of x is kept but how it lay in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: Callable[[Tensor], Tensor],
        transpose: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
    ) -> Tensor:
        ctx.transpose, ctx.shape, ctx.strides = transpose, x.shape, x.stride()
        return layer(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        like = gradient.new_empty_strided(ctx.shape, ctx.strides)
        return None, None, ctx.transpose(gradient, like)


def scaled(norm: nn.BatchNorm2d, gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient of a BatchNorm's input."""
    scale = (norm.get_buffer("running_var") + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    return gradient * scale[:, None, None]


def convolved_back(conv: nn.Conv2d, gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient of a convolution's input, which lay in memory as `like` does."""
    return torch.ops.aten.convolution_backward(
        gradient,
        like,
        conv.weight,
        None,
        conv.stride,
        (0, 0) if conv.padding == "valid" else conv.padding,
        conv.dilation,
        False,
        (0, 0),
        conv.groups,
        (True, False, False),
    )[0]
