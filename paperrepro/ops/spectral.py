"""Depthwise convolution as a product of spectra, with its Fourier transforms as matrix products.

A K x K depthwise convolution costs K^2 multiply-accumulates per value of the map. Between two
Fourier transforms it costs a few. The maps of a vision backbone are short, 7 to 128 pixels a side:
there a dense matrix of cosines and sines, multiplied by the processor's best tuned routine, beats a
fast Fourier transform, which does less arithmetic and moves more data. (On a GPU the same
observation made FlashFFTConv: Fu et al., 2023.)

A real map needs no complex matrices. Each side is transformed by its cosines and by its sines, at
half of the frequencies, which gives four real numbers per pair of frequencies. Along each side they
multiply like complex numbers `cosine + i sine`.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .gemm import linear

LARGEST_TILE = 64
# Values of a map that are transformed at a time: their spectra stay in a core's cache.
CHUNK = 2**17


@dataclass(frozen=True)
class Axis:
    """One side of the map, and where in the period of its transform everything stands.

    A map that is transformed whole needs a period that keeps the kernel's two ends apart. One
    that is cut into tiles is read with a margin of (K - 1) / 2 pixels (overlap-save).

    Args:
        length: of the side, in pixels.
        kernel: K, odd, less than twice the length.
        whole: whether the map is transformed whole.
    """

    length: int
    kernel: int
    whole: bool

    @property
    def margin(self) -> int:
        return self.kernel // 2

    @property
    def tiles(self) -> int:
        return 1 if self.whole else math.ceil(self.length / LARGEST_TILE)

    @property
    def tile(self) -> int:
        return math.ceil(self.length / self.tiles)

    @property
    def period(self) -> int:
        return self.tile + self.margin * (1 if self.whole else 2)

    @property
    def inputs(self) -> range:
        return range(self.tile) if self.whole else range(self.period)

    @property
    def outputs(self) -> range:
        first = 0 if self.whole else self.margin
        return range(first, first + self.tile)

    @property
    def taps(self) -> range:
        """Of the kernel: backwards, because conv2d correlates."""
        return range(self.margin, -self.margin - 1, -1)

    @property
    def lags(self) -> range:
        """Of the kernel's gradient."""
        return range(-self.margin, self.margin + 1)


@dataclass(frozen=True)
class Spectral:
    """Depthwise convolutions of one shape, in one memory format.

    Args:
        size: (height, width) of the map.
        kernel_size: (height, width), each odd and less than twice the map's.
        channels_last: whether the maps are in that memory format.
        dtype: float32 or float64.
    """

    size: tuple[int, int]
    kernel_size: tuple[int, int]
    channels_last: bool
    dtype: torch.dtype

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        whole = max(self.size) <= LARGEST_TILE
        (height, width), (rows, columns) = self.size, self.kernel_size
        return Axis(height, rows, whole), Axis(width, columns, whole)

    def kernel_spectrum(self, weight: Tensor) -> Tensor:
        """The spectrum of a kernel `(C, 1, K, K)`, which the convolution multiplies with."""
        height, width = self.axes
        return self.transform(self.arranged(weight.movedim(0, 1)), height.taps, width.taps)

    def convolve(self, x: Tensor, kernel_spectrum: Tensor) -> Tensor:
        """The convolution of maps `(N, C, H, W)`, in their memory format."""
        height, width = self.axes
        maps = []
        for part in self.chunks(x):
            spectrum = self.transform(self.cut(part, margin=True), height.inputs, width.inputs)
            product = multiply(spectrum, kernel_spectrum)
            maps.append(self.join(self.invert(product, height.outputs, width.outputs), len(part)))
        return maps[0] if len(maps) == 1 else torch.cat(maps)

    def weight_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient `(C, 1, K, K)` of the kernel, from the input and the output's gradient."""
        height, width = self.axes
        total = torch.zeros((), dtype=self.dtype)
        for part, error in zip(self.chunks(x), self.chunks(gradient), strict=True):
            seen = self.transform(self.cut(part, margin=True), height.inputs, width.inputs)
            error = self.transform(self.cut(error, margin=False), height.outputs, width.outputs)
            total = total + multiply(seen, error, conjugate=True).sum(4, keepdim=True)
        kernel = self.invert(total, height.lags, width.lags)
        return (kernel.movedim(-1, 1) if self.channels_last else kernel).movedim(1, 0)

    def chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, CHUNK // x[0].numel()))

    def transform(self, x: Tensor, rows: range, columns: range) -> Tensor:
        """The spectrum of values that stand at these rows and columns of the two periods.

        Returns:
            `(2, frequencies of the width, 2, frequencies of the height, N, C)` if channels_last,
            else `(2, frequencies of the height, 1, 1, N, C, frequencies of the width)`, complex.
            An axis of 2 holds cosine and sine.
        """
        height, width = self.axes
        down = waves(rows, height.period, self.dtype)
        if self.channels_last:
            across = waves(columns, width.period, self.dtype)
            x = left(down, x.transpose(0, 1))
            x = left(across, x.movedim(2, 0))
            return x.unflatten(1, (2, -1)).unflatten(0, (2, -1))
        across = waves(columns, width.period, self.dtype, interleaved=True)
        x = left(down, right(x, across).movedim(2, 0))
        return torch.view_as_complex(x.view(2, len(down) // 2, 1, 1, *x.shape[1:3], -1, 2))

    def invert(self, spectrum: Tensor, rows: range, columns: range) -> Tensor:
        """The values at these rows and columns, from their spectrum."""
        height, width = self.axes
        up = inverse_waves(rows, height.period, self.dtype)
        if self.channels_last:
            across = inverse_waves(columns, width.period, self.dtype)
            x = left(across, spectrum.flatten(2, 3).flatten(0, 1))
            return left(up, x.transpose(0, 1)).movedim(2, 0)
        across = inverse_waves(columns, width.period, self.dtype, interleaved=True)
        x = left(up, torch.view_as_real(spectrum).flatten(-2).flatten(0, 3))
        return right(x.movedim(0, 2), across)

    def arranged(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1) if self.channels_last else x

    def cut(self, x: Tensor, *, margin: bool) -> Tensor:
        """Maps as a batch of tiles, with their margins or without; whole maps as they are."""
        height, width = self.axes
        if height.whole:
            return self.arranged(x)
        padding = []
        for axis in (width, height):
            edge = axis.margin * margin
            padding += [edge, axis.tiles * axis.tile - axis.length + edge]
        x = F.pad(x, padding)
        for dim, axis in ((2, height), (3, width)):
            x = x.unfold(dim, axis.tile + 2 * axis.margin * margin, axis.tile)
        order = (0, 2, 3, 4, 5, 1) if self.channels_last else (0, 2, 3, 1, 4, 5)
        return x.permute(order).flatten(0, 2)

    def join(self, x: Tensor, batch_size: int) -> Tensor:
        """What `cut` cut, put together again: maps `(N, C, H, W)`."""
        height, width = self.axes
        if not height.whole:
            x = x.unflatten(0, (batch_size, height.tiles, width.tiles))
            order = (0, 1, 3, 2, 4, 5) if self.channels_last else (0, 3, 1, 4, 2, 5)
            first = 1 if self.channels_last else 2
            x = x.permute(order).flatten(first + 2, first + 3).flatten(first, first + 1)
            x = x.narrow(first, 0, height.length).narrow(first + 1, 0, width.length)
        return x.movedim(-1, 1) if self.channels_last else x


def multiply(a: Tensor, b: Tensor, *, conjugate: bool = False) -> Tensor:
    """The product `a b`, or `a conj(b)`, of spectra of the same shape except for the batch.

    Along each axis of 2 (the first and the third), and in complex values, cosine and sine multiply
    like `(a0 + i a1) (b0 + i b1)`.
    """
    product = torch.empty_like(a)
    if conjugate:
        b = b.conj().resolve_conj()
    parts = [*itertools.product(range(a.shape[0]), range(a.shape[2]))]
    for i, j in parts:
        out = product[i, :, j]
        for step, (p, q) in enumerate(parts):
            r, s = i ^ p, j ^ q
            sign = (-1) ** ((p & r) + (q & s) + conjugate * (r + s))
            one, other = a[p, :, q], b[r, :, s]
            if step:
                out.addcmul_(one, other, value=sign)
            else:
                torch.mul(one, other if sign > 0 else -other, out=out)
    return product


def left(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix` times `x` along its first axis."""
    return linear(matrix, x.reshape(len(x), -1).T).view(-1, *x.shape[1:])


def right(x: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` times `x` along its last axis."""
    return linear(x.reshape(-1, x.shape[-1]), matrix).view(*x.shape[:-1], -1)


def angles(period: int, positions: range) -> Tensor:
    """2 pi f x / period, `(frequencies, positions)` in float64."""
    product = torch.outer(torch.arange(period // 2 + 1), torch.tensor(positions)) % period
    return product.double() * (2 * math.pi / period)


@lru_cache(maxsize=256)
def waves(
    positions: range, period: int, dtype: torch.dtype, *, interleaved: bool = False
) -> Tensor:
    """Values to their cosines and sines, `((part, frequency), position)`; interleaved, rows
    `(frequency, part)`."""
    angle = angles(period, positions)
    return torch.stack([angle.cos(), angle.sin()], int(interleaved)).flatten(0, 1).to(dtype)


@lru_cache(maxsize=256)
def inverse_waves(
    positions: range, period: int, dtype: torch.dtype, *, interleaved: bool = False
) -> Tensor:
    """Cosines and sines to values, `(position, (part, frequency))`: the frequencies left out mirror
    those between the first and, in an even period, the last."""
    frequencies = period // 2 + 1
    weight = torch.full((frequencies, 1), 2 / period, dtype=torch.float64)
    weight[0] /= 2
    if period % 2 == 0:
        weight[-1] /= 2
    angle = angles(period, positions)
    parts = torch.stack([angle.cos() * weight, angle.sin() * weight], int(interleaved))
    return parts.flatten(0, 1).T.contiguous().to(dtype)
