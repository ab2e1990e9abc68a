"""RepLKNet's Table 1 on a CPU: how fast a depthwise convolution with a large kernel can be.

`run` measures the operator against PyTorch's, over kernels and maps, forward and with its backward
pass; `networks` measures what that makes of whole networks. `calibrate` measures which of the
operator's paths is fastest where, and writes the table that `depthwise_conv2d` looks up:

    python -m paperrepro.benchmark.depthwise --calibrate
"""

import argparse
import copy
import csv
from collections.abc import Callable
from typing import TypeVar

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..models import build_model
from ..ops import DepthwiseConv2d, depthwise
from ..ops.choice import measure
from ..ops.depthwise import CLIFF, METHODS, RULE, depthwise_conv2d, gradient_of_kernel
from ..reparam import reparameterize
from .latency import FORMATS, compare, torch_threads

Network = TypeVar("Network", bound=nn.Module)

CHANNELS = 96
SIDES = (16, 32, 64)
KERNELS = (3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31)


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Our operator against PyTorch's two memory formats and torch.fft.

    Each candidate gets its input in the format it works in and returns it in the same, as it flows
    through a network; ours is measured in both. `torch.fft` transforms maps padded to a size with
    small factors, and keeps the kernel's spectrum in inference, as ours does.

    Args:
        quick: three kernels on two sizes of map.

    Returns:
        One row per pass ("inference", batch 1; "training", forward and backward, batch 8), side of
        the map and kernel: milliseconds of NCHW, the times by which the others are faster
        (`channels_last`, `torch_fft`, `auto_nchw`, `auto_channels_last`), the better of ours over
        the best of the rest (`auto_over_best`), the widest spread and the null comparison.
    """
    kernels, sides = ((7, 13, 31), (16, 32)) if quick else (KERNELS, SIDES)
    cells = [
        (purpose, batch, side, kernel)
        for purpose, batch in (("inference", 1), ("training", 8))
        for side in sides
        for kernel in kernels
    ]
    rows = []
    for purpose, batch, side, kernel in tqdm(cells, desc="Depthwise", disable=not progress):
        training = purpose == "training"
        candidates = {
            "auto_nchw": ours(kernel, side, batch, "nchw", training),
            "auto_channels_last": ours(kernel, side, batch, "channels_last", training),
            "channels_last": stock(kernel, side, batch, "channels_last", training),
            "torch_fft": library_fft(kernel, side, batch, training),
            "nchw": stock(kernel, side, batch, "nchw", training),
        }
        comparison = compare(candidates, rounds=3 if training else 9, threads=threads)
        best = min(comparison[name].median for name in ("nchw", "channels_last", "torch_fft"))
        auto = min(comparison[name].median for name in ("auto_nchw", "auto_channels_last"))
        row = {"pass": purpose, "batch": batch, "side": side, "kernel": kernel}
        row |= {"nchw_ms": comparison["nchw"].median * 1e3}
        for name in ("channels_last", "torch_fft", "auto_nchw", "auto_channels_last"):
            row[name] = comparison.speed_up(name, "nchw")
        row |= {
            "auto_over_best": best / auto,
            "spread": max(timing.spread for timing in comparison.timings.values()),
            "null": comparison.null,
        }
        rows.append(row)
    return pd.DataFrame(rows)


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
        for side in (8, *SIDES, 128)
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
    noise draws no pattern.
    """
    row: dict[str, object] = {"purpose": purpose, "memory_format": memory_format}
    row |= {"batch": batch, "side": side}
    last = ""
    for kernel in KERNELS:
        if purpose == "kernel gradient":
            methods = ["stock", "fft"]
        else:
            methods = [method for method in METHODS if method != "nchw" or kernel <= CLIFF]
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
    kernel: int, side: int, batch: int, memory_format: str
) -> tuple[Tensor, Tensor, Tensor]:
    """A map, a kernel and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, CHANNELS, side, side)
    x, gradient = (
        torch.randn(shape, generator=generator).contiguous(memory_format=FORMATS[memory_format])
        for _ in range(2)
    )
    return x, torch.randn(CHANNELS, 1, kernel, kernel, generator=generator), gradient


def timed(
    operator: Callable[[Tensor, Tensor], Tensor],
    kernel: int,
    side: int,
    batch: int,
    memory_format: str,
    training: bool,
) -> Callable[[], object]:
    """A call of the operator, with its backward pass in training."""
    x, weight, gradient = tensors(kernel, side, batch, memory_format)
    if not training:
        return torch.inference_mode()(lambda: operator(x, weight))
    x.requires_grad_()
    weight.requires_grad_()
    return lambda: torch.autograd.grad(operator(x, weight), (x, weight), gradient)


def stock(
    kernel: int, side: int, batch: int, memory_format: str, training: bool
) -> Callable[[], object]:
    def operator(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=kernel // 2, groups=CHANNELS)

    return timed(operator, kernel, side, batch, memory_format, training)


def ours(
    kernel: int, side: int, batch: int, memory_format: str, training: bool
) -> Callable[[], object]:
    return timed(depthwise_conv2d, kernel, side, batch, memory_format, training)


def library_fft(kernel: int, side: int, batch: int, training: bool) -> Callable[[], object]:
    """The convolution through torch.fft, at the next period without a factor above 5."""
    margin = min(kernel // 2, side - 1)
    period = next(n for n in range(side + margin, 1000) if 30**10 % n == 0)

    def spectrum(weight: Tensor) -> Tensor:
        reach = kernel // 2 - margin
        taps = weight[:, 0, reach : kernel - reach, reach : kernel - reach]
        padded = F.pad(taps, [0, period - taps.shape[-1]] * 2)
        return torch.fft.rfft2(padded.roll((-margin, -margin), (1, 2))).conj()

    kept: dict[str, Tensor] = {}

    def operator(x: Tensor, weight: Tensor) -> Tensor:
        if weight.requires_grad:
            response = spectrum(weight)
        else:
            if "spectrum" not in kept:
                kept["spectrum"] = spectrum(weight)
            response = kept["spectrum"]
        product = torch.fft.rfft2(x, s=(period, period)) * response
        return torch.fft.irfft2(product, s=(period, period))[..., :side, :side]

    return timed(operator, kernel, side, batch, "nchw", training)


def path(
    purpose: str, method: str, kernel: int, side: int, batch: int, memory_format: str
) -> Callable[[], object]:
    """One of the operator's paths, for one purpose of the rule."""
    x, weight, gradient = tensors(kernel, side, batch, memory_format)
    weight = depthwise.within_reach(weight, x)
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
    model = reparameterize(build_model("replknet_31b"))
    if is_stock:
        model = with_stock_convolutions(model)
    model = model.to(memory_format=FORMATS[memory_format])
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=FORMATS[memory_format])
    return torch.inference_mode()(lambda: model(image))


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
