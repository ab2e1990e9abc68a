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
    if x.dtype == torch.float32 and has_onednn() and x.device.type == "cpu" and x.numel():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


@cache
def has_onednn() -> bool:
    """Whether oneDNN's product is here, and right."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight.T, weight[0], "none", [], "")
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    return torch.equal(found, x @ weight + weight[0])
