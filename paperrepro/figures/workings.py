"""What the figures of reach, training and trained weights show: their numbers, and in words."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analysis.kernels import aggregate, large_kernels
from ..analysis.receptive_field import receptive_field
from ..dense.scenes import CUE, RADIUS
from ..files import data_folder
from ..networks import normalising
from ..reparam import reparameterize
from ..shapes import SHAPES, Shapes
from ..training.schedules import DROP, POWER
from ..weights import load_model

STRIDE, WIDTH, MIDDLE = 4, 240, 98
"""Of the cue's picture: pixels to a pixel of the map, pixels across, the shape's middle."""


def cue() -> dict[str, Any]:
    """What one pixel sees behind a stem of stride 4 and behind each of two kernels."""
    fields = {}
    for k in (3, 13, 31):
        stem = nn.Conv2d(3, 1, STRIDE, stride=STRIDE)
        blocks = [nn.Conv2d(1, 1, k, padding=k // 2) for _ in range(2)]
        seen = []
        for depth in range(3):
            rows = receptive_field(nn.Sequential(stem, *blocks[:depth]), size=WIDTH).rows
            first = rows.start + MIDDLE // STRIDE * rows.jump
            seen.append([first, first + rows.size])
        fields[str(k)] = seen
    sizes = {"stride": STRIDE, "width": WIDTH, "middle": MIDDLE, "radius": RADIUS, "cue": CUE}
    return sizes | {"fields": fields}


def say_cue() -> str:
    first, end = cue()["fields"]["13"][2]
    return (
        f"Two kernels of K = 13 at stride {STRIDE}: the pixel in the shape's middle sees from "
        f"{MIDDLE - first} pixels to its left to {end - MIDDLE} pixels to its right. The cue, 32 "
        "pixels away, lies inside."
    )


def schedule() -> dict[str, Any]:
    return {
        "power": POWER,
        "drop": DROP,
        "decays": [0.9, 0.99, 0.999, 0.9995, 0.9999],
        "steps": {"22": "22: digits by 64", "5004": "5,004: ImageNet by 256"},
    }


def say_schedule() -> str:
    steps = math.log(0.5) / math.log(0.99)
    return (
        "Half a cosine over 24 epochs, 2 of them warm-up: the rate is at half its height after 13 "
        f"epochs. An average with a decay of 0.99 has half of itself from the last {steps:.0f} "
        f"steps: {steps / 22:.2f} epochs of 22 steps."
    )


@cache
def trained(family: str) -> nn.Module:
    """A stored network of data/weights, re-parameterized."""
    path = data_folder("weights") / f"shapes-{family}.safetensors"
    return reparameterize(load_model(path)).eval().requires_grad_(False)


@cache
def rounding() -> dict[str, Any]:
    """The first depthwise layer of a trained MobileOne."""
    layers = (layer for layer in trained("mobileone").modules() if isinstance(layer, nn.Conv2d))
    layer = next(layer for layer in layers if layer.groups > 1)
    weights = layer.weight.double().flatten(1).numpy().round(4).tolist()
    return {"weights": weights, "bits": [8, 6, 4, 3]}


def say_rounding() -> str:
    weights = np.array(rounding()["weights"])
    scale = abs(weights).max() / 7
    lost = (weights / scale).round() * scale - weights
    shares = np.linalg.norm(lost, axis=1) / np.linalg.norm(weights, axis=1)
    return (
        f"4 bits, one scale for all {len(weights)} channels of MobileOne's first depthwise layer: "
        f"the rounding changes the layer by "
        f"{100 * np.linalg.norm(lost) / np.linalg.norm(weights):.1f} % and channel "
        f"{shares.argmax() + 1} by {100 * shares.max():.1f} %, the most of all."
    )


SPANS, POINTS, BLOCKS, PICTURE = 16, 4, 16, 5
"""Of the path: its parts, the gradients in each, blocks across, the picture's number."""


@cache
def path() -> dict[str, Any]:
    """Integrated gradients of a trained RapidNet, part by part of the way from grey."""
    network = trained("rapidnet")
    picture, classes, _ = Shapes(24, size=64, seed=2).draw([PICTURE])
    target = int(classes[0])
    image = normalising((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(picture / 255)[0]
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    alphas = (np.arange(SPANS)[:, None] + (points + 1) / 2) / SPANS
    on_path = torch.tensor(alphas.reshape(-1, 1, 1, 1)).float() * image
    on_path.requires_grad_()
    (gradients,) = torch.autograd.grad(network(on_path)[:, target].sum(), on_path)
    each = (gradients * image).sum(1).reshape(SPANS, POINTS, 64, 64)
    share = torch.tensor(weights / 2 / SPANS).float().reshape(1, POINTS, 1, 1)
    parts = blocks((each * share).sum(1)) * (64 // BLOCKS) ** 2
    maps = torch.cat([torch.zeros(1, BLOCKS, BLOCKS), parts.cumsum(0)])
    with torch.no_grad():
        steps = torch.arange(SPANS + 1).reshape(-1, 1, 1, 1) / SPANS
        logits = network(steps * image)[:, target]
    colors = (blocks(picture[0].float()) / 17).round().int()
    return {
        "name": SHAPES[target],
        "logits": logits.double().numpy().round(2).tolist(),
        "sums": maps.sum((1, 2)).double().numpy().round(2).tolist(),
        "maps": (100 * maps).round().int().flatten(1).tolist(),
        "colors": ["".join(f"{value:x}" for value in rgb) for rgb in colors.flatten(1).T.tolist()],
        "grey": [124, 116, 104],
    }


def blocks(maps: Tensor) -> Tensor:
    """The means of `BLOCKS` x `BLOCKS` parts of maps `(N, 64, 64)`."""
    return nn.functional.avg_pool2d(maps, 64 // BLOCKS)


def say_path() -> str:
    found = path()
    rise = found["logits"][-1] - found["logits"][0]
    return (
        f"The whole way from a grey picture to a {found['name']}: the attributions of all pixels "
        f"add up to {found['sums'][-1]:.2f}; the logit has risen by {rise:.2f}."
    )


LEVELS, SIDES = 12, (16, 8, 4, 2)
"""Shades of a kernel's picture; the sides of the four stages' maps at 64 pixels."""


@cache
def crop() -> dict[str, Any]:
    """The first large kernel of each stage of a trained RepLKNet."""
    path = data_folder("weights") / "shapes-replknet.safetensors"
    kernels = large_kernels(load_model(path))
    stages = []
    for number, side in enumerate(SIDES):
        stage: dict[str, Any] = {"side": side}
        for form, weight in kernels[f"stages.{number}.blocks.0.large_kernel"].items():
            channels, _, k, _ = weight.shape
            energy = weight.double().square().sum((0, 1))
            kept = [
                float(energy[edge : k - edge, edge : k - edge].sum() / energy.sum())
                for edge in range(k // 2, -1, -1)
            ]
            shades = (aggregate(weight).sqrt() * (LEVELS - 1)).round().int().flatten().tolist()
            digits = "".join("0123456789abcdef"[shade] for shade in shades)
            stage |= {"kernel": k, "channels": channels}
            stage[form] = {"map": digits, "shares": [round(share, 4) for share in kept]}
        stages.append(stage)
    return {"stages": stages, "levels": LEVELS}


def say_crop() -> str:
    stage = crop()["stages"][2]
    k, kept, side = stage["kernel"], stage["merged"]["shares"][5], stage["side"]
    met = 2 * side - 1
    return (
        f"Stage 3, K = {k}: the central 11 × 11 keeps {100 * kept:.1f} % of the energy, where an "
        f"even kernel would keep {100 * 121 / k**2:.1f} %. Only the central {met} × {met} ever met "
        f"its map of {side} × {side}."
    )
