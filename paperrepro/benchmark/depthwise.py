"""RepLKNet's Table 1 on a CPU: how fast a depthwise convolution with a large kernel can be.

`run` measures the operator against PyTorch's, over kernels and maps, forward and with its backward
pass; `layers` measures RepLKNet-31B's own, and `networks` what that makes of whole networks.
`calibrate` measures which of the operator's paths is fastest where, and writes the table that
`depthwise_conv2d` looks up:

    python -m paperrepro.benchmark.depthwise --calibrate
"""

import argparse
import copy
import csv
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import gmean
from torch import Tensor, nn
from tqdm import tqdm

from ..models import build_model
from ..ops import DepthwiseConv2d, depthwise, tuning
from ..ops.choice import measure
from ..ops.depthwise import CLIFF, METHODS, RULE, depthwise_conv2d, gradient_of_kernel
from ..reparam import reparameterize
from .latency import FORMATS, compare, torch_threads

Network = TypeVar("Network", bound=nn.Module)
Operator = Callable[[Tensor, Tensor], Tensor]

CHANNELS = 96
SIDES = (7, 14, 16, 28, 32, 56, 64)
KERNELS = tuple(range(3, 32, 2))
TRAINING_SIDES = (16, 32)
TRAINING_KERNELS = (3, 7, 13, 17, 31)
RULE_SIDES = (8, 16, 32, 64, 128)
RULE_KERNELS = (3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31)
# The depthwise convolutions of RepLKNet-31B at 224 pixels: how many of which channels, side, K.
REPLKNET_LAYERS = ((2, 128, 56, 31), (2, 256, 28, 29), (18, 512, 14, 27), (2, 1024, 7, 13))
GOAL = 0.95
OURS = [f"{mode}_{layout}" for layout in FORMATS for mode in ("auto", "static")]


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Our operator against PyTorch's two memory formats and torch.fft.

    Ours is measured in both formats, by its table ("static") and tuned ("auto"). PyTorch's paths
    get their input in the format that they work in. `torch.fft` transforms maps padded to a size
    with small factors, and keeps the kernel's spectrum in inference, as ours does. Every candidate
    has the shortest of its rounds, since microseconds are compared: what else the machine does only
    adds. With one thread the seconds are the processor's.

    Args:
        quick: three kernels on two sizes of map.

    Returns:
        One row per pass ("inference", batch 1; "training", forward and backward, batch 8), side of
        the map and kernel: milliseconds of NCHW; the times by which the others are faster
        (`channels_last`, `torch_fft`, and ours); ours over the best path that PyTorch offers on
        maps of the same format, the changes of format there and back included
        (`auto_nchw_over_best`, `auto_channels_last_over_best`); the table on channels_last maps
        over PyTorch's channels_last (`static_over_channels_last`); the widest spread and the null
        comparison.
    """
    if quick:
        cells = [("inference", 1, side, kernel) for side in (16, 32) for kernel in (7, 13, 31)]
    else:
        cells = [("inference", 1, side, kernel) for side in SIDES for kernel in KERNELS]
        cells += [("training", 8, s, kernel) for s in TRAINING_SIDES for kernel in TRAINING_KERNELS]
    return pd.DataFrame(
        {"pass": purpose, "batch": batch, "side": side, "kernel": kernel}
        | measured(CHANNELS, side, kernel, batch, purpose == "training", threads)
        for purpose, batch, side, kernel in tqdm(cells, desc="Depthwise", disable=not progress)
    )


def layers(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """`run` for the large kernels of RepLKNet-31B, one image of 224 pixels.

    Args:
        quick: the two small ones.
    """
    cells = REPLKNET_LAYERS[2 if quick else 0 :]
    return pd.DataFrame(
        {"count": count, "channels": channels, "side": side, "kernel": kernel}
        | measured(channels, side, kernel, 1, False, threads)
        for count, channels, side, kernel in tqdm(cells, desc="RepLKNet", disable=not progress)
    )


def reached(cells: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """How often the tuned operator takes at most 1 / .95 of the time of PyTorch's best path.

    Args:
        cells, layers: what `run` and `layers` returned.

    Returns:
        One row per pass and memory format, and for RepLKNet-31B's layers: the number of cells, the
        share that reaches the goal, and best over ours in the geometric mean, at the worst cell,
        and in sum over all cells (for RepLKNet, over all its layers).
    """
    parts = {str(name): part for name, part in cells.groupby("pass")}
    parts["RepLKNet-31B"] = layers
    rows = []
    for name, part in parts.items():
        for layout in FORMATS:
            ratio, count = part[f"auto_{layout}_over_best"], part.get("count", 1)
            ours = part.nchw_ms / part[f"auto_{layout}"] * count
            rows.append(
                {"pass": name, "maps": layout, "cells": len(part)}
                | {"share_reached": (ratio >= GOAL).mean()}
                | {"geometric_mean": gmean(ratio), "worst": ratio.min()}
                | {"sum_best_over_auto": (ours * ratio).sum() / ours.sum()}
            )
    return pd.DataFrame(rows)


def measured(
    channels: int, side: int, kernel: int, batch: int, training: bool, threads: int
) -> dict[str, float]:
    """One cell of the tables."""
    shape = channels, side, kernel, batch
    candidates = {
        f"{mode}_{layout}": timed(partial(tuned, mode), *shape, layout, training)
        for layout in FORMATS
        for mode in ("auto", "static")
    }
    candidates |= {layout: timed(stock, *shape, layout, training) for layout in FORMATS}
    candidates["torch_fft"] = timed(library_fft(), *shape, "nchw", training)
    for layout, other in (("nchw", "channels_last"), ("channels_last", "nchw")):
        there_and_back = partial(converted, stock, FORMATS[other], FORMATS[layout])
        candidates[f"{other} of {layout}"] = timed(there_and_back, *shape, layout, training)
    there_and_back = partial(converted, library_fft(), torch.contiguous_format, torch.channels_last)
    candidates["torch_fft of channels_last"] = timed(
        there_and_back, *shape, "channels_last", training
    )
    if not training and min(kernel, 2 * side - 1) > CLIFF:
        del candidates["nchw of channels_last"]  # some twenty times slower than the best
    comparison = compare(
        candidates,
        rounds=5 if training else 20,
        min_seconds=0.002,
        threads=threads,
        clock=time.process_time if threads == 1 else time.perf_counter,
    )
    least = {name: timing.least for name, timing in comparison.timings.items()}
    row = {"nchw_ms": least["nchw"] * 1e3}
    for name in ("channels_last", "torch_fft", *OURS):
        row[name] = least["nchw"] / least[name]
    for layout in FORMATS:
        own = (layout, "torch_fft") if layout == "nchw" else (layout,)
        best = min(least[name] for name in least if name in own or name.endswith(f" of {layout}"))
        row[f"auto_{layout}_over_best"] = best / least[f"auto_{layout}"]
    row["static_over_channels_last"] = least["channels_last"] / least["static_channels_last"]
    row["spread"] = max(timing.spread for timing in comparison.timings.values())
    return row | {"null": comparison.again.least / least["auto_nchw"]}


def networks(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Whole networks, with our operator and with PyTorch's convolution in its place.

    RepLKNet-31B as it runs (re-parameterized, one image of 224 pixels), and one training step of a
    tiny RepLKNet with K = 31 in every stage (batch 8, 128 pixels).

    Args:
        quick: leave RepLKNet-31B out.

    Returns:
        One row per network: milliseconds of PyTorch's convolution in NCHW, and the times by which
        the others are faster.
    """
    cases = {"tiny K = 31, training step": tiny_step}
    if not quick:
        cases["RepLKNet-31B fused, inference"] = replknet_inference
    rows = []
    for name, build in cases.items():
        candidates = {
            f"{operator}_{memory_format}": build(memory_format, operator == "stock")
            for operator in ("stock", "auto")
            for memory_format in FORMATS
        }
        label = name if progress else None
        comparison = compare(candidates, rounds=5, threads=threads, progress=label)
        rows.append(
            {"network": name, "stock_nchw_ms": comparison["stock_nchw"].median * 1e3}
            | {
                candidate: comparison.speed_up(candidate, "stock_nchw")
                for candidate in list(candidates)[1:]
            }
            | {
                "spread": max(timing.spread for timing in comparison.timings.values()),
                "null": comparison.null,
            }
        )
    return pd.DataFrame(rows)


def calibrate() -> list[dict[str, object]]:
    """Measure which path of the depthwise convolution is fastest where, and write its rule."""
    cells = [
        (purpose, memory_format, batch, side)
        for purpose in ("inference", "training", "kernel gradient")
        for memory_format in FORMATS
        for batch in (1, 8)
        for side in RULE_SIDES
        if side * batch < 1000
    ]
    rows = [calibrated(*cell) for cell in tqdm(cells, desc="Calibrating")]
    with RULE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def calibrated(purpose: str, memory_format: str, batch: int, side: int) -> dict[str, object]:
    """One row of the rule: the fastest path for each kernel, on maps of 96 channels, one thread.

    Of two paths within 10 % of one another the one that the smaller kernel has is kept, so that
    noise draws no pattern. On channels_last maps of less than 48 pixels spectra are left out: on a
    quiet machine they win a little there, and where other programs fill the caches they lose.
    """
    row: dict[str, object] = {"purpose": purpose, "memory_format": memory_format}
    row |= {"batch": batch, "side": side}
    last = ""
    for kernel in RULE_KERNELS:
        if purpose == "kernel gradient":
            methods = ["stock", "fft"]
        else:
            methods = [method for method in METHODS if method != "nchw" or kernel <= CLIFF]
            if memory_format == "channels_last" and side < 48:
                methods.remove("fft")
        with torch_threads(1):
            seconds = measure(
                {way: path(purpose, way, kernel, side, batch, memory_format) for way in methods}
            )
        best = min(seconds, key=lambda way: seconds[way])
        if last not in seconds or seconds[last] > 1.1 * seconds[best]:
            last = best
        row[str(kernel)] = last
    return row


def tensors(
    channels: int, side: int, kernel: int, batch: int, memory_format: str
) -> tuple[Tensor, Tensor, Tensor]:
    """A map, a kernel and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, side, side)
    x, gradient = (
        torch.randn(shape, generator=generator).contiguous(memory_format=FORMATS[memory_format])
        for _ in range(2)
    )
    return x, torch.randn(channels, 1, kernel, kernel, generator=generator), gradient


def timed(
    operator: Operator,
    channels: int,
    side: int,
    kernel: int,
    batch: int,
    memory_format: str,
    training: bool,
) -> Callable[[], object]:
    """A call of the operator, with its backward pass in training."""
    x, weight, gradient = tensors(channels, side, kernel, batch, memory_format)
    if not training:
        return torch.inference_mode()(lambda: operator(x, weight))
    x.requires_grad_()
    weight.requires_grad_()
    return lambda: torch.autograd.grad(operator(x, weight), (x, weight), gradient)


def tuned(mode: str, x: Tensor, weight: Tensor) -> Tensor:
    with tuning(mode):
        return depthwise_conv2d(x, weight)


def stock(x: Tensor, weight: Tensor) -> Tensor:
    with tuning("off"):  # as `tuned` has it: the microsecond that it takes is not the operator's
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


def converted(
    operator: Operator, inside: torch.memory_format, outside: torch.memory_format, *tensors: Tensor
) -> Tensor:
    """The operator in another memory format than its input and output have."""
    x, weight = tensors
    output = operator(x.contiguous(memory_format=inside), weight)
    return output.contiguous(memory_format=outside)


def library_fft() -> Operator:
    """The convolution through torch.fft, at the next period without a factor above 5."""
    kept: dict[str, Tensor] = {}

    def spectrum(weight: Tensor, margin: int, period: int) -> Tensor:
        reach = weight.shape[-1] // 2 - margin
        taps = weight[:, 0, reach:, reach:][..., : 2 * margin + 1, : 2 * margin + 1]
        padded = F.pad(taps, [0, period - taps.shape[-1]] * 2)
        return torch.fft.rfft2(padded.roll((-margin, -margin), (1, 2))).conj()

    def operator(x: Tensor, weight: Tensor) -> Tensor:
        side = x.shape[-1]
        margin = min(weight.shape[-1] // 2, side - 1)
        period = next(n for n in range(side + margin, 1000) if 30**10 % n == 0)
        if weight.requires_grad:
            response = spectrum(weight, margin, period)
        else:
            if "spectrum" not in kept:
                kept["spectrum"] = spectrum(weight, margin, period)
            response = kept["spectrum"]
        product = torch.fft.rfft2(x, s=(period, period)) * response
        return torch.fft.irfft2(product, s=(period, period))[..., :side, :side]

    return operator


def path(
    purpose: str, method: str, kernel: int, side: int, batch: int, memory_format: str
) -> Callable[[], object]:
    """One of the operator's paths, for one purpose of the rule."""
    x, weight, gradient = tensors(CHANNELS, side, kernel, batch, memory_format)
    if taps := depthwise.parts(
        (side, side), (kernel, kernel), "", is_inference=purpose == "inference"
    ).get(method):
        weight = depthwise.within_reach(weight, taps)
    if purpose == "kernel gradient":
        return torch.inference_mode()(lambda: gradient_of_kernel(x, gradient, weight, method))
    if purpose == "training":
        return torch.inference_mode()(lambda: depthwise.convolve(x, weight, None, method))
    return torch.inference_mode()(lambda: depthwise_conv2d(x, weight, method=method))


def with_stock_convolutions(model: Network) -> Network:
    """A copy of the network with PyTorch's convolution in place of our operator."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, DepthwiseConv2d):
            model.set_submodule(name, stock_convolution(module))
    return model


def stock_convolution(operator: DepthwiseConv2d) -> nn.Conv2d:
    """PyTorch's convolution with our operator's parameters."""
    kernel, dilation = operator.kernel_size[0], operator.dilation[0]
    conv = nn.Conv2d(
        operator.in_channels,
        operator.out_channels,
        kernel,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=operator.groups,
        bias=operator.bias is not None,
        device="meta",  # takes no memory and draws no random weights
    )
    conv.weight, conv.bias = operator.weight, operator.bias
    return conv.train(operator.training)


def replknet_inference(memory_format: str, is_stock: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    model = reparameterize(build_model("replknet_31b"), for_inference=not is_stock)
    if is_stock:
        model = with_stock_convolutions(model)
    model = model.to(memory_format=FORMATS[memory_format])
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=FORMATS[memory_format])

    @torch.inference_mode()
    def infer() -> Tensor:
        with tuning("auto"):
            return model(image)

    return infer


def tiny_step(memory_format: str, is_stock: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    model: nn.Module = build_model(
        "replknet_31b",
        num_classes=10,
        kernels=(31, 31, 31, 31),
        channels=(32, 64, 128, 256),
        depths=(1, 1, 1, 1),
        drop_path_rate=0.0,
    )
    if is_stock:
        model = with_stock_convolutions(model)
    model = model.train().to(memory_format=FORMATS[memory_format])
    images = torch.randn(8, 3, 128, 128).contiguous(memory_format=FORMATS[memory_format])
    labels = torch.arange(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m paperrepro.benchmark.depthwise", description=calibrate.__doc__
    )
    parser.add_argument(
        "--calibrate", action="store_true", required=True, help=f"measure, and rewrite {RULE.name}"
    )
    parser.parse_args()
    print(f"wrote {len(calibrate())} rows to {RULE}")


if __name__ == "__main__":
    main()
