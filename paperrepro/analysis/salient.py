"""Where a filter's weight lies: FasterNet's salient positions (Section 3.3, Fig. 6).

Of each filter, the position whose weights over the input channels have the largest Frobenius norm.
In the paper's ResNet-18 that is the centre more often than any other position, in all four stages.

    >>> from torchvision.models import resnet18
    >>> table = measure(resnet18())
    >>> list(table["stage"])
    ['layer1', 'layer2', 'layer3', 'layer4']

Filters of independent weights have it anywhere, each of the K x K positions with the same
probability: `chance`. The filters of a trained layer depend on each other, so that intervals are
narrower and p-values smaller than they should be.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor, nn

from .recording import stage_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def histogram(weight: Tensor) -> Tensor:
    """How many filters have their salient position where (FasterNet, Section 3.3).

    Args:
        weight: of a convolution, `(O, I / groups, kh, kw)`.

    Returns:
        Counts `(kh, kw)`. A filter whose positions are all of one norm, such as one of zeros, has
        no salient position; where two are the largest, the first counts.

    Raises:
        ValueError: another shape, NaN or infinity.
    """
    if weight.dim() != 4:
        raise ValueError(
            f"expected the weight of a convolution (O, I, kh, kw), got {tuple(weight.shape)}"
        )
    if not weight.isfinite().all():
        raise ValueError("the weight holds NaN or infinity: no position is the largest")
    kernel = weight.shape[2:]
    norms = weight.detach().float().norm(dim=1).flatten(1)
    norms = norms[norms.amax(1) > norms.amin(1)]
    return norms.argmax(1).bincount(minlength=kernel.numel()).reshape(kernel)


def conv_weights(network: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of every convolution by name; of a state dict, every tensor of four axes."""
    if isinstance(network, nn.Module):
        layers = network.named_modules()
        return {name: layer.weight for name, layer in layers if isinstance(layer, nn.Conv2d)}
    return {name: tensor for name, tensor in network.items() if tensor.dim() == 4}


def is_depthwise(weight: Tensor) -> bool:
    """Whether each filter sees one channel."""
    return weight.shape[1] == 1


def histograms(
    network: nn.Module | Mapping[str, Tensor], kernel_size: int = 3, *, depthwise: bool = False
) -> dict[str, Tensor]:
    """The histogram of each stage, over all its convolutions of one kernel size.

    Args:
        network: any network, or the tensors of a checkpoint. With parallel branches each counts
            for itself; `reparameterize(network)` has the kernels that are run.
        depthwise: filters that see one channel, instead of the paper's regular convolutions.

    Raises:
        ValueError: naming the kernels that the network has.
    """
    weights = conv_weights(network)
    counts: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.shape[2:] == (kernel_size, kernel_size) and is_depthwise(weight) == depthwise:
            stage = stage_of(name)
            counts[stage] = counts.get(stage, 0) + histogram(weight)
    if not counts:
        kinds = Counter(map(describe, weights.values()))
        listed = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        wanted = f"{kernel_size} x {kernel_size}{' depthwise' * depthwise}"
        raise ValueError(f"no convolution of {wanted}; there are: {listed or 'none at all'}")
    return counts


def describe(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape[2:])) + " depthwise" * is_depthwise(weight)


def measure(
    network: nn.Module | Mapping[str, Tensor], kernel_size: int = 3, *, depthwise: bool = False
) -> pd.DataFrame:
    """The centre's share of the salient positions in each stage, and what chance would give.

    Returns:
        One row per stage: the number of `filters`; the share of the `centre` with its exact 95 %
        interval `low` to `high`, that of an average `corner`, and `chance`; the binomial test's
        p-value of the centre, the chi-square test's of all positions (`uniform_p_value`); and the
        `counts`, row by row.

    Raises:
        ValueError: as `histograms`; a kernel size that is even or 1; or scipy is missing.
    """
    try:
        from scipy.stats import binomtest, chisquare
    except ImportError as error:
        raise ValueError('scipy not installed: pip install "paperrepro[book]"') from error
    if kernel_size % 2 == 0 or kernel_size < 3:
        raise ValueError(f"kernel size {kernel_size}: no centre among others; use 3, 5, 7, ...")
    rows = []
    for stage, counts in histograms(network, kernel_size, depthwise=depthwise).items():
        counts = counts.cpu()
        filters = int(counts.sum())
        if not filters:
            continue
        middle = kernel_size // 2
        centre, chance = int(counts[middle, middle]), 1 / counts.numel()
        test = binomtest(centre, filters, chance)
        interval = test.proportion_ci(0.95)
        rows.append(
            {
                "stage": stage,
                "filters": filters,
                "centre": centre / filters,
                "low": interval.low,
                "high": interval.high,
                "corner": counts[[0, 0, -1, -1], [0, -1, 0, -1]].sum().item() / 4 / filters,
                "chance": chance,
                "p_value": test.pvalue,
                "uniform_p_value": chisquare(counts.flatten().numpy()).pvalue,
                "counts": " ".join(map(str, counts.flatten().tolist())),
            }
        )
    return pd.DataFrame(rows)


def draw(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """Histograms as in Fig. 6: a group of bars per position, a bar per stage; needs matplotlib.

    Args:
        tables: from `measure`, by the network's name.

    Returns:
        The figure: the networks below one another, chance as a line.
    """
    import matplotlib.pyplot as plt

    height = 2.6 * len(tables) + 0.6
    figure, axes = plt.subplots(len(tables), squeeze=False, figsize=(7, height))
    for panel, (network, table) in zip(axes.flat, tables.items(), strict=True):
        width = 0.8 / len(table)
        rows = zip(table["stage"], table["filters"], table["counts"], strict=True)
        for index, (stage, filters, counts) in enumerate(rows):
            shares = [int(count) / filters for count in counts.split()]
            offset = 1 + (index - (len(table) - 1) / 2) * width
            places = [position + offset for position in range(len(shares))]
            panel.bar(places, shares, width, label=stage)
        panel.axhline(table["chance"].iloc[0], color="black", linestyle="--", label="chance")
        panel.set(title=network, ylabel="share of the filters")
        if len(shares) <= 25:
            panel.set_xticks(range(1, len(shares) + 1))
        panel.legend(fontsize="x-small", ncols=2)
    panel.set_xlabel("position in the kernel, row by row")
    figure.tight_layout()
    return figure
