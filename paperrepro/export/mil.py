"""The program of a Core ML package, executed with torch on any machine.

    >>> program = mil.load("mobileone_s0.mlpackage")
    >>> program(image)["logits"]                       # float32 throughout
    >>> program(image, mode="float16")["logits"]       # every result stored as the file declares it

A package holds one typed operation after the other, in Apple's Model Intermediate Language (MIL).
Neither Core ML nor the converter takes part here: an operation does what its documentation in
coremltools says (`coremltools.converters.mil.mil.ops.defs`), written down below as a small function
of the parameters, under MIL's names. A parameter with a default may be absent from the file.

Nothing is guessed. An operation or a parameter that is not in the table raises, and so does a
result whose shape is not the one that the file declares.

What runs is MIL as implemented here, never Core ML on a device. In "float16" the sums inside an
operation are float32; an accelerator may sum in half precision.
"""

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .package import (
    TORCH_TYPES,
    Binding,
    Bound,
    File,
    Literal,
    MilError,
    Operation,
    Type,
    bounds_of,
    fits,
    need_tensor,
    read,
    reason,
    unpack,
)

MODES = ("float64", "float32", "float16")
CASTS = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int32": torch.int32,
}
Hook = Callable[[Operation, tuple[object, ...]], None]
Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Constant:
    """A constant of the file.

    Attributes:
        value: a tensor, decompressed where it is compressed; a string or a list.
        stored_bytes: what it takes in the file.
        compression: the operation that decompresses it; nothing for a plain constant.
        parts: of a compressed constant, what that operation gets.
    """

    value: object
    stored_bytes: int
    compression: str = ""
    parts: dict[str, object] = field(default_factory=dict)

    @property
    def tensor(self) -> Tensor:
        return need_tensor(self.value)


@dataclass(frozen=True)
class Program:
    """The main function of a package; `load` makes it.

    Attributes:
        opset: the version of the operations, such as "CoreML6" for iOS 16.
        inputs: the declared types by name; an image is a float tensor of 0 to 255.
        outputs: the names of the results.
        operations: in the order of the file, without constants and their decompression.
        constants: by name.
        metadata: what the package says about itself.
        description: what it tells an application: names, sizes, colour space, labels.
    """

    path: Path
    opset: str
    inputs: dict[str, Type]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: dict[str, Constant]
    metadata: dict[str, str]
    description: str

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor | dict[str, Tensor],
        mode: str = "float32",
        hook: Hook | None = None,
    ) -> dict[str, object]:
        """Execute the program, operation by operation.

        Args:
            inputs: the tensor of the only input, or each input's by name.
            mode: "float64" and "float32" compute and keep every floating number so, whatever the
                file declares; only the weights are the file's. "float16" computes in float32 and
                rounds each result that the file declares float16.
            hook: called after each operation with it and its results.

        Returns:
            The outputs by name; of a classifier the label and a dictionary of probabilities.

        Raises:
            ValueError: an unknown mode, a missing input, or one of another shape.
            MilError: an operation that cannot be executed as the file says.
        """
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; use one of {', '.join(MODES)}")
        values = self.check_inputs(inputs, mode)
        last_use = {
            name: index
            for index, operation in enumerate(self.operations)
            for name in operands(operation)
        }
        for index, operation in enumerate(self.operations):
            try:
                results = self.execute(operation, values, mode)
            except Exception as error:  # a damaged parameter raises anything
                place = f"{self.path}: {operation.type} {operation.name!r}"
                words = " ".join(str(error).split()) or type(error).__name__
                raise MilError(f"{place}: {words}") from error
            values.update(zip(operation.outputs, results, strict=True))
            if hook:
                hook(operation, results)
            for name in {*operands(operation)} - {*self.outputs}:
                if last_use[name] == index:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def check_inputs(self, inputs: Tensor | dict[str, Tensor], mode: str) -> dict[str, object]:
        if isinstance(inputs, Tensor):
            inputs = dict.fromkeys(self.inputs, inputs) if len(self.inputs) == 1 else {}
        if inputs.keys() != self.inputs.keys():
            raise ValueError(
                f"{self.path} takes {', '.join(self.inputs)}, not {', '.join(inputs) or 'a tensor'}"
            )
        values: dict[str, object] = {}
        for name, declared in self.inputs.items():
            if not fits(inputs[name].shape, declared.shape):
                raise ValueError(
                    f"{self.path} takes {name} of the shape {declared.shape}, not "
                    f"{tuple(inputs[name].shape)}"
                )
            values[name] = stored(inputs[name].to(TORCH_TYPES[declared.dtype]), declared, mode)
        return values

    def execute(
        self, operation: Operation, values: dict[str, object], mode: str
    ) -> tuple[object, ...]:
        """The results of one operation, each as the mode keeps it."""

        def value(bound: Bound) -> object:
            if isinstance(bound, Literal):
                return wide(bound.value, mode)
            return values[bound] if bound in values else wide(self.constants[bound].value, mode)

        arguments = {
            parameter: (
                [value(bound) for bound in binding]
                if isinstance(binding, tuple)
                else value(binding)
            )
            for parameter, binding in operation.inputs.items()
        }
        results = evaluate(operation.type, arguments)
        results = tuple(results) if isinstance(results, list | tuple) else (results,)
        declared = tuple(operation.outputs.values())
        if len(results) != len(declared):
            raise ValueError(f"gives {len(results)} results, and the file declares {len(declared)}")
        return tuple(stored(*pair, mode) for pair in zip(results, declared, strict=True))


def load(path: str | os.PathLike[str]) -> Program:
    """The program of a package, its constants decompressed.

    Args:
        path: a folder `.mlpackage`, whoever made it.

    Raises:
        MilError: it is not the package of an ML program, it is damaged, or it has a part that is
            not implemented.
        ValueError: coremltools is missing.
    """
    path = Path(path)
    file = read(path)
    try:
        return program_of(path, file)
    except MilError:
        raise
    except Exception as error:  # what is damaged raises anything
        raise MilError(f"{path}: {reason(error)}") from error


def program_of(path: Path, file: File) -> Program:
    constants: dict[str, Constant] = {}
    operations = []
    known = {*file.inputs}
    for operation in file.operations:
        for name in operands(operation):
            if name not in known:
                raise MilError(
                    f"{path}: {operation.type} {operation.name!r} takes {name!r}, which nothing "
                    "before it gives"
                )
        if twice := known & operation.outputs.keys():
            raise MilError(f"{path}: {twice.pop()!r} is given twice")
        known |= operation.outputs.keys()
        if operation.type == "const":
            literal = operation.inputs["val"]
            if not isinstance(literal, Literal):
                raise MilError(f"{path}: the constant {operation.name!r} has no value")
            constants[operation.name] = Constant(literal.value, literal.stored_bytes)
        elif operation.type.startswith("constexpr_"):
            constants[operation.name] = decompressed(operation, constants, path)
        else:
            operations.append(operation)
    if not known.issuperset(file.outputs):
        raise MilError(f"{path}: nothing gives the outputs {', '.join(file.outputs)}")
    return Program(
        path,
        file.opset,
        file.inputs,
        file.outputs,
        tuple(operations),
        constants,
        file.metadata,
        file.description,
    )


def decompressed(operation: Operation, constants: dict[str, Constant], path: Path) -> Constant:
    """The value of an operation whose operands are constants."""
    stored_parts: dict[str, Literal | Constant] = {}
    for parameter, bound in operation.inputs.items():
        if isinstance(bound, tuple):
            raise MilError(f"{path}: {operation.type} {operation.name!r}: {parameter} has several")
        stored_parts[parameter] = bound if isinstance(bound, Literal) else constants[bound]
    parts = {parameter: part.value for parameter, part in stored_parts.items()}
    (declared,) = operation.outputs.values()
    try:
        value = need_tensor(stored(evaluate(operation.type, parts), declared, "float32"))
    except (RuntimeError, ValueError, IndexError) as error:
        raise MilError(f"{path}: {operation.type} {operation.name!r}: {error}") from error
    size = sum(part.stored_bytes for part in stored_parts.values())
    return Constant(value.to(TORCH_TYPES[declared.dtype]), size, operation.type, parts)


def constant(program: Program, bound: Binding) -> Constant | None:
    """The constant that a parameter is bound to, or None where it is computed."""
    if isinstance(bound, tuple):
        return None
    if isinstance(bound, Literal):
        return Constant(bound.value, bound.stored_bytes)
    return program.constants.get(bound)


def operands(operation: Operation) -> list[str]:
    """The names of the values that an operation uses, in the order of its parameters."""
    return [
        bound
        for binding in operation.inputs.values()
        for bound in bounds_of(binding)
        if isinstance(bound, str)
    ]


def wide(value: object, mode: str) -> object:
    """A floating tensor in the type in which the mode computes; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float64 if mode == "float64" else torch.float32)
    return value


def stored(value: object, declared: Type, mode: str) -> object:
    """A result as the mode keeps one of the declared type."""
    if not isinstance(value, Tensor):
        return value
    dtype = TORCH_TYPES[declared.dtype]
    if not fits(value.shape, declared.shape):
        raise ValueError(f"gives {tuple(value.shape)}, and the file declares {declared.shape}")
    if dtype.is_floating_point != value.is_floating_point():
        raise ValueError(f"gives {value.dtype}, and the file declares {declared.dtype}")
    if not dtype.is_floating_point:
        return value.to(dtype)
    return wide(value.half() if mode == declared.dtype == "float16" else value, mode)


def evaluate(kind: str, arguments: dict[str, object]) -> object:
    """The result of an operation of that type.

    Raises:
        ValueError: it is not in the table, or has other parameters.
    """
    if kind not in OPERATIONS:
        raise ValueError(f"the operation {kind} is not implemented in paperrepro.export.mil")
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


def numbers(values: Tensor | None) -> tuple[int, ...]:
    """The numbers of a tensor; none of None."""
    return () if values is None else tuple(values.flatten().tolist())


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
    ).to(TORCH_TYPES[str(output_dtype)]),
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


@operation
def quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    scale, zero = along(axis, input.ndim, scale, zero_point)
    limits = torch.iinfo(TORCH_TYPES[output_dtype])
    steps = (input / scale).round() + zero
    return steps.clamp(limits.min, limits.max).to(TORCH_TYPES[output_dtype])


@operation
def dequantize(
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    scale, zero = along(axis, input.ndim, scale, zero_point)
    return (input.float() - zero) * scale


def along(
    axis: Tensor | None, rank: int, scale: Tensor, zero_point: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point, shaped to lie along an axis."""
    zero = torch.zeros_like(scale) if zero_point is None else zero_point.float()
    shape = [1] * rank
    if axis is not None:
        shape[int(axis)] = -1
    laid = [each.reshape(shape if each.ndim else ()) for each in (scale.float(), zero)]
    return laid[0], laid[1]


# Compressed constants. Those up to iOS 17 have their bits packed in bytes and declare a shape;
# iOS 18 has types of few bits.


@operation
def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor
) -> Tensor:
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    scale, zero = (
        value.float().reshape(shape if value.ndim else ()) for value in (scale, zero_point)
    )
    return scale * (quantized_data.float() - zero)


@operation
def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    place = block_of(data.shape, scale.shape)
    shifted = data.float() if offset is None else data.float() - offset[place].float()
    return scale[place].float() * shifted


@operation
def constexpr_lut_to_dense(
    lut: Tensor, indices: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    if shape is not None:
        places = unpack(indices.numpy(), round(math.log2(lut.numel())), math.prod(numbers(shape)))
        return lut[places.long()].reshape(numbers(shape))
    if lut.ndim != indices.ndim + 2 or lut.shape[-1] != 1:
        raise ValueError("a table of vectors is not implemented")
    return lut[..., 0][(*block_of(indices.shape, lut.shape[:-2]), indices.long())]


def block_of(shape: Sequence[int], counts: Sequence[int]) -> tuple[Tensor, ...]:
    """The indices of the block in which each element lies, with so many blocks along each side."""
    grid = []
    for axis, (side, count) in enumerate(zip(shape, counts, strict=True)):
        if side % count:
            raise ValueError(f"has {count} blocks along a side of {side}")
        position = torch.arange(side) // (side // count)
        grid.append(position.reshape([-1 if axis == i else 1 for i in range(len(shape))]))
    return tuple(grid)


@operation
def constexpr_sparse_to_dense(
    nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None
) -> Tensor:
    if shape is not None:
        mask = unpack(mask.numpy(), 1, math.prod(numbers(shape))).reshape(numbers(shape))
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    if int(mask.sum()) != nonzero_data.numel():
        raise ValueError(f"has {nonzero_data.numel()} values for {int(mask.sum())} places")
    dense[mask.bool()] = nonzero_data
    return dense
