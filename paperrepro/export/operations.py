"""MIL's operations, each as a small function of its parameters, under MIL's names.

What each does stands in `coremltools.converters.mil.mil.ops.defs`. A parameter with a default may
be absent from the file. What is not in the table raises, and so does another parameter.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import quantized
from .package import numbers

CASTS = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int32": torch.int32,
}
Function = TypeVar("Function", bound=Callable[..., object])


def evaluate(kind: str, arguments: dict[str, object]) -> object:
    """The result of an operation of that type.

    Raises:
        ValueError: it is not in the table, or has other parameters.
    """
    if kind not in OPERATIONS:
        raise ValueError(f"the operation {kind} is not implemented in paperrepro.export.operations")
    try:
        inspect.signature(OPERATIONS[kind]).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"has other parameters than are implemented: {error}") from error
    return OPERATIONS[kind](**arguments)


def unary(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x)


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: function(x, y)


def reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes=None, keep_dims=False: function(
        x, numbers(axes) or tuple(range(x.ndim)), bool(keep_dims)
    )


TORCH_UNARY = "abs ceil cos erf exp floor logical_not relu sigmoid sign sin sqrt square tanh"
TORCH_BINARY = "add logical_and logical_or maximum minimum mul pow sub"

OPERATIONS: dict[str, Callable[..., object]] = {
    **{name: unary(getattr(torch, name)) for name in TORCH_UNARY.split()},
    **{name: binary(getattr(torch, name)) for name in TORCH_BINARY.split()},
    "equal": binary(torch.eq),
    "floor_div": binary(torch.floor_divide),
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "mod": binary(torch.remainder),
    "not_equal": binary(torch.ne),
    "real_div": lambda x, y: torch.true_divide(x, y),
    "identity": lambda x: x,
    "relu6": lambda x: F.relu6(x),
    "silu": lambda x: F.silu(x),
    "softsign": lambda x: F.softsign(x),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "clamped_relu": lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x).minimum(beta),
    "elu": lambda x, alpha: torch.where(x >= 0, x, alpha * torch.expm1(x)),
    "leaky_relu": lambda x, alpha: torch.where(x >= 0, x, alpha * x),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "prelu": lambda x, alpha: F.prelu(x, alpha),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "threshold": lambda x, alpha: x.clamp(min=alpha),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, torch.zeros_like(x)),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "log": lambda x, epsilon=1e-45: torch.log(x + epsilon),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "softmax": lambda x, axis=-1: torch.softmax(x, int(axis)),
    "reduce_argmax": lambda x, axis=-1, keep_dims=False, output_dtype="int32": x.argmax(
        int(axis), bool(keep_dims)
    ).to(CASTS[str(output_dtype)]),
    "reduce_max": reduction(torch.amax),
    "reduce_mean": reduction(torch.mean),
    "reduce_min": reduction(torch.amin),
    "reduce_sum": reduction(torch.sum),
    "reduce_l2_norm": reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.repeat(numbers(reps)),
    "transpose": lambda x, perm: x.permute(numbers(perm)).contiguous(),
    **{name: getattr(quantized, name) for name in quantized.NAMES},
}


def operation(function: Function) -> Function:
    """Puts a function into the table under its name."""
    OPERATIONS[function.__name__.removesuffix("_")] = function
    return function


@operation
def cast(x: Tensor, dtype: str) -> Tensor:
    if dtype not in CASTS:
        raise ValueError(f"to {dtype!r} is not implemented")
    if x.is_floating_point() and CASTS[dtype].is_floating_point:
        return x  # `stored` rounds it where the mode asks for that
    return x.to(CASTS[dtype])


@operation
def conv(
    x: Tensor,
    weight: Tensor,
    pad_type: str = "valid",
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    dimensions = weight.ndim - 2
    stride = numbers(strides) or (1,) * dimensions
    dilation = numbers(dilations) or (1,) * dimensions
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    x = padded(x, pad_type, pad, reach, stride)
    if dimensions == 2 and groups == x.shape[1]:
        x = x.contiguous(memory_format=torch.channels_last)  # else large kernels take seconds
    convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    return convolve(x, weight, bias, stride, 0, dilation, int(groups)).contiguous()


def padded(
    x: Tensor,
    pad_type: str,
    pad: Tensor | None,
    reach: Sequence[int],
    stride: Sequence[int],
    value: float = 0.0,
) -> Tensor:
    """A map with its margins; `reach` is how far the kernel extends along each side.

    "same" is implemented where MIL's documentation leaves no choice: odd kernels at stride 1.
    """
    if pad_type == "valid":
        return x
    if pad_type == "custom":
        margins = numbers(pad) or (0,) * (2 * len(reach))
    elif pad_type in ("same", "same_lower") and {1} == {*stride} == {k % 2 for k in reach}:
        margins = tuple(k // 2 for k in reach for _ in range(2))
    else:
        raise ValueError(f"pad_type {pad_type!r} of {reach} at {stride} is not implemented")
    return F.pad(x, from_last(margins), value=value) if any(margins) else x


def from_last(margins: Sequence[int]) -> list[int]:
    """Pairs of margins from the last side to the first, as `F.pad` takes them."""
    pairs = list(zip(margins[::2], margins[1::2], strict=True))
    return [margin for pair in reversed(pairs) for margin in pair]


@operation
def pad_(
    x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | float = 0.0
) -> Tensor:
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"mode {mode!r} is not implemented")
    return F.pad(x, from_last(numbers(pad)), mode, float(constant_val))


@operation
def matmul(
    x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False
) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


@operation
def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Tensor | bool = False,
) -> Tensor:
    kernel = numbers(kernel_sizes)
    stride = numbers(strides) or (1,) * len(kernel)
    x = padded(x, pad_type, pad, kernel, stride, value=-math.inf)
    pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    return pool(x, kernel, stride, ceil_mode=bool(ceil_mode))


@operation
def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | bool = False,
    ceil_mode: Tensor | bool = False,
) -> Tensor:
    if ceil_mode:
        raise ValueError("ceil_mode is not implemented")
    kernel = numbers(kernel_sizes)
    stride = numbers(strides) or (1,) * len(kernel)
    pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    mean = pool(padded(x, pad_type, pad, kernel, stride), kernel, stride)
    if exclude_padding_from_average:
        ones = padded(torch.ones_like(x), pad_type, pad, kernel, stride)
        mean = mean / pool(ones, kernel, stride)
    return mean


@operation
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


@operation
def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    normalized = [axis % x.ndim for axis in numbers(axes) or range(x.ndim)]
    centred = x - x.mean(normalized, keepdim=True)
    x = centred / (centred.square().mean(normalized, keepdim=True) + epsilon).sqrt()
    shape = [side if axis in normalized else 1 for axis, side in enumerate(x.shape)]
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


@operation
def instance_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon))


@operation
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    approximations = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
    if mode not in approximations:
        raise ValueError(f"mode {mode!r} is not implemented")
    return F.gelu(x, approximate=approximations[mode])


@operation
def reshape(x: Tensor, shape: Tensor) -> Tensor:
    sides = numbers(shape)
    if 0 in sides and len(sides) != x.ndim:
        raise ValueError(f"to {sides}: a 0 keeps a side, and there are {x.ndim}")
    return x.reshape([side or x.shape[axis] for axis, side in enumerate(sides)])


@operation
def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in numbers(axes)):
        x = x.unsqueeze(axis)
    return x


@operation
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(numbers(axes))


@operation
def concat(values: list[Tensor], axis: Tensor, interleave: Tensor | bool = False) -> Tensor:
    if interleave:
        raise ValueError("interleave is not implemented")
    return torch.cat(values, int(axis))


@operation
def split(
    x: Tensor,
    axis: Tensor,
    num_splits: Tensor | None = None,
    split_sizes: Tensor | None = None,
) -> Sequence[Tensor]:
    if split_sizes is not None:
        sizes = numbers(split_sizes)
    elif num_splits is not None:
        sizes = (x.shape[int(axis)] // int(num_splits),) * int(num_splits)
    else:
        raise ValueError("has neither num_splits nor split_sizes")
    return x.split_with_sizes(sizes, int(axis))


@operation
def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    masks = [numbers(mask) or (False,) * x.ndim for mask in (begin_mask, end_mask, squeeze_mask)]
    steps = numbers(stride) or (1,) * x.ndim
    index = tuple(
        start if single else slice(None if first else start, None if last else stop, step)
        for start, stop, step, first, last, single in zip(
            numbers(begin), numbers(end), steps, *masks, strict=True
        )
    )
    return torch.from_numpy(np.array(x.numpy()[index]))


@operation
def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for axis, (start, length) in enumerate(zip(numbers(begin), numbers(size), strict=True)):
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


@operation
def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | int = 0,
    batch_dims: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:
    if batch_dims:
        raise ValueError("batch_dims is not implemented")
    return torch.from_numpy(np.array(np.take(x.numpy(), indices.numpy(), int(axis))))


@operation
def classify(probabilities: Tensor, classes: list[str]) -> tuple[str, dict[str, float]]:
    values = probabilities.flatten()
    return classes[int(values.argmax())], dict(zip(classes, values.tolist(), strict=True))


@operation
def upsample_nearest_neighbor(
    x: Tensor,
    scale_factor_height: Tensor | float = 1,
    scale_factor_width: Tensor | float = 1,
) -> Tensor:
    return F.interpolate(x, enlarged(x, scale_factor_height, scale_factor_width), mode="nearest")


@operation
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | float = 1,
    scale_factor_width: Tensor | float = 1,
    align_corners: Tensor | bool = True,
) -> Tensor:
    size = enlarged(x, scale_factor_height, scale_factor_width)
    return F.interpolate(x, size, mode="bilinear", align_corners=bool(align_corners))


def enlarged(x: Tensor, *factors: Tensor | float) -> list[int]:
    """The last two sides times their factors, rounded down."""
    sides = zip(x.shape[-2:], factors, strict=True)
    return [math.floor(round(side * float(factor), 4)) for side, factor in sides]
