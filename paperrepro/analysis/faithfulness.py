"""Scores that need no truth: does a map foretell what changes do, and does it stay where it was?

Infidelity and sensitivity (Yeh et al., 2019, "On the (In)fidelity and Sensitivity of Explanations",
Definitions 2.1 and 3.1), computed by Captum. Both are better where they are smaller.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .attribution import captum

SMALLEST, LARGEST = 8, 24


def infidelity(
    model: nn.Module,
    image: Tensor,
    target: int,
    attribution_map: Tensor,
    *,
    squares: int = 64,
    seed: int = 0,
) -> float:
    """How badly a map foretells the fall of the logit where a square of 8 to 24 pixels turns to 0.

    The mean squared error of the map's sum over the square, the map scaled as fits best, over the
    mean square of the falls: 0 where the map foretells all of them, 1 where it says nothing.

    Args:
        image: `(3, H, W)`, of at least 24 pixels.
        attribution_map: `(H, W)`.
        squares: how many are drawn, by `seed`; the caller's random numbers go on as they were.

    Raises:
        ValueError: the image is smaller than the largest square, or the map of another size.
    """
    height, width = image.shape[1:]
    if min(height, width) < LARGEST or attribution_map.shape != (height, width):
        raise ValueError(
            f"an image of {tuple(image.shape)} and a map of {tuple(attribution_map.shape)}: the "
            f"sides must be the same, and at least {LARGEST}"
        )

    def cover(inputs: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros_like(inputs)
        for one in mask:
            side = int(torch.randint(SMALLEST, LARGEST + 1, ()))
            top, left = (int(torch.randint(s + 1 - side, ())) for s in (height, width))
            one[:, top : top + side, left : left + side] = 1
        return mask, inputs * (1 - mask)

    def error(values: Tensor, normalize: bool) -> float:
        torch.manual_seed(seed)
        return (
            captum("metrics")
            .infidelity(
                model,
                cover,
                image[None],
                values,
                target=target,
                n_perturb_samples=squares,
                normalize=normalize,
            )
            .item()
        )

    spread = attribution_map.expand(3, -1, -1)[None] / 3
    with torch.random.fork_rng(devices=[]):
        return error(spread, True) / error(torch.zeros_like(spread), False)


def sensitivity(
    explain: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    radius: float = 0.02,
    samples: int = 4,
    seed: int = 0,
) -> float:
    """By how much of its norm a map changes at most while each pixel moves by up to `radius`.

    Args:
        explain: an image `(3, H, W)` to its map `(H, W)`.
        samples: how many images are drawn around `image`, by `seed`; the caller's random numbers go
            on as they were.
    """

    def maps(given: Tensor | tuple[Tensor, ...]) -> Tensor:
        images = given[0] if isinstance(given, tuple) else given
        return torch.stack([explain(one) for one in images])[:, None]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            captum("metrics")
            .sensitivity_max(maps, image[None], perturb_radius=radius, n_perturb_samples=samples)
            .item()
        )
