"""How alike feature maps are: between channels (FasterNet, Fig. 3), and between layers (CKA).

FasterNet shows maps of a ResNet-50 that look alike, and infers that convolving a few channels is
enough. Here that likeness is a number. Maps behind a ReLU have no negative values, and any two of
them have a positive cosine: so beside it stand the cosine of the same maps with their pixels
shuffled, and the correlation, which is the cosine of what deviates from the channel's mean.

    >>> maps = record(model, images, ["layer3"])["layer3"]
    >>> channel_similarity(maps)["correlation"]
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from .recording import record, stage_layers

TWIN = 0.9
Layer = TypeVar("Layer", bound=Hashable)


def cosine(maps: Tensor) -> Tensor:
    """The cosine between each two channels of each image.

    Args:
        maps: `(N, C, H, W)`.

    Returns:
        `(N, C, C)`; NaN where a channel is zero everywhere, for it has no direction.

    Raises:
        ValueError: another shape.
    """
    if maps.dim() != 4:
        raise ValueError(f"expected maps of shape (N, C, H, W), got {tuple(maps.shape)}")
    vectors = maps.detach().float().flatten(2)
    lengths = vectors.norm(dim=2, keepdim=True)
    directions = vectors / lengths.where(lengths > 0, torch.nan)
    return directions @ directions.mT


def correlation(maps: Tensor) -> Tensor:
    """Pearson's correlation between each two channels: the `cosine` of maps less their mean."""
    centred = maps.detach().float()
    centred = centred - centred.mean((2, 3), keepdim=True)
    # A constant channel leaves nothing but rounding.
    spread = centred.abs().amax((2, 3), keepdim=True)
    floor = 1e-6 * maps.detach().float().abs().amax((2, 3), keepdim=True)
    return cosine(centred.where(spread > floor, 0))


def shuffled(maps: Tensor, seed: int = 0) -> Tensor:
    """The maps with the pixels of each channel in an order of their own."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(maps.shape, generator=generator).flatten(2).argsort(2).to(maps.device)
    return maps.flatten(2).gather(2, order).reshape(maps.shape)


def off_diagonal(matrices: Tensor) -> Tensor:
    """The entries `(N, C, C - 1)` of `(N, C, C)` beside the diagonal."""
    n, c, _ = matrices.shape
    return matrices.flatten(1)[:, :-1].reshape(n, c - 1, c + 1)[:, :, 1:].reshape(n, c, c - 1)


def channel_similarity(maps: Tensor, seed: int = 0) -> dict[str, float]:
    """How alike the channels of a layer are, averaged over the images and all pairs of channels.

    Args:
        maps: `(N, C, H, W)`, at least two channels.
        seed: of the shuffled pixels.

    Returns:
        The mean magnitude of the `cosine`, of the cosine with `shuffled` pixels and of the
        `correlation`; the share of channels that have a `twin`, another channel with a correlation
        above 0.9 or below -0.9; and the share of `dead` channels, which are zero everywhere in an
        image and count in no other number. NaN where no two channels can be compared.

    Raises:
        ValueError: another shape, a single channel, or maps of a single pixel.
    """
    cosines = cosine(maps)
    if maps.shape[1] < 2:
        raise ValueError("a single channel is like no other: the layer needs two")
    if maps.shape[2:].numel() < 2:
        raise ValueError("maps of one pixel are all alike: use larger images or an earlier layer")
    correlations = off_diagonal(correlation(maps)).abs()
    comparable = ~correlations.isnan().all(2)
    nearest = correlations.nan_to_num(0).amax(2)[comparable]
    return {
        "cosine": off_diagonal(cosines).abs().nanmean().item(),
        "shuffled": off_diagonal(cosine(shuffled(maps, seed))).abs().nanmean().item(),
        "correlation": correlations.nanmean().item(),
        "twin": (nearest > TWIN).float().mean().item(),
        "dead": cosines.diagonal(dim1=1, dim2=2).isnan().float().mean().item(),
    }


def linear_cka(a: Tensor, b: Tensor, *, unbiased: bool = False) -> float:
    """Linear centred kernel alignment of two layers (Kornblith et al., ICML 2019, Eqs. 3-4).

    1 where the layers are the same up to rotation and scale, near 0 where they have nothing in
    common. With more features than images the plain value is too large for any two layers;
    the unbiased estimate of Song et al. (JMLR 2012) mends that, and may be slightly negative. Both
    are NaN where a layer gives the same for all images.

    Args:
        a, b: what two layers give for the same images, `(N, ...)`; they may be of two networks.

    Raises:
        ValueError: different numbers of images, or too few of them: two, unbiased four.
    """
    check_counts(len(a), len(b), unbiased)
    return alignment(gram(a), gram(b), unbiased)


def check_counts(a: int, b: int, unbiased: bool) -> None:
    least = 4 if unbiased else 2
    if a != b or a < least:
        raise ValueError(
            f"{a} and {b} images; CKA compares two layers on the same images, at least {least} of "
            "them"
        )


def alignment(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """CKA of two centred Gram matrices."""
    dependence = unbiased_hsic if unbiased else hsic
    return (dependence(x, y) / (dependence(x, x) * dependence(y, y)).sqrt()).item()


def gram(maps: Tensor) -> Tensor:
    """The inner products `(N, N)` of the images' features, less the features' mean."""
    features = maps.detach().double().flatten(1)
    features = features - features.mean(0)
    return features @ features.mT


def hsic(x: Tensor, y: Tensor) -> Tensor:
    """The Hilbert-Schmidt independence criterion of centred Gram matrices, up to a factor."""
    return (x * y).sum()


def unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """Its unbiased estimate (Song et al., 2012, Eq. 5), up to a factor."""
    n = len(x)
    x, y = x - x.diag().diag(), y - y.diag().diag()
    total = x.sum() * y.sum() / ((n - 1) * (n - 2))
    return (x * y).sum() + total - 2 / (n - 2) * (x.sum(0) @ y.sum(0))


def cka_matrix(
    a: Mapping[Layer, Tensor], b: Mapping[Layer, Tensor], *, unbiased: bool = False
) -> pd.DataFrame:
    """`linear_cka` of each layer of `a` (rows) with each of `b` (columns)."""
    for x, y in product(a.values(), b.values()):
        check_counts(len(x), len(y), unbiased)
    rows, columns = [gram(maps) for maps in a.values()], [gram(maps) for maps in b.values()]
    values = [[alignment(x, y, unbiased) for y in columns] for x in rows]
    return pd.DataFrame(values, index=list(a), columns=list(b))


def cka_table(networks: Mapping[str, tuple[nn.Module, Tensor]]) -> pd.DataFrame:
    """The unbiased CKA of every stage of networks with every other.

    Args:
        networks: by name, a network and the same images `(N, 3, H, W)`, as it takes them.

    Returns:
        A row per pair: `network`, `layer`, `other_network`, `other_layer`, `cka`.
    """
    maps = {
        (name, layer): features
        for name, (model, images) in networks.items()
        for layer, features in record(model, images, stage_layers(model)).items()
    }
    matrix = cka_matrix(maps, maps, unbiased=True).to_numpy()
    return pd.DataFrame(
        [
            [*one, *other, value]
            for one, values in zip(maps, matrix, strict=True)
            for other, value in zip(maps, values, strict=True)
        ],
        columns=["network", "layer", "other_network", "other_layer", "cka"],
    )


def measure(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    layers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """The channel similarity of layers, and their CKA with each other.

    Args:
        images: `(N, 3, H, W)`, or batches of such; at least four.
        layers: names as in `model.named_modules()`; the stages when left out.

    Returns:
        One row per layer: its `channels` and `pixels`, `channel_similarity`, and its unbiased CKA
        with the layer before it (`cka_before`, none for the first).

    Raises:
        ValueError: as `record`, `channel_similarity` and `linear_cka`.
    """
    names = list(layers or stage_layers(model))
    maps = record(model, images, names, progress=progress)
    rows = []
    for before, name in zip([None, *names], names, strict=False):
        features = maps[name]
        row: dict[str, object] = {"layer": name}
        row |= {"channels": features.shape[1], "pixels": features.shape[2:].numel()}
        row |= channel_similarity(features, seed)
        if before:
            row["cka_before"] = linear_cka(maps[before], features, unbiased=True)
        rows.append(row)
    return pd.DataFrame(rows)
