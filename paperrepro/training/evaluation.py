"""How good a network is: top-1, top-5, throughput, and whether its fused form answers the same."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ..datasets import LabelledImages, Prepared
from ..models import Backbone
from ..reparam import reparameterize
from .loader import begin, make_loader, moved
from .log import say
from .place import Machine, Place


@dataclass(frozen=True)
class Score:
    """Accuracy in percent and mean cross entropy over `images` images, images per second through
    the network alone, and the names of the images that could not be read, which do not count."""

    images: int
    top1: float
    top5: float
    loss: float
    speed: float
    unreadable: tuple[str, ...] = ()


def evaluate(
    model: nn.Module,
    images: LabelledImages,
    transform: Callable,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Score:
    """The network's score on a set; its mode is left as it was.

    Raises:
        ValueError: not one image is readable.
    """
    training = model.training
    model.eval()
    device = torch.device(device)
    found = score(
        model, batches(images, transform, batch_size, workers, device), Place(0, 1, device)
    )
    model.train(training)
    return found


@torch.no_grad()
def score(model: nn.Module, batches: Iterable, place: Place) -> Score:
    """The score of a network in eval mode over the processes' batches of images, labels and names
    of what could not be read."""
    sums = torch.zeros(5, dtype=torch.float64)
    unreadable: list[str] = []
    for images, labels in readable(batches, unreadable):
        images = moved(images, place.device)
        start = time.perf_counter()
        logits = model(images).float().cpu()
        seconds = time.perf_counter() - start
        sums += torch.tensor([len(labels), *hits(logits, labels), seconds], dtype=torch.float64)
    names = sorted({name for part in place.gather(unreadable) for name in part})
    count, top1, top5, loss, seconds = place.sum(sums).tolist()
    if not count:
        raise ValueError("not one image of the validation set is readable")
    return Score(
        images=int(count),
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        loss=loss / count,
        speed=place.world * count / seconds,
        unreadable=tuple(names),
    )


def batches(
    images: LabelledImages,
    transform: Callable,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
    """Batches of transformed images, labels and names of what could not be read, in order."""
    keys = [(0, index, 0) for index in range(len(images))]
    machine = Machine(workers=workers)
    return begin(make_loader(Prepared(images, transform), batch_size, machine, device, keys=keys))


def readable(
    batches: Iterable, unreadable: list[str] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels of batches, without what could not be read, whose names are added to
    `unreadable`."""
    for images, labels, names in batches:
        if any(names):
            if unreadable is not None:
                unreadable += [name for several in names for name in several.split("\n") if name]
            read = torch.tensor([not name for name in names])
            images, labels = images[read], labels[read]
        if len(labels):
            yield images, labels


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
    parts = batches(first, transform, 64, 0, torch.device("cpu"))
    pairs = [(model(batch), fused(batch)) for batch, _ in readable(parts)]
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
        A row per form: `network`, `images`, `unreadable`, `top1`, `top5` (percent) and
        `images_per_second`; then what `fused_difference` gives.
    """
    difference, equal = fused_difference(model, images, transform)
    rows = []
    for form, network in (
        ("as trained", model),
        ("re-parameterized", reparameterize(model)),
    ):
        network = network.to(device).to(memory_format=torch.channels_last)
        found = evaluate(network, images, transform, workers=workers, device=device)
        for name in found.unreadable if form == "as trained" else ():
            say(f"unreadable image, left out: {name}")
        rows.append(
            {
                "network": form,
                "images": found.images,
                "unreadable": len(found.unreadable),
                "top1": found.top1,
                "top5": found.top5,
                "images_per_second": found.speed,
            }
        )
    return pd.DataFrame(rows), difference, equal
