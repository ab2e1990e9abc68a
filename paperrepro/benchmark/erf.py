"""What the effective receptive field of RepLKNet-31B costs, against the released procedure.

Released: the network as it was trained, with PyTorch's convolutions in NCHW. Ours: the network as
it is run (branches merged, which changes no value), through our depthwise convolution, keeping only
what the image's gradient needs. At 1024 pixels, the paper's size, that is 1.6 GB of maps, and of
the released procedure 7.2 GB: within four gigabytes it has to compute each block a second time,
which is the third candidate. All three find the same map.

Most of the time that is left goes into 1x1 convolutions, which are the same in all three.
"""

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..analysis.erf import contribution_map
from ..models import Backbone, build_model
from ..reparam import reparameterize
from .depthwise import with_stock_convolutions
from .latency import compare

SIZES = (224, 512)


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Time one image through the three candidates, interleaved.

    Args:
        quick: one stage of one block in a thin network, in place of RepLKNet-31B, at 128 pixels.

    Returns:
        One row per size: seconds of each candidate (`ours`, `released`, `recomputed`), the times
        by which ours is faster than the other two, the largest difference of the released map from
        ours over its maximum, the widest spread and the null comparison.
    """
    torch.manual_seed(0)
    if quick:
        trained = build_model("replknet_31b", channels=(8, 16, 32, 64), depths=(1, 1, 1, 1))
    else:
        trained = build_model("replknet_31b")
    trained = trained.eval().requires_grad_(False)
    as_run = reparameterize(trained)
    released = with_stock_convolutions(trained)
    rows = []
    for size in (128,) if quick else SIZES:
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        candidates = {
            "ours": lambda image=image: contribution_map(as_run, image),
            "released": lambda image=image: released_map(released, image),
            "recomputed": lambda image=image: released_map(released, image, recompute=True),
        }
        comparison = compare(
            candidates,
            rounds=3,
            threads=threads,
            progress=f"{size} pixels" if progress else None,
        )
        ours, theirs = candidates["ours"](), candidates["released"]()
        rows.append(
            {"size": size}
            | {f"{name}_s": comparison[name].median for name in candidates}
            | {
                "over_released": comparison.speed_up("ours", "released"),
                "over_recomputed": comparison.speed_up("ours", "recomputed"),
                "difference": float((ours - theirs).abs().max() / theirs.max()),
                "spread": max(timing.spread for timing in comparison.timings.values()),
                "null": comparison.null,
            }
        )
    return pd.DataFrame(rows)


def released_map(model: Backbone, image: Tensor, *, recompute: bool = False) -> Tensor:
    """The contributions `(H, W)` in one image, by autograd over the whole graph.

    Args:
        recompute: keep the inputs of the blocks alone, and compute the rest again.
    """
    image = image.clone().requires_grad_()
    x = image
    for block in blocks(model):
        x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
    centre = x[:, :, x.shape[2] // 2, x.shape[3] // 2]
    (gradient,) = torch.autograd.grad(centre.relu().sum(), image)
    return gradient.relu().sum((0, 1))


def blocks(model: Backbone) -> list[nn.Module]:
    """What a RepLKNet does up to its last map: the stem's layers, transitions and blocks."""
    layers = list(model.stem.children())
    for stage in model.stages:
        layers += getattr(stage, "downsample", ())
        layers += stage.get_submodule("blocks").children()
    return layers
