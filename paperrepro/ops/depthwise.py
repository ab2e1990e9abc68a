"""A depthwise convolution that stays fast when its kernel is large.

RepLKNet's Table 1 says that PyTorch's depthwise convolution wastes large kernels, and measures a
private GPU kernel that does not. On a CPU the waste is as great (`paperrepro benchmark depthwise`)
and needs no compiled code to repair, only the choice of a better path:

- `"nchw"`: PyTorch's convolution of a contiguous map. Up to K = 13 oneDNN has a depthwise kernel
  for it; above, it falls back on one that is some twenty times slower.
- `"channels_last"`: PyTorch's convolution of a map whose channels lie together.
- `"fft"`: a product of spectra (`paperrepro.ops.spectral`), for which the kernel's spectrum is kept
  from call to call as long as the kernel does not change.

Which one is taken `paperrepro.ops.tuning` sets: the one that a table names, or the one that is
measured to be the fastest. A kernel larger than the map is cut to the taps that reach it, wherever
the cut costs less than it saves.

Backward, the gradient of the input is the same convolution with the flipped kernel, and takes the
same paths; that of the kernel, for which PyTorch has only slow ones, is a product of spectra.
"""

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight
from torch.utils.weak import WeakTensorKeyDictionary

from .choice import chosen, fastest, measures, tuning
from .observers import is_observed, is_recorded
from .spectral import Spectral

METHODS = ("nchw", "channels_last", "fft")
GPU_METHODS = ("nchw", "channels_last", "triton")
# Where there is something to choose.
DTYPES = {
    "cpu": (torch.float32, torch.float64),
    "cuda": (torch.float32, torch.float16, torch.bfloat16),
}
# The largest kernel for which PyTorch's path in NCHW is ever the fastest.
CLIFF = 13
RULE = Path(__file__).with_name("depthwise_rule.csv")


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, method: str = "auto"
) -> Tensor:
    """`conv2d(x, weight, bias, padding="same", groups=C)` on the fastest path (RepLKNet, Table 1).

    The paths are for a CPU, in float32 and float64. On a GPU there is one in Triton, which `"auto"`
    takes where `tuning("auto")` measured it to be the fastest. Elsewhere, under autocast, and where
    `torch.export`, `torch.compile`, `torch.jit.trace`, a `torch.func` transform, forward-mode
    differentiation or a counter of operations looks on, `"auto"` is PyTorch's convolution itself.
    The result can be differentiated twice, the second time through PyTorch's convolution.

    Args:
        x: maps, shape `(N, C, H, W)`, in either memory format; the output has the same.
        weight: kernels, shape `(C, 1, K, K)`, K odd. The two sides may differ.
        bias: shape `(C,)`.
        method: one of `METHODS`; "triton", on a GPU that Triton compiles for; or `"auto"`, which
            chooses one as `tuning` says: by the table `depthwise_rule.csv`, or the fastest at the
            first call of its shape. The results of any two differ by less than 1e-5 of the largest
            value, in float32. By "fft" a pixel that is not finite makes its whole channel of that
            image NaN, and not only what the kernel reaches from it.

    Returns:
        Shape `(N, C, H, W)`.

    Raises:
        ValueError: for an unknown method, an even kernel or shapes that do not match.
    """
    if method == "auto" and (is_recorded() or is_observed()):
        return F.conv2d(x, weight, bias, padding=margins(weight.shape), groups=weight.shape[0])
    training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    bias_shape = None if bias is None else bias.shape
    route = choose(
        *(x.shape, x.stride(), weight.shape, bias_shape, x.dtype, x.device),
        *(training, method, tuning.mode),
    )
    forward = route.forward
    if route.is_open and measures():
        forward = measured(x, weight, bias, route)
    taps = route.cuts.get(forward)
    kernel = weight if taps is None else within_reach(weight, taps)
    if forward == "stock":
        padding = route.padding if taps is None else margins(taps)
        return F.conv2d(x, kernel, bias, 1, padding, 1, route.channels)
    if not training:
        return convolve(x, kernel, bias, forward, owner=weight)
    output = _Depthwise.apply(x, kernel, route)
    return output if bias is None else output + bias[:, None, None]


# torch.fx records a call of it as one node.
torch.fx.wrap("depthwise_conv2d")


class DepthwiseConv2d(nn.Conv2d):
    """A drop-in for `nn.Conv2d(channels, channels, K, padding="same", groups=channels)`.

    Same parameters and state dict; the forward pass is `depthwise_conv2d`. A dilated kernel takes
    PyTorch's path.

    Args:
        channels: C.
        kernel_size: K, odd.
        method: as in `depthwise_conv2d`.

    Shape:
        `(N, C, H, W)` to `(N, C, H, W)`.
    """

    foldable = True

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        bias: bool = True,
        method: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_method(method)
        check_kernel((kernel_size, kernel_size))
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation != (1, 1):
            return super().forward(x)
        return depthwise_conv2d(x, self.weight, self.bias, method=self.method)


@dataclass(frozen=True)
class Route:
    """How a convolution of certain shapes is computed.

    Attributes:
        channels: C.
        padding: on each side of the map, for the whole kernel.
        cuts: for each method that gets a part of the kernel only, and for "stock", the part's two
            sides.
        forward: one of `METHODS`, for the output and the input's gradient; or "stock", PyTorch's
            convolution with its own backward pass.
        kernel_gradient: "fft", or "stock".
        is_open: whether a measurement may choose.
        own: of `METHODS` the one that is the same as "stock", if any.
        key: what is computed, for `fastest`, but for where.
    """

    channels: int
    padding: tuple[int, int]
    cuts: Mapping[str, tuple[int, int]]
    forward: str = "stock"
    kernel_gradient: str = "stock"
    is_open: bool = False
    own: str = ""
    key: str = ""


class _Depthwise(torch.autograd.Function):
    """The convolution without bias, with a backward pass of the same speed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, route: Route) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.route = route
        return convolve(x, weight, None, route.forward)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs = ctx.saved_tensors
        x, weight = inputs
        if torch.is_grad_enabled():  # this gradient will be differentiated in turn
            output = F.conv2d(x, weight, padding=margins(weight.shape), groups=weight.shape[0])
            needed = [tensor for tensor in inputs if tensor.requires_grad]
            gradients = iter(torch.autograd.grad(output, needed, gradient, create_graph=True))
            x_gradient, weight_gradient = (
                next(gradients) if tensor.requires_grad else None for tensor in inputs
            )
            return x_gradient, weight_gradient, None
        gradient = gradient.contiguous(memory_format=memory_format(x))
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = convolve(gradient, weight.flip(2, 3), None, ctx.route.forward)
        if ctx.needs_input_grad[1]:
            weight_gradient = gradient_of_kernel(x, gradient, weight, ctx.route.kernel_gradient)
        return x_gradient, weight_gradient, None


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, method: str, *, owner: Tensor | None = None
) -> Tensor:
    """The convolution by one method, without a graph, in the memory format of `x`.

    Args:
        owner: the tensor to whose life the kernel's spectrum is tied; None keeps no spectrum.
    """
    own = memory_format(x)
    if method == "fft":
        x = x.contiguous(memory_format=own)
        plan = plan_of(x.shape[2:], weight.shape[2:], own is torch.channels_last, x.dtype)
        spectrum = plan.kernel_spectrum(weight) if owner is None else kept(plan, weight, owner)
        output = plan.convolve(x, spectrum)
        if bias is not None:
            output.add_(bias[:, None, None])
    elif method == "triton":
        from . import gpu

        output = gpu.convolve(x, weight)
        if bias is not None:
            output.add_(bias[:, None, None])
    else:
        last = method == "channels_last"
        if method == "nchw":
            # A C x 1 x K x K kernel can lie in both formats, and PyTorch would follow its strides.
            weight = weight.contiguous().flatten(1).view(weight.shape)
        x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        output = F.conv2d(x, weight, bias, padding=margins(weight.shape), groups=weight.shape[0])
    return output.contiguous(memory_format=own)


def gradient_of_kernel(x: Tensor, gradient: Tensor, weight: Tensor, method: str) -> Tensor:
    """The gradient of the kernel by "fft", "triton" or "stock", without a graph."""
    if method == "triton":
        from . import gpu

        return gpu.weight_gradient(x, gradient, weight)
    if method == "stock":
        return conv2d_weight(
            x, weight.shape, gradient, padding=margins(weight.shape), groups=len(weight)
        )
    own = memory_format(x)
    plan = plan_of(x.shape[2:], weight.shape[2:], own is torch.channels_last, x.dtype)
    return plan.weight_gradient(x.contiguous(memory_format=own), gradient)


_spectra = WeakTensorKeyDictionary()


def kept(plan: Spectral, weight: Tensor, owner: Tensor) -> Tensor:
    """The kernel's spectrum, from the last call if shape and kernel are still the same.

    The kernel is compared value by value: a version counter misses what is written through `.data`.
    """
    entry = _spectra.get(owner)
    if entry is None or entry[0] is not plan or not equal(entry[1], weight):
        entry = _spectra[owner] = (plan, weight.detach().clone(), plan.kernel_spectrum(weight))
    return entry[2]


def equal(a: Tensor, b: Tensor) -> bool:
    """`torch.equal`; on a CPU NumPy's, which compares some five times as fast."""
    if a.is_cpu and b.is_cpu and a.dtype in DTYPES["cpu"]:
        return np.array_equal(a.detach().numpy(), b.detach().numpy())
    return torch.equal(a, b)


plan_of = lru_cache(maxsize=256)(Spectral)


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels last where that is the only reading of the strides."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def margins(kernel_shape: Sequence[int]) -> tuple[int, int]:
    return kernel_shape[-2] // 2, kernel_shape[-1] // 2


def parts(
    size: Sequence[int], kernel: Sequence[int], own: str, *, is_inference: bool
) -> dict[str, tuple[int, int]]:
    """For each method the taps that it gets, where that is not the whole kernel.

    What lies beyond `2 side - 1` taps meets only padding. PyTorch in channels_last takes longer for
    13 taps than for 15 (on both processors of `data/results/depthwise*.csv`), and saves what a copy
    of the part costs at each call only where half of the taps go (on AMD's).
    """
    reach = narrowed(kernel, [max(1, 2 * side - 1) for side in size])
    if reach == tuple(kernel):
        return {}
    found = dict.fromkeys(("stock", *METHODS, "triton"), reach)
    if is_inference:
        wide = narrowed(kernel, [CLIFF + 2 if taps == CLIFF else taps for taps in reach])
        for method in ("channels_last", "stock") if own == "channels_last" else ("channels_last",):
            if 2 * math.prod(wide) <= math.prod(kernel):
                found[method] = wide
            else:
                found.pop(method, None)
    return found


def narrowed(kernel: Sequence[int], limits: Sequence[int]) -> tuple[int, int]:
    rows, columns = map(min, kernel, limits)
    return rows, columns


def within_reach(weight: Tensor, taps: tuple[int, int]) -> Tensor:
    """So many taps of each side, in the middle of the kernel."""
    for dim, count in zip((2, 3), taps, strict=True):
        weight = weight.narrow(dim, (weight.shape[dim] - count) // 2, count)
    return weight.contiguous()


@lru_cache(maxsize=4096)
def choose(
    x_shape: torch.Size,
    stride: tuple[int, ...],
    weight_shape: torch.Size,
    bias_shape: torch.Size | None,
    dtype: torch.dtype,
    device: torch.device,
    training: bool,
    method: str,
    mode: str,
) -> Route:
    """The route of a convolution, without a measurement; an error where there is none."""
    check(x_shape, weight_shape, bias_shape, method)
    batch, channels, height, width = x_shape
    last = stride == (height * width * channels, 1, width * channels, channels)
    map_format = "channels_last" if last and channels > 1 else "nchw"
    contiguous = last or stride == (channels * height * width, height * width, width, 1)
    own = map_format if contiguous else ""
    kernel = weight_shape[2:]
    cuts = parts((height, width), kernel, own, is_inference=device.type == "cpu" and not training)
    route = partial(Route, channels, margins(kernel), cuts)
    if method != "auto":
        if method == "triton":
            check_triton(device.type)
        if 0 in x_shape:
            return route()
        return route(method, method if method in ("fft", "triton") else "stock")
    is_open = dtype in DTYPES.get(device.type, ()) and 0 not in x_shape
    if device.type == "cuda":
        taps = cuts.get("triton", kernel)
        is_open = is_open and min(taps) >= CLIFF and find_spec("triton") is not None
    if not is_open or mode == "off":
        return route()
    forward, gradient = "stock", "stock"
    if device.type == "cpu":
        side = math.sqrt(height * width)
        mean = math.sqrt(math.prod(cuts.get("channels_last", kernel)))
        forward = lookup("training" if training else "inference", map_format, batch, side, mean)
        gradient = lookup("kernel gradient", map_format, batch, side, mean)
        if forward == own and (gradient == "stock" or not training):
            forward = "stock"
    shape, sides = ("x".join(map(str, each)) for each in (x_shape, kernel))
    precision = str(dtype).removeprefix("torch.")
    key = f"depthwise-{shape}-kernel-{sides}-{own or 'strided'}-{precision}-threads-"
    return route(forward, gradient, not training, own, key)


def measured(x: Tensor, weight: Tensor, bias: Tensor | None, route: Route) -> str:
    """The fastest method, or "stock", measured on these maps or known from before."""
    place = f"gpu-{gpu_name(x.device)}" if x.is_cuda else str(torch.get_num_threads())
    method = chosen.get(route.key + place)
    if method is None:
        first = route.own if route.forward == "stock" else route.forward
        taps = math.prod(route.cuts.get("nchw", weight.shape[2:]))
        ways = {
            method: partial(finished, x, weight, bias, method, route.cuts.get(method))
            for method in sorted(GPU_METHODS if x.is_cuda else METHODS, key=lambda m: m != first)
            if x.is_cuda or method != "nchw" or taps <= CLIFF**2
        }
        method = fastest(route.key + place, ways)
        if method != "fft":
            _spectra.pop(weight, None)
    return "stock" if method == route.own else method


def finished(
    x: Tensor, weight: Tensor, bias: Tensor | None, method: str, taps: tuple[int, int] | None
) -> None:
    """One call, until it is done."""
    kernel = weight if taps is None else within_reach(weight, taps)
    convolve(x, kernel, bias, method, owner=weight)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


@cache
def gpu_name(device: torch.device) -> str:
    return re.sub(r"\W+", "-", torch.cuda.get_device_name(device))


def lookup(purpose: str, map_format: str, batch: int, side: float, kernel: float) -> str:
    """The entry of the rule whose batch, side and kernel are nearest, in this order, by ratio.

    The purposes: "inference", with the kernel's spectrum at hand; "training", without it; and
    "kernel gradient".
    """
    cell = purpose, map_format
    rows = [row for row in rule() if (row["purpose"], row["memory_format"]) == cell]
    row = min(rows, key=lambda row: (ratio(batch, row["batch"]), ratio(side, row["side"])))
    return row[min((column for column in row if column.isdigit()), key=lambda k: ratio(kernel, k))]


def ratio(a: float, b: str) -> float:
    return abs(math.log(a / float(b)))


@cache
def rule() -> list[dict[str, str]]:
    with RULE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check(
    x_shape: torch.Size, weight_shape: torch.Size, bias_shape: torch.Size | None, method: str
) -> None:
    check_method(method)
    if len(weight_shape) != 4 or weight_shape[1] != 1:
        raise ValueError(
            f"the weight has shape {tuple(weight_shape)}; a depthwise kernel has (C, 1, K, K), one "
            "group per channel"
        )
    check_kernel(weight_shape[2:])
    channels = weight_shape[0]
    if len(x_shape) != 4 or x_shape[1] != channels:
        raise ValueError(
            f"the maps have shape {tuple(x_shape)}, and the kernels are {channels}: "
            f"(N, {channels}, H, W) is needed"
        )
    if bias_shape is not None and bias_shape != weight_shape[:1]:
        raise ValueError(f"the bias has shape {tuple(bias_shape)}; it needs ({channels},)")


def check_method(method: str) -> None:
    if method not in ("auto", *METHODS, "triton"):
        raise ValueError(f"unknown method {method!r}; use one of auto, {', '.join(METHODS)}")


def check_triton(device: str) -> None:
    if find_spec("triton") is None:
        raise ValueError("method='triton' needs the package triton, which is not installed here")
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"method='triton' runs on a GPU; these maps are on {device}")


def check_kernel(kernel_size: tuple[int, ...]) -> None:
    if any(side % 2 == 0 for side in kernel_size):
        raise ValueError(
            f"the kernel has {' x '.join(map(str, kernel_size))} taps; only an odd side has a "
            "centre and keeps the map's size"
        )
