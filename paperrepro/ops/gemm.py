"""The fastest matrix product that this PyTorch has on a CPU.

`torch.nn.functional.linear` calls MKL, which on a processor that is not Intel's runs at half of its
peak (AMD EPYC, Zen 5, one thread: 75-98 GFLOP/s where oneDNN reaches 150-220). PyTorch carries
oneDNN too, and calls it for its compiler. That function has no public name, so it is tried once, on
numbers whose product is known, before it is used.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` without a graph: `x` of shape `(..., K)`, `weight` `(N, K)` with any strides."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() and has_onednn():
        return onednn_product(x, weight, bias)
    return F.linear(x, weight, bias)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def has_onednn() -> bool:
    """Whether oneDNN's product is here, and right."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4)
    try:
        return torch.equal(onednn_product(x, weight.T, weight[0]), x @ weight + weight[0])
    except Exception:  # of a function without a promise any may come
        return False
