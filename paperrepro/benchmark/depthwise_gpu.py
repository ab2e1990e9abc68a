"""RepLKNet's Table 1 on a GPU: cuDNN, our kernel in Triton, and what moving the maps alone takes.

It ran in Triton's interpreter only so far, on a CPU: no GPU was at hand. Its results would stand in
`data/results/depthwise-gpu.csv`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..files import pick_device
from ..ops import depthwise_conv2d
from .depthwise import Operator, stock, tensors
from .latency import FORMATS, compare

# Table 1's input is (64, 384, R, R); it times 24 layers, this one of them.
BATCH, CHANNELS = 64, 384
SIDES = (16, 32, 64)
KERNELS = (3, 5, 7, 9, 13, 17, 21, 27, 29, 31)
DTYPES = (torch.float32, torch.float16)
# How often a pass reads and writes whole maps: forward once, and each of the two gradients once.
MOVES = {"inference": 1, "training": 3}


def run(
    *,
    device: str = "cuda",
    batch: int = BATCH,
    channels: int = CHANNELS,
    sides: Sequence[int] = SIDES,
    kernels: Sequence[int] = KERNELS,
    dtypes: Sequence[torch.dtype] = DTYPES,
    quick: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """One layer of Table 1 by cuDNN in both memory formats and by Triton.

    Args:
        device: a GPU; a CPU only with `TRITON_INTERPRET=1`, to try the code.
        batch, channels, sides, kernels: the shapes.
        quick: in float32, on the middle map, K = 3 and 31.

    Returns:
        One row per dtype, pass ("inference", or "training", with both gradients), side and kernel:
        milliseconds of cuDNN in NCHW; the times by which cuDNN in channels_last, Triton and moving
        the maps (`limit`: no convolution can be faster) are faster; Triton over the better of
        cuDNN's; the share of the limit that Triton reaches; the widest spread and the null
        comparison.

    Raises:
        ValueError: there is no such device here.
    """
    pick_device(device)
    if quick:
        sides, kernels, dtypes = sides[len(sides) // 2 :][:1], (kernels[0], kernels[-1]), dtypes[:1]
    cells = [
        (dtype, purpose, side, kernel)
        for dtype in dtypes
        for purpose in MOVES
        for side in sides
        for kernel in kernels
    ]
    return pd.DataFrame(
        {"dtype": str(dtype).removeprefix("torch."), "pass": purpose, "side": side}
        | {"kernel": kernel}
        | measured(device, batch, channels, side, kernel, dtype, purpose)
        for dtype, purpose, side, kernel in tqdm(cells, desc="GPU", disable=not progress)
    )


def measured(
    device: str,
    batch: int,
    channels: int,
    side: int,
    kernel: int,
    dtype: torch.dtype,
    purpose: str,
) -> dict[str, float]:
    """One cell of the table."""
    candidates: dict[str, Callable[[], object]] = {}
    operators: dict[str, tuple[Operator, str]] = {layout: (stock, layout) for layout in FORMATS}
    operators["triton"] = (partial(depthwise_conv2d, method="triton"), "nchw")
    for name, (operator, layout) in operators.items():
        x, weight, gradient = (
            tensor.to(device, dtype) for tensor in tensors(channels, side, kernel, batch, layout)
        )
        call: Callable[[], object] = partial(operator, x, weight)
        if purpose == "training":
            x.requires_grad_()
            weight.requires_grad_()
            call = partial(with_gradients, operator, x, weight, gradient)
        candidates[name] = finished(call, device)
    maps = torch.zeros(batch, channels, side, side, dtype=dtype, device=device)
    candidates["limit"] = finished(lambda: [maps.clone() for _ in range(MOVES[purpose])], device)
    comparison = compare(candidates, rounds=9, min_seconds=0.02)
    triton = comparison["triton"].median
    best = min(comparison[layout].median for layout in FORMATS)
    return (
        {"nchw_ms": comparison["nchw"].median * 1e3}
        | {name: comparison.speed_up(name, "nchw") for name in list(candidates)[1:]}
        | {"triton_over_best": best / triton}
        | {"share_of_limit": comparison["limit"].median / triton}
        | {"spread": max(timing.spread for timing in comparison.timings.values())}
        | {"null": comparison.null}
    )


def with_gradients(
    operator: Operator, x: Tensor, weight: Tensor, gradient: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(operator(x, weight), (x, weight), gradient)


def finished(call: Callable[[], object], device: str) -> Callable[[], object]:
    """The call, until the GPU is done with it."""
    if torch.device(device).type != "cuda":
        return call

    def run() -> None:
        call()
        torch.cuda.synchronize(device)

    return run
