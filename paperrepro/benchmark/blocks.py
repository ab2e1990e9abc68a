"""MobileOne's Tables 1b and 3 on a CPU: what activations and blocks cost beyond their FLOPs.

The paper times "a 30-layer convolutional neural network" on an iPhone 12 and says no more of it. So
`run` times two, of plain 3 x 3 convolutions and of depthwise and pointwise ones in turns, with each
of the activations, with squeeze-and-excite (SE) and with skip connections.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation
from tqdm import tqdm

from ..models.layers import Branches, Chain, choose
from .latency import FORMATS, compare

LAYERS = 30
WIDTHS = {"dense": (16, 32, 64, 128, 256), "separable": (32, 64, 128, 256, 512)}


class Coefficients(nn.Sequential):
    """Numbers in (-1, 1) from the image as a whole: average pooling, two linear layers with a ReLU
    between them, 2 sigmoid(.) - 1. Shapes: (N, C, H, W) to (N, outputs, 1, 1)."""

    def __init__(self, channels: int, outputs: int, reduction: int) -> None:
        hidden = max(1, channels // reduction)
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, outputs, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) - 1


class DynamicReLU(nn.Module):
    """The largest of K = 2 lines whose slopes and offsets depend on the image (Chen et al., Dynamic
    ReLU, ECCV 2020, Eqs. 2-4): max_k (a_k x + b_k), with a = (1, 0) + r_a and b = r_b / 2 for
    coefficients r in (-1, 1). With r = 0 it is ReLU.

    Args:
        shared: one pair of lines for all channels (DY-ReLU-A), or one for each (DY-ReLU-B).
        reduction: channels over hidden units of the coefficients.
    """

    def __init__(self, channels: int, shared: bool, reduction: int = 8) -> None:
        super().__init__()
        self.coefficients = Coefficients(channels, 4 if shared else 4 * channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        slope1, slope2, offset1, offset2 = self.coefficients(x).chunk(4, dim=1)
        return torch.maximum(
            torch.addcmul(offset1 / 2, slope1 + 1, x), torch.addcmul(offset2 / 2, slope2, x)
        )


class DynamicShiftMax(nn.Module):
    """The largest of K = 2 sums of J = 2 channels, C / G apart, with weights that depend on the
    image (Li et al., MicroNet, ICCV 2021, Section 4): y_i = max_k sum_j a_ijk x_(i + j C / G).

    The weights are 1 for k = 1, j = 0 and else 0, plus coefficients in (-2, 2). With coefficients
    of 0 it is ReLU.

    Args:
        groups: G, that of the group convolution before it in MicroNet; the channels are a multiple.
        reduction: channels over hidden units of the coefficients.
    """

    def __init__(self, channels: int, groups: int = 4, reduction: int = 4) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(
                f"{channels} channels are not a multiple of {groups} groups: choose groups that "
                "divide the channels"
            )
        self.shift = channels // groups
        self.coefficients = Coefficients(channels, 4 * channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        own1, other1, own2, other2 = (2 * self.coefficients(x)).chunk(4, dim=1)
        other = x.roll(-self.shift, dims=1)
        return torch.maximum((own1 + 1) * x + other1 * other, own2 * x + other2 * other)


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "ReLU": lambda channels: nn.ReLU(),
    "GELU": lambda channels: nn.GELU(),
    "SE-ReLU": lambda channels: Chain(
        se=SqueezeExcitation(channels, channels // 16), act=nn.ReLU()
    ),
    "SiLU": lambda channels: nn.SiLU(),
    "Dynamic Shift-Max": DynamicShiftMax,
    "DynamicReLU-A": lambda channels: DynamicReLU(channels, shared=True),
    "DynamicReLU-B": lambda channels: DynamicReLU(channels, shared=False),
}


def network(kind: str, activation: str = "ReLU", skip: bool = False) -> nn.Sequential:
    """Thirty convolutions, each followed by an activation, in five stages that halve the map.

    Args:
        kind: "dense", 3 x 3 convolutions only, or "separable", depthwise 3 x 3 and pointwise ones
            in turns; a regular one opens both.
        activation: a name in `ACTIVATIONS`.
        skip: add the input of each convolution to its output, where their shapes are the same.

    Raises:
        ValueError: for an unknown kind or activation.
    """
    widths = choose("kind", WIDTHS, kind)
    act = choose("activation", ACTIVATIONS, activation)
    layers = []
    channels = 3
    for number in range(LAYERS):
        stage, position = divmod(number, LAYERS // len(widths))
        stride = 1 if position else 2
        depthwise = kind == "separable" and number % 2 == 0 and number > 0
        width = channels if depthwise else widths[stage]
        kernel = 1 if kind == "separable" and number % 2 else 3
        conv = nn.Conv2d(
            channels, width, kernel, stride, kernel // 2, groups=channels if depthwise else 1
        )
        nn.init.kaiming_normal_(conv.weight)
        same = width == channels and stride == 1
        layers.append(
            Chain(
                sum=Branches(conv=conv, skip=nn.Identity() if skip and same else None),
                act=act(width),
            )
        )
        channels = width
    return nn.Sequential(*layers)


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Table 3, seven activations, and Table 1b, SE and skip connections, at 224 pixels.

    Args:
        quick: the separable network only, batch 1, NCHW, images of 112 pixels.

    Returns:
        One row per network, batch, memory format, activation and skip: milliseconds, their spread,
        the time over that of plain ReLU, and the null comparison of the interleaved run.
    """
    size = 112 if quick else 224
    cells = [
        (kind, batch, memory_format)
        for kind in (("separable",) if quick else WIDTHS)
        for batch in ((1,) if quick else (1, 8))
        for memory_format in (("nchw",) if quick else FORMATS)
    ]
    blocks = [(name, False) for name in ACTIVATIONS] + [("ReLU", True), ("SE-ReLU", True)]
    rows = []
    for kind, batch, memory_format in tqdm(cells, desc="Blocks", disable=not progress):
        candidates = {
            block: call(network(kind, *block), batch, size, memory_format) for block in blocks
        }
        comparison = compare(candidates, rounds=9 if batch == 1 else 5, threads=threads)
        for (activation, skip), timing in comparison.timings.items():
            rows.append(
                {
                    "network": kind,
                    "size": size,
                    "batch": batch,
                    "memory_format": memory_format,
                    "activation": activation,
                    "skip": skip,
                    "ms": timing.median * 1e3,
                    "spread": timing.spread,
                    "over_relu": timing.median / comparison["ReLU", False].median,
                    "null": comparison.null,
                }
            )
    return pd.DataFrame(rows)


def call(model: nn.Module, batch: int, size: int, memory_format: str) -> Callable[[], object]:
    """A call of the network with random images."""
    model = model.eval().to(memory_format=FORMATS[memory_format])
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=FORMATS[memory_format])
    return torch.inference_mode()(lambda: model(images))
