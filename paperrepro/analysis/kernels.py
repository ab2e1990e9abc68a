"""Where a large kernel has its weight: RepLKNet's Fig. 6 (Appendix C), for any depthwise kernel.

The paper shows three things in the 13x13 kernels of a MobileNetV2: the centre is the largest, what
lies closer to it is larger, and so is the skeleton, the row and the column through the centre. The
3x3 branch of training adds to the centre. Here each of them is a number.
"""

import copy

import pandas as pd
import torch
from torch import Tensor, nn

from ..models.layers import Branches
from ..reparam import reparameterize
from ..results import need_finite

LARGE = 5


def aggregate(weight: Tensor) -> Tensor:
    """The magnitudes of a kernel summed over its channels, divided by the largest sum.

    Args:
        weight: `(C, 1, K, K)`.

    Returns:
        `(K, K)`, its maximum 1; zeros for a kernel of zeros.

    Raises:
        ValueError: another shape, NaN or infinity.
    """
    if weight.dim() != 4 or weight.shape[1] != 1 or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"expected depthwise kernels (C, 1, K, K), got {tuple(weight.shape)}")
    if not weight.isfinite().all():
        raise ValueError("the kernel holds NaN or infinity")
    total = weight.detach().float().abs().sum((0, 1))
    return total / total.max().clamp(min=torch.finfo(total.dtype).tiny)


def describe(aggregated: Tensor) -> dict[str, float]:
    """The paper's three observations as numbers.

    Args:
        aggregated: `(K, K)` from `aggregate`, K odd and at least 3.

    Returns:
        `peak`, how many pixels the largest entry lies from the centre, along the farther axis; the
        share of the whole in the central 3x3 (of a 3x3 kernel: in its central entry), `centre`, and
        in the `skeleton`, the central row and column outside it; what an even kernel has there,
        `even_centre` and `even_skeleton`; and `decay`, Spearman's rank correlation of an entry with
        its distance from the centre, -1 where what is closer is always larger. Shares and `decay`
        are NaN for a kernel of zeros.

    Raises:
        ValueError: another shape, an even or smaller kernel.
    """
    size = aggregated.shape[-1]
    if aggregated.shape != (size, size) or size % 2 == 0 or size < 3:
        raise ValueError(
            f"expected a square kernel of an odd side from 3 on, got {tuple(aggregated.shape)}"
        )
    aggregated = aggregated.double().cpu()
    offset = (torch.arange(size) - size // 2).abs()
    row, column = offset[:, None].expand(size, size), offset.expand(size, size)
    core = torch.maximum(row, column) <= (1 if size > 3 else 0)
    skeleton = (torch.minimum(row, column) == 0) & ~core
    largest = aggregated.argmax()
    total = aggregated.sum()
    ranks = pd.DataFrame(
        {"value": aggregated.flatten().numpy(), "distance": (row**2 + column**2).flatten().numpy()}
    ).rank()
    return {
        "peak": int(torch.maximum(row, column).flatten()[largest]),
        "centre": (aggregated[core].sum() / total).item(),
        "even_centre": core.double().mean().item(),
        "skeleton": (aggregated[skeleton].sum() / total).item(),
        "even_skeleton": skeleton.double().mean().item(),
        "decay": ranks["value"].corr(ranks["distance"]),
    }


def large_kernels(model: nn.Module, smallest: int = LARGE) -> dict[str, dict[str, Tensor]]:
    """The large depthwise kernels of a network as they are run, and without their small branch.

    A BatchNorm that follows is folded in, as in the paper.

    Args:
        model: any network; it stays as it is.
        smallest: K from which a kernel counts as large.

    Returns:
        By the layer's name in the re-parameterized network its weights `(C, 1, K, K)`: "merged",
        all that runs in parallel in one kernel; and, where it differs, "large", the largest branch
        alone.

    Raises:
        ValueError: no kernel is that large; naming those that there are. Or a weight that is not
            finite.
    """
    need_finite(model.state_dict().items())
    merged = depthwise_weights(reparameterize(model))
    alone = depthwise_weights(reparameterize(without_small_branches(model)))
    kernels: dict[str, dict[str, Tensor]] = {}
    for name, weight in merged.items():
        if weight.shape[-1] < smallest:
            continue
        kernels[name] = {"merged": weight}
        if name in alone and not torch.equal(alone[name], weight):
            kernels[name]["large"] = alone[name]
    if not kernels:
        sizes = sorted({f"{weight.shape[2]} x {weight.shape[3]}" for weight in merged.values()})
        raise ValueError(
            f"no depthwise kernel of at least {smallest} x {smallest}; there are: "
            f"{', '.join(sizes) or 'none at all'}"
        )
    return kernels


def depthwise_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the convolutions that have a filter per channel, by name."""
    return {
        name: conv.weight.detach()
        for name, conv in model.named_modules()
        if isinstance(conv, nn.Conv2d) and 1 < conv.groups == conv.in_channels == conv.out_channels
    }


def without_small_branches(model: nn.Module) -> nn.Module:
    """A copy in which of parallel branches the one with the largest kernel is left."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Branches):
            largest = max(module, key=lambda name: kernel_of(module[name]))
            for name in [name for name in module if name != largest]:
                del module[name]
    return model


def kernel_of(branch: nn.Module) -> int:
    """The side of the largest kernel in a branch; 0 without a convolution."""
    convs = [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
    return max((conv.kernel_size[0] for conv in convs), default=0)


def measure(model: nn.Module, smallest: int = LARGE) -> pd.DataFrame:
    """`describe` for each kernel of `large_kernels`.

    Returns:
        One row per layer and form ("large" or "merged") with its kernel's side, `kernel_size`.

    Raises:
        ValueError: as `large_kernels`.
    """
    return pd.DataFrame(
        {"layer": name, "form": form, "kernel_size": weight.shape[-1]} | describe(aggregate(weight))
        for name, forms in large_kernels(model, smallest).items()
        for form, weight in sorted(forms.items())
    )
