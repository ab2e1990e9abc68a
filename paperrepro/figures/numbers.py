"""What the figures of the five papers' ideas show: their numbers, and the same in words."""

from functools import cache
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import nn

from ..claims import load_claims
from ..claims.reproduce import network
from ..complexity import stored_complexity
from ..models import families, list_models, release_of
from ..models.describe import modules_of
from ..models.layers import Chain
from ..models.mobileone import OverParameterized
from ..models.rapidnet import multi_level_dilated_conv
from ..models.replknet import kernels
from ..reparam import reparameterize
from ..results import load_result

Branch: TypeAlias = tuple[nn.Conv2d | None, nn.BatchNorm2d]


@cache
def one_channel() -> tuple[OverParameterized, dict[str, Branch]]:
    """MobileOne's three branches (Fig. 3) of one channel, with numbers that add up as printed."""
    conv, scale = nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    norms = [nn.BatchNorm2d(1) for _ in range(3)]
    block = OverParameterized(
        conv=Chain(conv=conv, norm=norms[0]), scale=Chain(conv=scale, norm=norms[1]), skip=norms[2]
    )
    block = block.double().eval().requires_grad_(False)
    kernel = [[0.2, -0.4, 0.6], [0.8, 1.2, -0.8], [-0.2, 0.4, 1.0]]
    conv.weight.copy_(torch.tensor(kernel).reshape(1, 1, 3, 3))
    scale.weight.fill_(0.6)
    for norm, factor, shift in zip(norms, (0.5, 0.5, 0.3), (0.1, -0.1, 0.2), strict=True):
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)  # so that the scale is the weight
        norm.weight.fill_(factor)
        norm.bias.fill_(shift)
    return block, {"conv": (conv, norms[0]), "scale": (scale, norms[1]), "skip": (None, norms[2])}


def reparameterization() -> dict[str, Any]:
    block, parts = one_channel()
    fused: nn.Module = reparameterize(block)
    fused.requires_grad_(False)
    assert isinstance(fused, nn.Conv2d) and fused.bias is not None
    titles = {"conv": "3 × 3", "scale": "1 × 1", "skip": "identity"}
    kinds = {"conv": "depthwise", "scale": "pointwise", "skip": "act"}
    branches = []
    for key, (conv, norm) in parts.items():
        kernel = torch.ones(1, 1) if conv is None else conv.weight[0, 0]
        scale = float(norm.weight)
        padded = nn.functional.pad(kernel * scale, [(3 - kernel.shape[0]) // 2] * 4)
        branches.append(
            {
                "key": key,
                "name": titles[key],
                "kind": kinds[key],
                "scale": scale,
                "bias": float(norm.bias),
                "kernel": rounded(kernel),
                "folded": rounded(kernel * scale),
                "padded": rounded(padded),
            }
        )
    bias = round(float(fused.bias), 6)
    return {"branches": branches, "fused": rounded(fused.weight[0, 0]), "bias": bias}


def rounded(kernel: torch.Tensor) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in kernel]


def say_reparameterization() -> str:
    numbers = reparameterization()
    parts = [f"{branch['padded'][1][1]:.1f}" for branch in numbers["branches"]]
    total = numbers["fused"][1][1]
    return (
        "Step 4 of 4: at row 2, column 2: "
        f"{' + '.join(parts)} = {total:.1f}. "
        "A 3 × 3, a 1 × 1 and an identity branch, each with its BatchNorm folded and padded to "
        "3 × 3, add up to one 3 × 3 kernel."
    )


def pconv() -> dict[str, Any]:
    return {"sides": [7, 14, 28, 56], "channels": [64, 128, 256, 512]}


def say_pconv() -> str:
    return (
        "A partial convolution of 32 of 128 channels on a map of 28 × 28: 96 channels pass. It "
        "needs a sixteenth of the multiply-adds of a full 3 × 3 convolution, and reads and "
        "writes 17 % of the numbers."
    )


def kernel() -> dict[str, Any]:
    model = network("replknet_31b")
    sides = [int(kernel) for kernel in kernels(model).split(",")]
    maps = [224 // feature.reduction for feature in model.feature_info]
    return {
        "stages": [
            {"kernel": k, "side": side, "stride": 224 // side}
            for k, side in zip(sides, maps, strict=True)
        ]
    }


def say_kernel() -> str:
    stage = kernel()["stages"][2]
    k, side, stride = stage["kernel"], stage["side"], stage["stride"]
    return (
        f"A kernel of K = {k} over the {side} × {side} map of RepLKNet-31B's stage 3: from the "
        f"middle it covers the whole map, {side * side} of {k * k} taps; the others lie on the "
        f"zeros around. It reaches {(k - 1) * stride + 1} pixels across the image."
    )


def dilation() -> dict[str, Any]:
    mldc = multi_level_dilated_conv(1)
    both = [conv.dilation[0] for conv in modules_of(mldc, nn.Conv2d)]
    names = {1: "3 × 3", 2: "dilation 2", 3: "dilation 3"}
    mixers = {f"d{d}": {"name": name, "dilations": [d]} for d, name in names.items()}
    mixers["mldc"] = {"name": f"MLDC: {' and '.join(map(str, both))}", "dilations": both}
    return {"mixers": mixers}


def say_dilation() -> str:
    return (
        "One layer of RapidNet's MLDC, a 3 × 3 kernel of dilation 2 and one of dilation 3 added "
        "up: the pixel in the middle sees 17 of the 49 pixels of its 7 × 7 window; 32 are holes."
    )


AXES = {
    "macs": ("multiply-adds", "billion, re-parameterized"),
    "params": ("parameters", "million, re-parameterized"),
    "cpu": ("CPU latency, measured here", "ms, one thread"),
    "phone": ("phone latency, the papers'", "ms on an iPhone"),
}
TICKS = (0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500)
TITLES = {
    "mobileone": "MobileOne",
    "fasternet": "FasterNet",
    "replknet": "RepLKNet",
    "mobilevigv2": "MobileViGv2",
    "rapidnet": "RapidNet",
}
ELSEWHERE = {"replknet_31l", "replknet_xl"}
"""Larger images, and more data than ImageNet-1K."""


@cache
def networks_table() -> pd.DataFrame:
    """Accuracy and cost of the five families' networks: counts and timings ours, accuracy and phone
    latency the papers'."""
    measured = load_result("models").table
    one_image = (measured["memory_format"] == "nchw") & (measured["batch"] == 1)
    timings = measured[one_image & (measured["form"] == "fused")].set_index("model")["ms"]
    claims = load_claims()
    phones = claims[claims["quantity"].eq("latency_phone") & ~claims["item"].eq("Table 3")]
    rows = []
    for name in (name for family in TITLES for name in list_models(family)):
        family = name.partition("_")[0]
        release = release_of(name)
        if name in ELSEWHERE or release is None:
            continue
        size = stored_complexity(name)
        phone = phones[phones["model"].eq(name) & phones["paper"].eq(family)]["paper_value"]
        rows.append(
            {
                "name": name,
                "family": family,
                "top1": release.top1,
                "macs": size.macs_fused / 1e9,
                "params": size.params_fused / 1e6,
                "cpu": timings.get(name),
                "phone": float(phone.iloc[0]) if len(phone) else None,
            }
        )
    return pd.DataFrame(rows)


def speed() -> dict[str, Any]:
    table = networks_table()
    axes = {}
    for key, (label, unit) in AXES.items():
        values = table[key].dropna()
        ranks = table.loc[values.index, ["macs", key]].rank()
        correlation = float(ranks["macs"].corr(ranks[key])) if key != "macs" else 1.0
        low, high = float(values.min()) / 1.15, float(values.max()) * 1.15
        ticks = [tick for tick in TICKS if low < tick < high]
        axes[key] = {
            "label": label,
            "unit": unit,
            "correlation": round(correlation, 3),
            "from": low,
            "to": high,
            "ticks": ticks[:: 2 if len(ticks) > 6 else 1],
        }
    names = list(TITLES)
    rows = [
        {
            key: None if pd.isna(value) else round(value, 3) if isinstance(value, float) else value
            for key, value in row.items()
        }
        | {"family": names.index(str(row["family"]))}
        for row in table.to_dict("records")
    ]
    known = families()
    shown = [{"name": TITLES[name], "color": known[name].color} for name in names]
    return {"networks": rows, "axes": axes, "families": shown}


def say_speed() -> str:
    table = networks_table()
    return (
        f"{len(table)} networks by their multiply-adds, from {table['macs'].min():.2f} to "
        f"{table['macs'].max():.1f} billion, and their papers' ImageNet accuracy, from "
        f"{table['top1'].min()} to {table['top1'].max()} %."
    )
