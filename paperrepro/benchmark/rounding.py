"""MobileOne in few bits: before or after re-parameterization, layer by layer, and the remedies.

All of it is simulated in PyTorch (`paperrepro.export.simulate`), weights and activations rounded
alike. The trap: a network that is quantised as it was trained cannot be merged any more. Merged
afterwards, its kernels lie on no grid; rounded a second time they lose twice.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..datasets import load_data
from ..export.simulate import (
    QUANTIZED,
    equalize,
    fake_quantized,
    layers_of,
    rounded_weight,
)
from ..models import Backbone
from ..reparam import reparameterize
from .quantization import CALIBRATION, Images, scored, stored_network
from .steps import Steps

BITS = (8, 6, 4)
EPOCHS, TRAINED_ON, LEARNING_RATE = 3, 2000, 2e-3


def order(
    data: Sequence[str] = ("shapes",),
    *,
    count: int = 1000,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """MobileOne quantised in each order, with each remedy, in 8, 6 and 4 bits.

    Args:
        quick: 4 bits only, and no training.

    Returns:
        One row per data set, `bits` (of weights and activations alike) and `form`, with the columns
        of `quantization.run` from `images` to `agreement`.
    """
    steps = steps or Steps()
    for name in data:
        key = {"data": Path(name).name}
        steps.take(key, partial(order_of, name, count, quick, progress))
    return steps.table


def order_of(name: str, count: int, quick: bool, progress: bool) -> Iterator[dict[str, object]]:
    """The rows of one data set."""
    loaded = load_data(name, size=64)
    opened = stored_network(name, "mobileone")
    assert isinstance(opened.model, Backbone)
    model = opened.model.requires_grad_(False)
    test = Images(opened, loaded.val, count)
    drawn = Images(opened, loaded.train, TRAINED_ON)
    known = drawn.normalized[:CALIBRATION]
    reference = predicted(model, test.normalized)

    def row(bits: int, form: str, network: nn.Module) -> dict[str, object]:
        found = predicted(network, test.normalized)
        return {"bits": bits, "form": form} | scored(found, reference, test.labels)

    yield row(32, "float32", model)
    more = f"{EPOCHS} epochs of {TRAINED_ON}"
    if not quick:
        yield row(32, f"float32, {more} more", train_on(reparameterize(model), drawn))
    for bits in tqdm(BITS[-1:] if quick else BITS, desc=name, disable=not progress):
        for form, network in forms(model, known, bits):
            yield row(bits, form, network)
        if not quick:
            small = fake_quantized(reparameterize(model), known, bits=bits)
            yield row(bits, f"re-parameterized, per channel, {more}", train_on(small, drawn))


@torch.no_grad()
def predicted(network: nn.Module, images: Tensor) -> Tensor:
    """The class that a network gives each normalised image."""
    return torch.cat([network(batch).argmax(1) for batch in images.split(50)])


def forms(model: Backbone, known: Tensor, bits: int) -> Iterator[tuple[str, nn.Module]]:
    """The orders and the remedies that need no training."""
    fused = reparameterize(model)
    yield "as trained, per channel; not merged", fake_quantized(model, known, bits=bits)
    twice = reparameterize(with_rounded_weights(model, bits))
    yield "as trained, per channel, then merged and again", fake_quantized(twice, known, bits=bits)
    yield "re-parameterized, per channel", fake_quantized(fused, known, bits=bits)
    yield (
        "re-parameterized, per tensor",
        fake_quantized(fused, known, bits=bits, per_channel=False),
    )
    yield (
        "re-parameterized, equalised, per tensor",
        fake_quantized(equalize(fused), known, bits=bits, per_channel=False),
    )


@torch.no_grad()
def with_rounded_weights(model: Backbone, bits: int) -> Backbone:
    """A copy whose convolutions' weights are rounded, channel by channel."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, QUANTIZED):
            layer.weight.copy_(rounded_weight(layer.weight, bits, True))
    return model


def train_on(network: nn.Module, drawn: Images) -> nn.Module:
    """The network after a few epochs with its rounding (quantisation-aware training)."""
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    steps = EPOCHS * -(-len(drawn.labels) // 32)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(drawn.labels), generator=generator).split(32):
            loss = F.cross_entropy(network(drawn.normalized[chosen]), drawn.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def layers(
    data: Sequence[str] = ("shapes",),
    *,
    count: int = 1000,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Re-parameterized MobileOne with one layer at a time in 4 bits.

    Returns:
        One row per data set, layer and `weights` ("per tensor" or "per channel"): its `kernel`, the
        `spread` of its channels (the largest weight of the largest channel over that of the median
        one), the `error` of the logits, relative L2, and the columns of `scored`.
    """
    steps = steps or Steps()
    for name in data[:1] if quick else data:
        steps.take({"data": Path(name).name}, partial(layers_in, name, count // 2, progress))
    return steps.table


def layers_in(name: str, count: int, progress: bool) -> Iterator[dict[str, object]]:
    """The rows of one data set."""
    loaded = load_data(name, size=64)
    opened = stored_network(name, "mobileone")
    test = Images(opened, loaded.val, count)
    known = Images(opened, loaded.train, CALIBRATION).normalized
    network = reparameterize(opened.model).requires_grad_(False)
    reference = predicted(network, test.normalized)
    with torch.no_grad():
        logits = network(known)
    for layer in tqdm(layers_of(network), desc=name, disable=not progress):
        weight = network.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        channels = weight.flatten(1).abs().amax(1)
        for per_channel in (False, True):
            small = fake_quantized(network, known, bits=4, per_channel=per_channel, only=layer)
            found = predicted(small, test.normalized)
            with torch.no_grad():
                error = (small(known) - logits).norm() / logits.norm()
            facts = {
                "layer": layer,
                "kernel": " x ".join(map(str, weight.shape)),
                "spread": (channels.max() / channels.median()).item(),
                "weights": "per channel" if per_channel else "per tensor",
                "error": error.item(),
            }
            yield facts | scored(found, reference, test.labels)
