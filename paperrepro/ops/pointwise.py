"""A 1x1 convolution for inference, as one matrix product of all pixels.

With one thread and fewer than sixteen images PyTorch computes it by MKL, which is slow on some
processors (see `gemm`); with more it calls oneDNN's convolution, which is slow on small maps.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choice import fastest, measures, tuning
from .gemm import has_onednn, linear
from .observers import is_observed, is_recorded

# From so many images on, PyTorch's convolution is as fast.
MANY_IMAGES = 16


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d(x, weight, bias)` with a 1x1 kernel, by the way that `tuning` says.

    Where a gradient is needed, where someone looks on (see `depthwise_conv2d`), and for all but
    float32 on a CPU it is PyTorch's convolution itself.

    Args:
        x: maps, shape `(N, C, H, W)`, in either memory format; the output has the same.
        weight: shape `(D, C, 1, 1)`.
        bias: shape `(D,)`.

    Returns:
        Shape `(N, D, H, W)`.
    """
    if is_recorded() or not is_open(x, weight) or is_observed():
        return F.conv2d(x, weight, bias)
    last = not x.is_contiguous()
    has_product = x.is_contiguous(memory_format=torch.channels_last) if last else len(x) == 1
    if not has_product:
        return F.conv2d(x, weight, bias)
    product = partial(of_pixels if last else of_planes, x, weight, bias)
    if not measures():
        return product() if len(x) < MANY_IMAGES else F.conv2d(x, weight, bias)
    convolution = partial(F.conv2d, x, weight, bias)
    shape = "x".join(map(str, x.shape))
    key = (
        f"pointwise-{shape}-to-{len(weight)}-{'channels_last' if last else 'nchw'}-float32-threads-"
        f"{torch.get_num_threads()}"
    )
    ways = {"product": product, "convolution": convolution}
    return ways[fastest(key, ways)]()


# torch.fx records a call of it as one node.
torch.fx.wrap("pointwise_conv2d")


def is_open(x: Tensor, weight: Tensor) -> bool:
    """Whether there is a way besides PyTorch's."""
    return (
        tuning.mode != "off"
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[1] == weight.shape[1]
        and x.numel() > 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and has_onednn()
    )


def of_pixels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product of channels_last maps."""
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def of_planes(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product of one image's maps in NCHW."""
    output = linear(weight.flatten(1), x[0].flatten(1).T)
    if bias is not None:
        output.add_(bias[:, None])
    return output.view(1, -1, *x.shape[2:])


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d(C, D, 1)` whose forward pass is `pointwise_conv2d`."""

    foldable = True

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv2d(x, self.weight, self.bias)
