"""What a network computes inside: its stages by name, and the maps that go into and out of layers.

Any `nn.Module` will do, and it comes back as it was: its mode, its gradients, its hooks.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm import tqdm

from .stages import find_stage, held_still

NUMBERED = re.compile(r"(?:stages|features|blocks|layers)\.\d+")


def stage_of(name: str) -> str:
    """The stage that a layer or weight belongs to: `stages.2`, `features.4` or `layer3`.

    That is the numbered part of a list of stages or, elsewhere, the network's own child.
    """
    numbered = NUMBERED.match(name)
    return numbered[0] if numbered else name.partition(".")[0]


def stage_layers(model: nn.Module) -> list[str]:
    """The layers that are whole stages, in their order: the numbered ones, where there are any,
    else the network's children that convolve."""
    convolving = [
        name
        for name, module in model.named_modules()
        if any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    ]
    numbered = [name for name in convolving if NUMBERED.fullmatch(name)]
    return numbered or [name for name in convolving if name and "." not in name]


def record(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    layers: Sequence[str],
    *,
    before: bool = False,
    batch_size: int = 32,
    progress: bool = True,
) -> dict[str, Tensor]:
    """What layers give, or get, for images; computed in eval mode.

    Args:
        images: `(N, 3, H, W)`, or batches of such.
        layers: names as in `model.named_modules()`.
        before: the layers' inputs instead of their outputs.

    Returns:
        By the layer's name the maps `(N, C, H', W')`, on the CPU.

    Raises:
        ValueError: there is no such layer, no image, or the layer was not called once per batch;
            or its maps hold NaN or infinity.
    """
    recorded: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks: list[RemovableHandle] = []

    def keep(name: str, maps: Tensor) -> None:
        recorded[name].append(maps.detach().to("cpu", copy=True))

    def hook(name: str, layer: nn.Module) -> RemovableHandle:
        if before:
            return layer.register_forward_pre_hook(lambda _, inputs: keep(name, inputs[0]))
        return layer.register_forward_hook(lambda _, inputs, output: keep(name, output))

    device = next(model.parameters()).device
    batches = list(images.split(batch_size) if isinstance(images, Tensor) else images)
    if not batches:
        raise ValueError("no images: record needs at least one")
    modules = {name: find_stage(model, name) for name in layers}
    try:
        hooks += [hook(name, layer) for name, layer in modules.items()]
        with held_still(model), torch.no_grad():
            for batch in tqdm(batches, desc="Recording", leave=False, disable=not progress):
                model(batch.to(device))
    finally:
        for handle in hooks:
            handle.remove()
    for name, parts in recorded.items():
        if len(parts) != len(batches):
            raise ValueError(
                f"layer {name!r} was called {len(parts)} times for {len(batches)} batches; choose "
                "a layer that each image passes once"
            )
    by_layer = {name: torch.cat(parts) for name, parts in recorded.items()}
    for name, maps in by_layer.items():
        if not maps.isfinite().all():
            wrong = [i for i, image in enumerate(maps) if not image.isfinite().all()]
            raise ValueError(f"layer {name!r} gives NaN or infinity for image {wrong[0]} of them")
    return by_layer
