"""The effective receptive field (ERF): what each pixel contributes to the centre of a stage's map.

RepLKNet's Appendix B (Eqs. 1 and 2) as its released code computes it, which is not quite as the
paper has it. M is the map of a stage, I the image:

    P = max(d sum_c max(M[c, h'/2, w'/2], 0) / d I, 0)     the paper: without the inner max
    S = sum of P over the channels, mean over images       the paper: sum over images
    A = log10(1 + S) / max(log10(1 + S))

Table 10's high-contribution area ratio is the share of the image that the smallest centred square
covers which holds more than a share t of the sum of A. The logarithm makes A, and so the ratios,
depend on how large the gradients are: a network whose map is multiplied by 1000 has other ratios.

    >>> from torchvision.models import resnet18
    >>> scores = contribution_map(resnet18(), torch.rand(2, 3, 128, 128), stage="layer4")
    >>> area_ratios(scores)[0.5]
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from ..models import Backbone
from ..reparam import reparameterize
from .images import load_images
from .input_gradients import for_input_only
from .receptive_field import receptive_field
from .stages import held_still, stage_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES = ("released", "paper")
THRESHOLDS = (0.2, 0.3, 0.5, 0.99)


def contribution_map(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    *,
    stage: int | str = -1,
    rule: str = "released",
) -> Tensor:
    """What each pixel contributes to the centre of a stage's map, before the logarithm.

    Images whose gradients are not finite are left out, and a warning counts and numbers them.

    Args:
        model: any network, on any device, with maps `(N, C, H', W')`. It is left as it was.
        images: `(N, 3, H, W)`, which are taken one by one; or batches of such.
        stage: as in `paperrepro.analysis.stages.find_stage`; the last when left out.
        rule: "released" or "paper", see above.

    Returns:
        S, `(H, W)`, float32, on the CPU.

    Raises:
        ValueError: an unknown rule or stage, no image, images of several sizes or too small for a
            kernel, or none with finite gradients.
    """
    return combine(list(image_maps(model, images, stage=stage, rule=rule)), rule=rule)[0]


def image_maps(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    *,
    stage: int | str = -1,
    rule: str = "released",
) -> Iterator[Tensor]:
    """The contributions in one image after the other, `(H, W)`; see `contribution_map`."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
    reference = next(model.parameters(), torch.empty(0))
    for batch in images.split(1) if isinstance(images, Tensor) else images:
        batch = batch.to(reference, memory_format=torch.channels_last).requires_grad_()
        with ExitStack() as stack:
            stack.enter_context(held_still(model))
            stack.enter_context(for_input_only(model))
            stack.enter_context(torch.enable_grad())
            features = stage_map(model, batch, stage)
            centre = features[:, :, features.shape[2] // 2, features.shape[3] // 2]
            score = (centre.relu() if rule == "released" else centre).sum()
            (gradient,) = torch.autograd.grad(score, batch)
        yield from gradient.relu().sum(1).float().cpu()


def combine(
    maps: Sequence[Tensor], names: Sequence[str] | None = None, *, rule: str = "released"
) -> tuple[Tensor, list[str]]:
    """One map of many, and the names of the images left out, whose maps are not finite.

    Args:
        maps: `(H, W)` each, of `image_maps`.
        names: of the images; their numbers, from 0, when left out.
        rule: "released" takes the mean, "paper" the sum.

    Raises:
        ValueError: no map, maps of several sizes, or none that is finite.
    """
    if not maps:
        raise ValueError("no images: an effective receptive field needs at least one")
    sizes = sorted({tuple(values.shape) for values in maps})
    if len(sizes) > 1:
        raise ValueError(f"images of several sizes, {sizes[0]} and {sizes[1]}; resize them to one")
    names = names or [f"image {i}" for i in range(len(maps))]
    finite = [bool(values.isfinite().all()) for values in maps]
    skipped = [name for name, good in zip(names, finite, strict=True) if not good]
    if len(skipped) == len(maps):
        raise ValueError(
            f"none of {len(maps)} images has finite gradients: are the network's weights finite, "
            "and the images?"
        )
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(maps)} images left out, whose gradients are not finite: "
            f"{', '.join(skipped)}",
            stacklevel=3,
        )
    total = torch.stack([values for values, good in zip(maps, finite, strict=True) if good])
    return (total.sum(0) if rule == "paper" else total.mean(0)), skipped


def centred_map(
    model: nn.Module, images: Tensor, size: int, *, stage: str, rule: str = "released"
) -> Tensor:
    """The contributions in a window around what the central position can see.

    The position in the middle of a map does not always see the middle of the image: FasterNet's
    kernels of even sides shift its field by half a jump. The window follows the field, so that
    shares and ratios measure the field's width and not its place.

    Args:
        images: `(N, 3, H, W)`, square, larger than the window by a jump of the stage at least.
        size: the side of the window, even.
        stage: the name of a layer, as `paperrepro.analysis.receptive_field` takes it.
        rule: see `contribution_map`.

    Returns:
        S, `(size, size)`; its pixel `size // 2` is the middle of the field, or half a pixel off.

    Raises:
        ValueError: as `contribution_map`; or the images are too small for the window.
    """
    side = images.shape[-1]
    field = receptive_field(model, stage, side).rows
    middle = field.start + (field.side // 2) * field.jump + field.size // 2
    first = middle - size // 2
    if first < 0 or first + size > side:
        raise ValueError(
            f"the field's middle is at pixel {middle} of {side}: a window of {size} around it does "
            f"not fit; use images of {size + 2 * abs(side // 2 - middle)} pixels or more"
        )
    inside = slice(first, first + size)
    return contribution_map(model, images, stage=stage, rule=rule)[inside, inside]


def measure(
    networks: Mapping[str, tuple[nn.Module, Callable[[Image.Image], Tensor]]],
    paths: Sequence[Path],
    *,
    stage: int | str = -1,
    rule: str = "released",
    trained_at: int | None = None,
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """The effective receptive fields of networks on the same images, on one scale.

    Args:
        networks: by name, a network and the transform of its images, all to one size. Ours are
            looked at as they are run, re-parameterized, which changes no value.
        paths: of the images.
        trained_at: the side of the images that the networks were trained on; what larger images
            would wake is then zero, see `only_trained_taps`.

    Returns:
        The contribution map of each network, and one row for each: `size`, `images`, how many were
        `skipped`, `ratio_20` to `ratio_99` (see `area_ratios`) and `centre` (see `centre_share`).

    Raises:
        ValueError, OSError: as `contribution_map`; an image that cannot be read.
    """
    maps, rows = {}, []
    for name, (model, transform) in networks.items():
        batches = load_images(paths, transform, progress=name)
        fused = reparameterize(model) if isinstance(model, Backbone) else model
        if trained_at:
            fused = only_trained_taps(fused, trained_at)
        single = list(image_maps(fused, batches, stage=stage, rule=rule))
        maps[name], skipped = combine(single, [str(path) for path in paths], rule=rule)
        ratios = area_ratios(maps[name])
        rows.append(
            {"network": name, "stage": str(stage), "size": maps[name].shape[-1]}
            | {"images": len(paths), "skipped": len(skipped)}
            | {f"ratio_{100 * share:.0f}": ratio for share, ratio in ratios.items()}
            | {"centre": centre_share(maps[name])}
        )
    return maps, pd.DataFrame(rows)


def contribution_scores(contribution_map: Tensor) -> Tensor:
    """A: the logarithm of a contribution map `(H, W)`, scaled to [0, 1], in float64.

    Raises:
        ValueError: no pixel contributes anything, so that there is nothing to scale by.
    """
    scores = (contribution_map.double() + 1).log10()
    if not scores.max() > 0:
        raise ValueError(
            "the contribution map is 0 everywhere: the centre of this stage's map does not depend "
            "on the images"
        )
    return scores / scores.max()


def area_ratios(
    contribution_map: Tensor, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float | None]:
    """The high-contribution area ratios of RepLKNet's Table 10.

    Args:
        contribution_map: S, `(H, W)`; the logarithm is taken here.
        thresholds: t, shares of the sum of A.

    Returns:
        For each t the area over H W of the smallest square of 3, 5, 7, ... pixels around pixel
        (H // 2, W // 2) that holds more than t of the sum; None where none inside the image does.
    """
    scores = contribution_scores(contribution_map)
    sides, held = squares(scores)
    ratios = {}
    for threshold in thresholds:
        enough = [side for side, share in zip(sides, held, strict=True) if share > threshold]
        ratios[threshold] = enough[0] ** 2 / scores.numel() if enough else None
    return ratios


def centre_share(contribution_map: Tensor, area: float = 0.25) -> float:
    """The share of all contributions, without the logarithm, in the middle of the image.

    Unlike `area_ratios` it does not depend on how large the gradients are. A uniform map has
    `area`, as nearly as a square of an odd side can.

    Args:
        contribution_map: S, `(H, W)`.
        area: of the largest square of 3, 5, 7, ... pixels that is taken, over that of the image.

    Raises:
        ValueError: not even 3 x 3 pixels are so small, or the map is 0 everywhere.
    """
    contribution_scores(contribution_map)  # for its error
    sides, held = squares(contribution_map.double())
    within = [i for i, side in enumerate(sides) if side**2 <= area * contribution_map.numel()]
    if not within:
        raise ValueError(f"{area:.2%} of {tuple(contribution_map.shape)} is less than 3 x 3 pixels")
    return held[within[-1]]


def distance_within(contribution_map: Tensor, share: float) -> int:
    """The fewest pixels to the left and right of the middle column that hold a share of all.

    Args:
        contribution_map: S, `(H, W)`.
        share: of the sum of S, in (0, 1].
    """
    columns = contribution_map.double().sum(0)
    middle = len(columns) // 2
    far = (torch.arange(len(columns)) - middle).abs()
    held = columns.new_zeros(middle + 1).index_add_(0, far, columns).cumsum(0)
    return int((held >= share * held[-1]).nonzero()[0])


def only_trained_taps(model: nn.Module, size: int) -> nn.Module:
    """A copy in which the taps that training never used are zero.

    On a map of H pixels a tap farther than H - 1 from its kernel's centre meets padding alone: its
    weight got no gradient and answers with noise on the larger map of a larger image. On images of
    `size` pixels the copy gives exactly what the network gives.

    Args:
        model: a network; what is zeroed are taps of its `nn.Conv2d`.
        size: the side of the images that it was trained on.
    """
    model = copy.deepcopy(model).eval()
    met: dict[nn.Conv2d, Sequence[Tensor]] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(conv, nn.Conv2d) and not isinstance(conv.padding, str):
            steps = zip(
                inputs[0].shape[-2:],
                output.shape[-2:],
                conv.kernel_size,
                conv.stride,
                conv.padding,
                conv.dilation,
                strict=True,
            )
            met[conv] = [taps_met(*step) for step in steps]

    convs = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    with ExitStack() as hooks, torch.no_grad():
        for conv in convs:
            hooks.callback(conv.register_forward_hook(note).remove)
        device = next(model.parameters()).device
        model(torch.zeros(1, 3, size, size, device=device))
        for conv, (rows, columns) in met.items():
            conv.weight *= rows[:, None].to(conv.weight) * columns.to(conv.weight)
    return model


def taps_met(side: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Which taps along one axis fall on the map for some position of the output; `(kernel,)`."""
    places = stride * torch.arange(out)[:, None] - padding + dilation * torch.arange(kernel)
    return ((places >= 0) & (places < side)).any(0)


def squares(values: Tensor) -> tuple[list[int], list[float]]:
    """The sides 3, 5, 7, ... of the centred squares inside a map, and the share of its sum in
    each."""
    height, width = values.shape
    total = torch.nn.functional.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    reach = torch.arange(1, min(height, width) // 2)
    top, left = height // 2 - reach, width // 2 - reach
    bottom, right = height // 2 + 1 + reach, width // 2 + 1 + reach
    sums = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    return (2 * reach + 1).tolist(), (sums / values.sum()).tolist()


def draw(maps: Mapping[str, Tensor]) -> "Figure":
    """Contribution scores side by side on one scale from 0 to 1; needs matplotlib.

    Args:
        maps: contribution maps `(H, W)` by the name to show.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(maps) + 0.6, 2.9), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        scores = contribution_scores(values).numpy()
        drawn = axis.imshow(scores, vmin=0, vmax=1, cmap="viridis", interpolation="antialiased")
        axis.set(title=fill(name, 24), xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, label="contribution score A")
    return figure
