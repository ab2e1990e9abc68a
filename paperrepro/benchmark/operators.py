"""FasterNet's Tables 1 and 9 on a CPU: how fast the convolutions of efficient networks really are.

`run` measures Table 1, ten layers of one operator in a row; `forms` measures Table 9, ways to
compute a partial convolution (PConv). Beside them stand the paper's equations: multiply-adds,
memory access and the T-shaped convolution that PConv and a pointwise convolution make together.
As in the paper (its footnote 1), FLOPs are multiply-adds.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..models import build_model
from ..models.fasternet import PConv
from ..reparam import reparameterize
from .latency import FORMATS, compare

SIZES = ((96, 56), (192, 28), (384, 14), (768, 7))
LAYERS = 10


def conv_macs(h: int, w: int, c: int, k: int = 3, groups: int = 1) -> int:
    """Multiply-adds of a convolution from `c` channels to `c` on a map of `h` x `w` (Section 3.1).

    Depthwise with `groups=c`. With the convolved channels `c_p` as `c`, those of a PConv (Eq. 4).
    """
    return h * w * k**2 * c**2 // groups


def conv_memory(h: int, w: int, c: int, k: int = 3, groups: int = 1) -> int:
    """Numbers that a convolution reads and writes: its input, output and kernel.

    Regular: Eq. 3. Depthwise, with `groups=c`: Eq. 2. With `c_p` as `c`, those of a PConv: Eq. 5.
    """
    return h * w * 2 * c + k**2 * c**2 // groups


def t_shaped_macs(h: int, w: int, c: int, c_p: int, k: int = 3) -> int:
    """Multiply-adds of a T-shaped convolution (Eq. 6): k x k on `c_p` of the `c` input channels,
    1 x 1 on the others."""
    return h * w * (k**2 * c_p * c + c * (c - c_p))


def pconv_pointwise_macs(h: int, w: int, c: int, c_p: int, k: int = 3) -> int:
    """Multiply-adds of a PConv and the pointwise convolution after it (Eq. 7).

    The paper prints c * c_p for the pointwise convolution. It sees all `c` channels, the untouched
    ones too, and so has c**2; PConv and PWConv are still the cheaper pair.
    """
    return h * w * (k**2 * c_p**2 + c**2)


@torch.no_grad()
def t_shaped(pconv: PConv, pointwise: nn.Conv2d) -> nn.Conv2d:
    """One dense convolution that equals a PConv followed by a pointwise convolution (Fig. 5).

    The kernels of the convolved channels are mixed by the pointwise weights; the untouched channels
    keep theirs in the centre, with zeros around.
    """
    c_p, conv = pconv.convolved, pconv.conv
    mixed = pointwise.weight[:, :, 0, 0]
    center = conv.kernel_size[0] // 2
    dense = nn.Conv2d(
        pointwise.in_channels,
        pointwise.out_channels,
        conv.kernel_size[0],
        padding=center,
        bias=pointwise.bias is not None,
        dtype=mixed.dtype,
    )
    dense.weight.zero_()
    dense.weight[:, :c_p] = torch.einsum("om,mihw->oihw", mixed[:, :c_p], conv.weight)
    dense.weight[:, c_p:, center, center] = mixed[:, c_p:]
    if pointwise.bias is not None and dense.bias is not None:
        dense.bias.copy_(pointwise.bias)
    return dense


class InPlacePConv(PConv):
    """PConv as the paper's Listing 1 slices: it overwrites channels of its own input.

    Without the copy it is the fastest form, and wrong wherever the input is still needed: in
    FasterNet's block the shortcut refers to it. The released code copies first.
    """

    def forward(self, x: Tensor) -> Tensor:
        convolved = x.narrow(1, 0, self.convolved)
        convolved.copy_(self.conv(convolved))
        return x


def grouped(groups: Callable[[int], int]) -> Callable[[int], nn.Module]:
    return lambda c: nn.Conv2d(c, c, 3, padding=1, groups=groups(c), bias=False)


OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    "PConv": InPlacePConv,
    "Conv": grouped(lambda c: 1),
    "GConv": grouped(lambda c: 16),
    "DWConv": grouped(lambda c: c),
}
FORMS: dict[str, Callable[[int], nn.Module]] = {
    "split_cat": PConv,
    "slicing": lambda c: PConv(c, mode="slicing"),
    "in_place": InPlacePConv,
}


def stack(
    operator: Callable[[int], nn.Module],
    channels: int,
    side: int,
    batch: int = 1,
    format: str = "nchw",
) -> Callable[[], object]:
    """A call of ten layers of an operator, one after the other.

    Their kernels pass the values on unchanged, for the form that works in place gets its own output
    again and again: with any other kernel the values would vanish or overflow, and be timed so.
    """
    layers = nn.Sequential(*[operator(channels) for _ in range(LAYERS)])
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight, layer.groups)
    layers = layers.eval().to(memory_format=FORMATS[format])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, side, side, generator=generator)
    x = x.contiguous(memory_format=FORMATS[format])
    return torch.inference_mode()(lambda: layers(x))


def size_of(operator: str, channels: int, side: int) -> tuple[int, int]:
    """Multiply-adds and memory access of one layer, by the paper's equations."""
    c = channels // 4 if operator == "PConv" else channels
    groups = {"GConv": 16, "DWConv": channels}.get(operator, 1)
    return conv_macs(side, side, c, groups=groups), conv_memory(side, side, c, groups=groups)


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Table 1: ten layers of Conv, GConv (16 groups), DWConv and PConv (r = 1/4), all 3 x 3.

    Args:
        quick: batch 1 in NCHW only.

    Returns:
        One row per batch, size of the map, memory format and operator: the multiply-adds and the
        memory access of the ten layers for one image in millions, milliseconds for the batch, their
        spread, billions of multiply-adds per second (the paper's FLOPS), and the null comparison of
        the interleaved run, which holds the operators of one size.
    """
    formats = ("nchw",) if quick else tuple(FORMATS)
    cells = [(batch, *size) for batch in ((1,) if quick else (1, 8, 32)) for size in SIZES]
    rows = []
    for batch, channels, side in tqdm(cells, desc="Operators", disable=not progress):
        candidates = {
            (memory_format, name): stack(operator, channels, side, batch, memory_format)
            for memory_format in formats
            for name, operator in OPERATORS.items()
        }
        comparison = compare(candidates, rounds=9 if batch == 1 else 5, threads=threads)
        for (memory_format, name), timing in comparison.timings.items():
            macs, memory = size_of(name, channels, side)
            rows.append(
                {
                    "batch": batch,
                    "channels": channels,
                    "side": side,
                    "memory_format": memory_format,
                    "operator": name,
                    "mmacs": LAYERS * macs / 1e6,
                    "maccesses": LAYERS * memory / 1e6,
                    "ms": timing.median * 1e3,
                    "spread": timing.spread,
                    "gmacs_per_s": LAYERS * macs * batch / timing.median / 1e9,
                    "null": comparison.null,
                }
            )
    return pd.DataFrame(rows)


def roof(*, threads: int = 1) -> pd.DataFrame:
    """The limits of this processor, each measured by several programs: the roofline's lines.

    No one program shows a limit. A matrix product and a convolution come from different libraries,
    and the faster one differs by processor. So the best of all is the limit.

    Returns:
        One row per program: the `limit` that it tries ("arithmetic", "cache", "memory"), the
        `program`, and `g_per_s`, in its best round: billions of multiply-adds per second for
        arithmetic, of float32 numbers read or written for the others.
    """
    side = 1024
    matrix = torch.randn(side, side)
    calls: dict[tuple[str, str], tuple[int, Callable[[], object]]] = {
        ("arithmetic", f"product of {side}x{side} matrices"): (
            side**3,
            lambda: matrix @ matrix,
        )
    }
    for kernel, (c, s) in ((1, (512, 28)), (3, SIZES[0]), (3, SIZES[1])):
        for name, memory_format in FORMATS.items():
            layer = nn.Conv2d(c, c, kernel, padding=kernel // 2, bias=False)
            layer = layer.requires_grad_(False).to(memory_format=memory_format)
            x = torch.randn(1, c, s, s).contiguous(memory_format=memory_format)
            program = f"convolution {kernel}x{kernel}, {c} channels, {s}x{s}, {name}"
            calls["arithmetic", program] = conv_macs(s, s, c, kernel), partial(layer, x)
    for limit, count in (("cache", 2**14), ("cache", 2**17), ("memory", 2**25)):
        source, target = torch.ones(count), torch.empty(count)
        calls[limit, f"copy of {count:,} numbers"] = 2 * count, partial(target.copy_, source)
        scaled = partial(torch.mul, source, 2.0, out=target)
        calls[limit, f"doubling of {count:,} numbers"] = 2 * count, scaled
    timed = compare({key: call for key, (_, call) in calls.items()}, rounds=5, threads=threads)
    rows = [
        {"limit": limit, "program": program}
        | {"g_per_s": calls[limit, program][0] / min(timing.seconds) / 1e9}
        for (limit, program), timing in timed.timings.items()
    ]
    return pd.DataFrame(rows)


def forms(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Table 9: the forms of PConv, ten layers of it and in FasterNet (fused, 224 pixels, batch 1).

    "split_cat" joins the convolved and the untouched channels; "slicing" copies the input and
    overwrites a part of the copy, as the released code does; "in_place" overwrites the input
    itself, as Listing 1 does. In FasterNet it would compute something else, and is not timed.

    Args:
        quick: two sizes of ten layers, NCHW only.

    Returns:
        One row per network, batch, memory format and form: milliseconds, their spread, how many
        times faster than "split_cat" in the same memory format, and the null comparison.
    """
    rows = []
    for name, batch, candidates in tqdm(
        cells_of_forms(quick), "Forms of PConv", disable=not progress
    ):
        comparison = compare(candidates, rounds=9 if batch == 1 else 5, threads=threads)
        for (memory_format, form), timing in comparison.timings.items():
            rows.append(
                {
                    "network": name,
                    "batch": batch,
                    "memory_format": memory_format,
                    "form": form,
                    "ms": timing.median * 1e3,
                    "spread": timing.spread,
                    "over_split_cat": comparison.speed_up(
                        (memory_format, form), (memory_format, "split_cat")
                    ),
                    "null": comparison.null,
                }
            )
    return pd.DataFrame(rows)


Candidates = dict[tuple[str, str], Callable[[], object]]


def cells_of_forms(quick: bool) -> Iterator[tuple[str, int, Candidates]]:
    """The networks of Table 9, each with its batch and its candidates by memory format and form."""
    formats = ("nchw",) if quick else tuple(FORMATS)
    for batch in (1,) if quick else (1, 32):
        for channels, side in (SIZES[0], SIZES[-1]) if quick else SIZES:
            yield (
                f"PConv x10, {channels}x{side}x{side}",
                batch,
                {
                    (memory_format, form): stack(operator, channels, side, batch, memory_format)
                    for memory_format in formats
                    for form, operator in FORMS.items()
                },
            )
    for variant in () if quick else ("t0", "t1", "t2", "s"):
        name = f"fasternet_{variant}"
        yield (
            name,
            1,
            {
                (memory_format, form): fasternet(name, form, memory_format)
                for memory_format in formats
                for form in ("split_cat", "slicing")
            },
        )


def fasternet(variant: str, form: str, memory_format: str) -> Callable[[], object]:
    """A call of a fused FasterNet with one image."""
    torch.manual_seed(0)
    model = reparameterize(build_model(variant, mode=form)).to(memory_format=FORMATS[memory_format])
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=FORMATS[memory_format])
    return torch.inference_mode()(lambda: model(image))
