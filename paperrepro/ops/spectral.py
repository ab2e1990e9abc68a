"""Depthwise convolution as a product of spectra, with its Fourier transforms as matrix products.

A K x K depthwise convolution costs K^2 multiply-accumulates per value of the map. Between two
Fourier transforms it costs one complex product. The maps of a vision backbone are short, 7 to 128
pixels a side: there a dense matrix of cosines and sines, multiplied by the processor's best tuned
routine, beats a fast Fourier transform, which does less arithmetic and moves more data. (On a GPU
the same observation made FlashFFTConv: Fu et al., 2023.)

Spectra need no complex numbers here: the real part stands above the imaginary part, in rows
`(part, frequency)`. Both memory formats are transformed as they lie.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

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
            total = total + multiply(seen, error, conjugate=True).sum(0, keepdim=True)
        kernel = self.invert(total, height.lags, width.lags)
        return (kernel.movedim(-1, 1) if self.channels_last else kernel).movedim(1, 0)

    def chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, CHUNK // x[0].numel()))

    def transform(self, x: Tensor, rows: range, columns: range) -> Tensor:
        """The spectrum of values that stand at these rows and columns of the two periods.

        Returns:
            `(N, 2 period, C * frequencies)` if channels_last, else `(N, C, 2 period, frequencies)`.
        """
        height, width = self.axes
        down = complex_waves(rows, height.period, self.dtype)
        across = real_waves(columns, width.period, self.dtype)
        x = across @ x if self.channels_last else x @ across.T
        return down @ x.reshape(*self.batch(x), 2 * len(rows), -1)

    def invert(self, spectrum: Tensor, rows: range, columns: range) -> Tensor:
        """The values at these rows and columns, from their spectrum."""
        height, width = self.axes
        down = inverse_complex_waves(rows, height.period, self.dtype)
        across = inverse_real_waves(columns, width.period, self.dtype)
        x = down @ spectrum
        if self.channels_last:
            return across @ x.view(len(x), len(rows), across.shape[1], -1)
        return x.view(*self.batch(x), len(rows), -1) @ across.T

    def batch(self, x: Tensor) -> torch.Size:
        return x.shape[: 1 if self.channels_last else 2]

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
    """The complex product `a b`, or `a conj(b)`, of spectra of the same shape but for the batch."""
    product = torch.empty_like(a)
    real, imaginary = product.chunk(2, -2)
    a_real, a_imaginary = a.chunk(2, -2)
    b_real, b_imaginary = b.chunk(2, -2)
    sign = 1 if conjugate else -1
    torch.mul(a_real, b_real, out=real).addcmul_(a_imaginary, b_imaginary, value=sign)
    torch.mul(a_imaginary, b_real, out=imaginary).addcmul_(a_real, b_imaginary, value=-sign)
    return product


def angles(period: int, frequencies: int, positions: range) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2 pi f x / period, `(frequencies, positions)` in float64."""
    product = torch.outer(torch.arange(frequencies), torch.tensor(positions)) % period
    angle = product.double() * (2 * math.pi / period)
    return angle.cos(), angle.sin()


@lru_cache(maxsize=256)
def real_waves(positions: range, period: int, dtype: torch.dtype) -> Tensor:
    """Real values to half of their spectrum, `((part, frequency), position)`."""
    cos, sin = angles(period, period // 2 + 1, positions)
    return torch.cat([cos, -sin]).to(dtype)


@lru_cache(maxsize=256)
def complex_waves(positions: range, period: int, dtype: torch.dtype) -> Tensor:
    """Complex values to their spectrum, `((part, frequency), (position, part))`."""
    cos, sin = angles(period, period, positions)
    real, imaginary = torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)
    return torch.cat([real, imaginary]).flatten(1).to(dtype)


@lru_cache(maxsize=256)
def inverse_complex_waves(positions: range, period: int, dtype: torch.dtype) -> Tensor:
    """A spectrum to complex values, `((position, part), (part, frequency))`."""
    cos, sin = (wave.T for wave in angles(period, period, positions))
    real, imaginary = torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)
    return (torch.stack([real, imaginary], 1).flatten(0, 1) / period).to(dtype)


@lru_cache(maxsize=256)
def inverse_real_waves(positions: range, period: int, dtype: torch.dtype) -> Tensor:
    """Half of a spectrum to real values, `(position, (part, frequency))`: the frequencies left out
    mirror those between the first and, in an even period, the last."""
    frequencies = period // 2 + 1
    cos, sin = (wave.T for wave in angles(period, frequencies, positions))
    weight = torch.full((frequencies,), 2.0, dtype=torch.float64)
    weight[0] = 1
    if period % 2 == 0:
        weight[-1] = 1
    return (torch.cat([cos * weight, -sin * weight], 1) / period).to(dtype)
