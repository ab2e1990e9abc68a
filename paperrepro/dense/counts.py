"""Parameters and operations of detectors and segmenters, plainly and as the papers count them.

No paper states how it counted; `Family.dense_count` holds what the digits of its tables reveal. A
detector is counted part by part, because what it computes depends on what it sees: the papers take
a thousand regions for boxes, and a hundred for masks.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..complexity import count_parameters
from ..models import family_of
from ..reparam import reparameterize
from .body import Body
from .segmenter import Segmenter

BOXES, MASKS = 1000, 100

Size = tuple[int, int]


class SmallOperations(TorchDispatchMode):
    """Counts the outputs of biased convolutions, ReLUs and BatchNorms as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = self.relus = self.norms = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        name = function.overloadpacket.__name__
        if name == "convolution" and args[2] is not None:
            self.biases += result.numel()
        elif name in ("relu", "relu_"):
            self.relus += result.numel()
        elif "batch_norm" in name:
            self.norms += result[0].numel()
        return result


def body_of(model: nn.Module) -> Body:
    """The backbone inside a detector or segmenter."""
    return next(module for module in model.modules() if isinstance(module, Body))


def dense_macs(model: nn.Module, size: Size) -> int:
    """Multiply-adds of a detector or segmenter for one image of height and width `size`.

    A two-stage detector is counted with 1000 boxes and 100 masks, each stage of a cascade so.
    """
    return count(model, size)[0]


def paper_dense_macs(model: nn.Module, size: Size) -> int:
    """The FLOPs of the paper's tables for one image of height and width `size`.

    Args:
        model: of `build_detector` or `build_segmenter`, in training form.

    Raises:
        MissingFactError: the backbone's family does not state its paper's rule.
    """
    body = body_of(model)
    rule = family_of(body.stages.variant).need("dense_count")
    if rule.fused:
        model = copy.deepcopy(model)
        body_of(model).stages = reparameterize(body.stages)
    macs, small = count(model, size, mask_predictor=rule.mask_predictor)
    return macs + small.biases + small.relus + rule.per_norm * small.norms


def paper_dense_parameters(model: nn.Module) -> int:
    """The parameters of the paper's tables: the backbone as released code leaves it, without its
    classifier; the head as it is trained, without the auxiliary one.

    Raises:
        MissingFactError: the backbone's family does not state its paper's rule.
    """
    stages = body_of(model).stages
    family = family_of(stages.variant)
    total = count_parameters(model)
    if isinstance(model, Segmenter) and model.auxiliary is not None:
        total -= count_parameters(model.auxiliary)
    if not family.need("dense_count").fused:
        return total
    rule: Callable[[Any, Any], int] = family.need("parameters")
    return total - count_parameters(stages) + rule(stages, reparameterize(stages))


def count(
    model: nn.Module, size: Size, *, mask_predictor: bool = True
) -> tuple[int, SmallOperations]:
    """Multiply-adds and the smaller operations of the parts of a network, each run once."""
    training = model.training
    model.eval()
    small = SmallOperations()
    flops = FlopCounterMode(display=False)
    with ExitStack() as stack:
        stack.callback(model.train, training)
        for context in (torch.no_grad(), flops, small):
            stack.enter_context(context)
        run_parts(model, size, mask_predictor)
    return flops.get_total_flops() // 2, small


def run_parts(model: Any, size: Size, mask_predictor: bool) -> None:
    """Runs a segmenter, or a detector's parts on regions that stand for any."""
    first = next(model.parameters())
    image = first.new_zeros(1, body_of(model).stages.in_chans, *size)
    if isinstance(model, Segmenter | Body):
        model(image)
        return
    features = model.backbone(image)
    maps = list(features.values())
    if not hasattr(model, "roi_heads"):
        model.head(maps)
        return
    model.rpn.head(maps)
    width = model.backbone.out_channels
    for stage in getattr(model.roi_heads, "stages", [model.roi_heads]):
        stage.box_predictor(stage.box_head(first.new_zeros(BOXES, width, 7, 7)))
        if stage.mask_head is not None:
            seen = stage.mask_head(first.new_zeros(MASKS, width, 14, 14))
            if mask_predictor:
                stage.mask_predictor(seen)
