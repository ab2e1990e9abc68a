"""The depthwise convolution with a large kernel on a GPU, in Triton: forward and both gradients.

RepLKNet's authors wrote theirs in CUDA, because cuDNN's wastes large kernels (Section 3.1, Table
1). One program computes a tile of one map. It reads the tile once per tap, of which all but the
first find their pixels in the cache. With `TRITON_INTERPRET=1` the same programs run on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 32


@triton.jit
def convolve_tile(
    x,
    weight,
    output,
    channels,
    height,
    width,
    rows: tl.constexpr,
    columns: tl.constexpr,
    tile: tl.constexpr,
):
    """One tile of `output[n, c] = x[n, c] * weight[c]`, summed in float32."""
    plane = tl.program_id(0)
    h = tl.program_id(1) * tile + tl.arange(0, tile)[:, None]
    w = tl.program_id(2) * tile + tl.arange(0, tile)[None, :]
    x += plane.to(tl.int64) * height * width
    weight += (plane % channels) * rows * columns
    total = tl.zeros((tile, tile), tl.float32)
    for i in range(rows):
        y = h + i - rows // 2
        for j in range(columns):
            z = w + j - columns // 2
            inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
            pixels = tl.load(x + y * width + z, mask=inside, other=0.0)
            total += pixels.to(tl.float32) * tl.load(weight + i * columns + j).to(tl.float32)
    output += plane.to(tl.int64) * height * width
    tl.store(output + h * width + w, total, mask=(h < height) & (w < width))


@triton.jit
def gradient_of_tap(
    x,
    gradient,
    output,
    batch,
    channels,
    height,
    width,
    rows: tl.constexpr,
    columns: tl.constexpr,
    tile: tl.constexpr,
):
    """The gradient of one tap of one kernel, over all images; always in the same order."""
    channel = tl.program_id(0)
    i = tl.program_id(1) // columns
    j = tl.program_id(1) % columns
    total = tl.zeros((tile, tile), tl.float32)
    for image in range(batch):
        plane = (image * channels + channel).to(tl.int64) * height * width
        for top in range(0, height, tile):
            h = top + tl.arange(0, tile)[:, None]
            y = h + i - rows // 2
            for left in range(0, width, tile):
                w = left + tl.arange(0, tile)[None, :]
                z = w + j - columns // 2
                here = (h < height) & (w < width)
                inside = here & (y >= 0) & (y < height) & (z >= 0) & (z < width)
                seen = tl.load(x + plane + y * width + z, mask=inside, other=0.0)
                error = tl.load(gradient + plane + h * width + w, mask=here, other=0.0)
                total += seen.to(tl.float32) * error.to(tl.float32)
    tl.store(output + channel * rows * columns + tl.program_id(1), tl.sum(total))


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution without bias of maps `(N, C, H, W)`, in NCHW, by kernels `(C, 1, K, K)`."""
    x, weight = x.contiguous(), weight.contiguous()
    batch, channels, height, width = x.shape
    output = torch.empty_like(x)
    grid = (batch * channels, triton.cdiv(height, TILE), triton.cdiv(width, TILE))
    convolve_tile[grid](x, weight, output, channels, height, width, *weight.shape[2:], TILE)
    return output


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the kernels, from the input and the output's gradient."""
    x, gradient = x.contiguous(), gradient.contiguous()
    batch, channels, height, width = x.shape
    output = torch.empty(weight.shape, dtype=torch.float32, device=x.device)
    rows, columns = weight.shape[2:]
    gradient_of_tap[(channels, rows * columns)](
        x, gradient, output, batch, channels, height, width, rows, columns, TILE
    )
    return output.to(weight.dtype)
