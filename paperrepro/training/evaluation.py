"""How good a network is: top-1, top-5, throughput, and whether its fused form answers the same."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..datasets import LabelledImages, Prepared
from ..models import Backbone
from ..reparam import reparameterize


@dataclass(frozen=True)
class Score:
    """Accuracy in percent and mean cross entropy over `images` images, and images per second
    through the network alone."""

    images: int
    top1: float
    top5: float
    loss: float
    speed: float


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: LabelledImages,
    transform: Callable,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> Score:
    """The network's score on a set; its mode is left as it was.

    Unreadable images do not count. With several processes each scores its share.
    """
    training = model.training
    model.eval()
    sums = torch.zeros(5, dtype=torch.float64)
    for batch, labels in batches(images, transform, batch_size, workers, rank, world):
        batch = batch.to(device, memory_format=torch.channels_last)
        start = time.perf_counter()
        logits = model(batch).float().cpu()
        seconds = time.perf_counter() - start
        sums += torch.tensor([len(labels), *hits(logits, labels), seconds], dtype=torch.float64)
    model.train(training)
    if world > 1:
        sums = sums.to(device)
        dist.all_reduce(sums)
        sums = sums.cpu()
    count, top1, top5, loss, seconds = sums.tolist()
    if not count:
        raise ValueError("not one image of the validation set is readable")
    return Score(
        images=int(count),
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        loss=loss / count,
        speed=world * count / seconds,
    )


def batches(
    images: LabelledImages,
    transform: Callable,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of transformed images and labels, without the unreadable ones, in order."""
    prepared = Prepared(images, transform)
    keys = [(0, index, 0) for index in range(rank, len(images), world)]
    for batch, labels, unreadable in DataLoader(
        prepared, batch_size, sampler=keys, num_workers=workers
    ):
        readable = torch.tensor([not name for name in unreadable])
        if readable.any():
            yield batch[readable], labels[readable]


def hits(logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """How often the label is the first answer and among the first five; the summed loss."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return ranked[:, 0].sum().item(), ranked.any(1).sum().item(), loss.item()


@torch.no_grad()
def fused_difference(
    model: Backbone, images: LabelledImages, transform: Callable, *, count: int = 256
) -> tuple[float, float]:
    """How far the re-parameterized network's answers are from the network's own.

    Returns:
        The largest difference of the logits over their standard deviation, and the share of equal
        top-1 answers in percent, over the first `count` images.
    """
    fused = reparameterize(model)
    training = model.training
    model.eval()
    first = Subset(cast(Dataset, images), range(min(count, len(images))))
    pairs = [(model(batch), fused(batch)) for batch, _ in batches(first, transform, 64, 0)]
    model.train(training)
    logits, fused_logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    difference = (logits - fused_logits).abs().max() / logits.std()
    equal = (logits.argmax(1) == fused_logits.argmax(1)).double().mean()
    return difference.item(), 100 * equal.item()


def evaluate_forms(
    model: Backbone,
    images: LabelledImages,
    transform: Callable,
    *,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[pd.DataFrame, float, float]:
    """The score of a network as it was trained and re-parameterized, and how far they differ.

    Returns:
        A row per form: `network`, `images`, `top1`, `top5` (percent) and `images_per_second`; then
        what `fused_difference` gives.
    """
    difference, equal = fused_difference(model, images, transform)
    rows = []
    for form, network in (
        ("as trained", model),
        ("re-parameterized", reparameterize(model)),
    ):
        network = network.to(device).to(memory_format=torch.channels_last)
        score = evaluate(network, images, transform, workers=workers, device=device)
        rows.append(
            {
                "network": form,
                "images": score.images,
                "top1": score.top1,
                "top5": score.top5,
                "images_per_second": score.speed,
            }
        )
    return pd.DataFrame(rows), difference, equal
