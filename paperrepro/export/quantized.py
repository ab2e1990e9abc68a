"""MIL's operations on numbers of few bits: rounded maps, and constants that are compressed.

Compressed constants up to iOS 17 have their bits packed in bytes and declare a shape; iOS 18 has
types of few bits.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .package import TORCH_TYPES, numbers, unpack

NAMES = (
    "quantize dequantize constexpr_affine_dequantize constexpr_blockwise_shift_scale "
    "constexpr_lut_to_dense constexpr_sparse_to_dense"
).split()


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


def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor
) -> Tensor:
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    scale, zero = (
        value.float().reshape(shape if value.ndim else ()) for value in (scale, zero_point)
    )
    return scale * (quantized_data.float() - zero)


def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    place = block_of(data.shape, scale.shape)
    shifted = data.float() if offset is None else data.float() - offset[place].float()
    return scale[place].float() * shifted


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
