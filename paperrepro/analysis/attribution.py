"""Attribution: which pixels speak for a class, by four methods, and how far a map can be trusted.

Captum makes the maps: saliency (Simonyan et al., 2014), integrated gradients (Sundararajan et al.,
ICML 2017), Grad-CAM (Selvaraju et al., ICCV 2017) and occlusion (Zeiler and Fergus, ECCV 2014).
Deletion and insertion (Petsiuk et al., RISE, BMVC 2018) score any map by the network alone: replace
the pixels that the map ranks first, or show them first, and follow the class's probability.

    >>> result = attribute(model, image, "grad-cam")
    >>> result.map.shape, result.target
    (torch.Size([224, 224]), 281)
    >>> area(perturb(model, image, result.map, result.target, "deletion"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from .stages import find_stage, held_still

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("saliency", "integrated-gradients", "grad-cam", "occlusion")
KINDS = ("deletion", "insertion")
BASELINES = ("blur", "grey")
BATCH = 16


@dataclass(frozen=True)
class Attribution:
    """A map of what speaks for a class.

    Attributes:
        map: `(H, W)`, on the CPU. Of saliency the largest absolute gradient of a pixel's channels;
            of integrated gradients and occlusion what the pixel adds to the logit, signed; of
            Grad-CAM the positive evidence.
        target: the class.
        delta: of integrated gradients the convergence delta: the map's sum less the difference of
            the logits of image and baseline, 0 but for the numerical integration.
    """

    map: Tensor
    target: int
    delta: float | None = None


def attribute(
    model: nn.Module,
    image: Tensor,
    method: str,
    *,
    target: int | None = None,
    stage: int | str = -1,
    steps: int = 50,
    patch: int | None = None,
) -> Attribution:
    """Where in the image a network sees a class. The network is left as it was.

    Args:
        model: images `(N, 3, H, W)` to logits `(N, C)`.
        image: `(3, H, W)`, normalised, on the network's device. What replaces pixels is 0, the
            mean color that the normalisation subtracts.
        method: one of `METHODS`.
        target: the class to explain; the network's answer when None.
        stage: Grad-CAM's layer, see `find_stage`.
        steps: at which integrated gradients evaluates the gradient, by Gauss-Legendre quadrature.
        patch: the side of occlusion's square in pixels, which moves by half of it; an eighth of
            the image's shorter side when None.

    Raises:
        ValueError: unknown method, class or stage; an image of another shape; a stage without
            maps; or gradients that are not finite, with their number.
    """
    check_choice("method", [method], METHODS)
    inputs = check_image(image)[None].detach().clone().requires_grad_()
    delta = None
    with held_still(model):
        target = choose_target(model, inputs, target)
        attr = captum()
        if method == "saliency":
            values = attr.Saliency(model).attribute(inputs, target=target).amax(1)
        elif method == "integrated-gradients":
            values, delta = attr.IntegratedGradients(model).attribute(
                inputs,
                target=target,
                n_steps=steps,
                internal_batch_size=BATCH,
                return_convergence_delta=True,
            )
            values, delta = values.sum(1), delta.item()
        elif method == "grad-cam":
            values = grad_cam(model, inputs, target, stage)
        else:
            values = occlusion(model, inputs, target, patch)
    bad = (~values.isfinite()).sum().item()
    if bad:
        raise ValueError(
            f"{method} of class {target} is not finite at {bad} of {values.numel()} pixels: the "
            "network's gradients or logits overflow; look at its weights, or use float32"
        )
    return Attribution(values[0].detach().cpu(), target, delta)


def compare(
    model: nn.Module,
    image: Tensor,
    methods: Sequence[str] = METHODS,
    *,
    target: int | None = None,
    stage: int | str = -1,
    baseline: str = "blur",
    progress: bool = True,
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Maps by several methods and one of random numbers, each with its scores.

    Args:
        model, image, target, stage: as `attribute` takes them.
        baseline: as `perturb` takes it.

    Returns:
        The maps `(H, W)` by method, and one row for each: the `class`, `delta` of integrated
        gradients, and the areas of `deletion` and `insertion`.
    """
    check_choice("method", methods, METHODS)
    check_choice("baseline", [baseline], BASELINES)
    maps: dict[str, Tensor] = {}
    rows: list[dict] = []
    for name in tqdm(methods, "Attribution", leave=False, disable=None if progress else True):
        result = attribute(model, image, name, target=target, stage=stage)
        target = result.target
        maps[name] = result.map
        delta = None if result.delta is None else round(result.delta, 4)
        rows.append({"method": name, "class": target, "delta": delta})
    maps["random"] = torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(0))
    rows.append({"method": "random", "class": target, "delta": None})
    for row, values in zip(rows, maps.values(), strict=True):
        for kind in KINDS:
            curve = perturb(model, image, values, row["class"], kind, baseline=baseline)
            row[kind] = round(area(curve), 4)
    return maps, pd.DataFrame(rows, dtype=object)


def grad_cam(model: nn.Module, inputs: Tensor, target: int, stage: int | str) -> Tensor:
    """ReLU of a stage's maps, weighted by their mean gradients; as large as the image."""
    attr = captum()
    try:
        small = attr.LayerGradCam(model, find_stage(model, stage)).attribute(
            inputs, target=target, relu_attributions=True
        )
    except AssertionError as error:
        raise ValueError(f"stage {stage!r} is not used when the network runs: {error}") from error
    if small.dim() != 4:
        raise ValueError(
            f"stage {stage!r} gives {small.dim()} dimensions; Grad-CAM needs maps (N, C, H, W), so "
            "choose a stage before the pooling"
        )
    return attr.LayerAttribution.interpolate(small, inputs.shape[2:], "bilinear")[:, 0]


def occlusion(model: nn.Module, inputs: Tensor, target: int, patch: int | None) -> Tensor:
    """How much the logit falls when a square is replaced, averaged over the squares of a pixel."""
    side = min(inputs.shape[2:])
    patch = patch or max(1, side // 8)
    if not 1 <= patch <= side:
        raise ValueError(f"a patch of {patch} pixels does not fit into an image of {side}")
    step = max(1, patch // 2)
    occluding = captum().Occlusion(model)
    values = occluding.attribute(
        inputs,
        target=target,
        sliding_window_shapes=(3, patch, patch),
        strides=(3, step, step),
        perturbations_per_eval=BATCH,
    )
    return values[:, 0]


def captum(part: str = "attr") -> ModuleType:
    """One of Captum's modules.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(f"captum.{part}")
    except ImportError as error:
        raise ValueError('captum is not installed: pip install "paperrepro[book]"') from error


def check_choice(name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(allowed)}")


def check_image(image: Tensor) -> Tensor:
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"expected one image (3, H, W), got {tuple(image.shape)}")
    bad = (~image.isfinite()).sum().item()
    if bad:
        raise ValueError(f"{bad} of the image's {image.numel()} values are not finite")
    return image


@torch.no_grad()
def choose_target(model: nn.Module, inputs: Tensor, target: int | None) -> int:
    logits = model(inputs)
    if target is None:
        return int(logits.argmax(1))
    if not 0 <= target < logits.shape[1]:
        raise ValueError(f"there is no class {target}: the network has {logits.shape[1]}")
    return target


@torch.no_grad()
def perturb(
    model: nn.Module,
    image: Tensor,
    attribution_map: Tensor,
    target: int,
    kind: str,
    *,
    baseline: str = "blur",
    steps: int = 32,
    seed: int = 0,
) -> Tensor:
    """The class's probability while pixels are replaced, or shown, in the order of a map.

    Args:
        image: `(3, H, W)`, normalised, on the network's device.
        attribution_map: `(H, W)`; the largest values come first, equal ones by chance.
        kind: "deletion" goes from the image to the baseline, "insertion" from the baseline to the
            image.
        baseline: "blur", a Gaussian blur of a twelfth of the shorter side; or "grey", 0.
        steps: in how many equal parts the pixels change.

    Returns:
        `(steps + 1,)` probabilities, from no pixel changed to all of them.

    Raises:
        ValueError: unknown kind or baseline, a map of another size, one that is not finite, or no
            step.
    """
    check_choice("kind", [kind], KINDS)
    check_choice("baseline", [baseline], BASELINES)
    size = check_image(image).shape[1:]
    if attribution_map.shape != size or not attribution_map.isfinite().all():
        raise ValueError(
            f"a map of shape {tuple(attribution_map.shape)} for an image of {tuple(size)}: it "
            "needs one finite value per pixel"
        )
    pixels = attribution_map.numel()
    if not 1 <= steps <= pixels:
        raise ValueError(f"{steps} steps: use 1 to {pixels}, the number of pixels")
    first, last = image, base_image(image, baseline)
    if kind == "insertion":
        first, last = last, first
    changed_at = order(attribution_map, seed).to(image.device)
    shares = torch.arange(steps + 1, device=image.device) * pixels // steps
    probabilities = []
    with held_still(model):
        for share in shares.split(BATCH):
            changed = changed_at < share[:, None, None]
            images = torch.where(changed[:, None], last, first)
            probabilities.append(model(images).float().softmax(1)[:, target].cpu())
    return torch.cat(probabilities)


def base_image(image: Tensor, baseline: str) -> Tensor:
    """What replaces the pixels of an image `(3, H, W)`: "blur" takes the image itself, blurred by
    a twelfth of its shorter side; "grey" takes 0, the mean color."""
    if baseline == "grey":
        return torch.zeros_like(image)
    sigma = min(image.shape[1:]) / 12
    radius = min(round(2 * sigma), min(image.shape[1:]) - 1)
    return gaussian_blur(image, 2 * radius + 1, sigma)


def order(attribution_map: Tensor, seed: int) -> Tensor:
    """Each pixel's place `(H, W)` when the map's largest value comes first."""
    values = attribution_map.detach().cpu().flatten()
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    ranked = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    places = torch.empty_like(ranked)
    places[ranked] = torch.arange(len(ranked))
    return places.reshape(attribution_map.shape)


def area(probabilities: Tensor) -> float:
    """The area under a curve of `perturb`, from 0 to 1: low for deletion and high for insertion
    where the map is right."""
    return float(torch.trapezoid(probabilities.double()) / (len(probabilities) - 1))


def localisation(attribution_map: Tensor, mask: Tensor) -> float:
    """How well a map finds a place that is known: the area under the ROC curve of its pixels.

    The probability that a pixel inside the mask has a larger value than one outside it, equal
    values counting half: 1 where all of the mask comes first, 0.5 by chance. Only the order of the
    pixels counts, so that maps of different units can be compared.

    Args:
        attribution_map: `(H, W)`.
        mask: bool `(H, W)`, the truth.

    Raises:
        ValueError: another shape, or a mask of no pixel or of all.
    """
    if mask.shape != attribution_map.shape or not 0 < mask.sum() < mask.numel():
        raise ValueError(
            f"a mask of {int(mask.sum())} pixels in {tuple(mask.shape)} for a map of "
            f"{tuple(attribution_map.shape)}: it must be as large, and hold some pixels, not all"
        )
    outside = attribution_map[~mask].sort().values
    inside = attribution_map[mask].contiguous()
    below = torch.searchsorted(outside, inside)
    not_above = torch.searchsorted(outside, inside, right=True)
    return float((below + not_above).double().mean() / 2 / len(outside))


def draw(picture: Image.Image | np.ndarray, maps: Mapping[str, Tensor]) -> "Figure":
    """A picture and beside it its maps by the title to show; needs matplotlib.

    Args:
        picture: a PIL image, or an array `(H, W, 3)`, of the maps' size.
        maps: `(H, W)` each. The colors reach to the 99th percentile of the absolute values; where
            there are negative ones, white is 0.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 1 + len(maps), figsize=(2.3 * (1 + len(maps)), 2.7), squeeze=False
    )
    axes = axes[0]
    axes[0].imshow(picture)
    axes[0].set_title("image", fontsize="small")
    for ax, (title, values) in zip(axes[1:], maps.items(), strict=True):
        most = values.abs().flatten().quantile(0.99).item()
        signed = bool((values < 0).any())
        ax.imshow(
            values.numpy(),
            cmap="RdBu_r" if signed else "viridis",
            vmin=-most if signed else 0,
            vmax=most or 1,
        )
        ax.set_title(title, fontsize="small")
    for ax in axes:
        ax.axis("off")
    return figure
