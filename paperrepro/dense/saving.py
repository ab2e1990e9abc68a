"""Files of detectors and segmenters: the weights, and all that is needed to build the network."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch

from ..files import write_atomically
from ..models import Input
from ..reparam import reparameterize
from ..weights import WeightsError, read_checkpoint


@dataclass(frozen=True)
class Blueprint:
    """What `build_segmenter` or `build_detector` was asked for, the weights left out."""

    task: Literal["segment", "detect"]
    backbone: str
    head: str
    num_classes: int
    options: dict[str, Any] = field(default_factory=dict)


def save_dense(model: Any, path: str | os.PathLike) -> None:
    """Writes a detector or segmenter as safetensors, with what describes it in the metadata.

    The auxiliary head is left out if it was taken off. The file is written under a temporary name
    beside `path` and then renamed.

    Raises:
        ValueError: the network was not built by `build_segmenter` or `build_detector`.
    """
    blueprint = getattr(model, "blueprint", None)
    if blueprint is None:
        raise ValueError("save_dense needs a network of build_segmenter or build_detector")
    metadata = {
        "paperrepro_dense": json.dumps(asdict(blueprint)),
        "auxiliary": json.dumps(getattr(model, "auxiliary", None) is not None),
        "reparameterized": json.dumps(model.reparameterized),
        "input": json.dumps(asdict(model.input) if model.input else None),
        "classes": json.dumps(model.classes),
    }
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(state, metadata))


def load_dense(path: str | os.PathLike) -> Any:
    """The detector or segmenter in a file made by `save_dense`.

    Raises:
        WeightsError: the file is missing, damaged, or not made by `save_dense`.
    """
    from .detector import build_detector
    from .segmenter import build_segmenter

    path = Path(path)
    state, metadata = read_checkpoint(path)
    if "paperrepro_dense" not in metadata:
        raise WeightsError(f"{path} holds no detector and no segmenter of save_dense")
    builders: dict[str, Any] = {"segment": build_segmenter, "detect": build_detector}
    try:
        plan = Blueprint(**json.loads(metadata["paperrepro_dense"]))
        build = builders[plan.task]
        model = build(plan.backbone, plan.head, plan.num_classes, **plan.options)
        settings, names = json.loads(metadata["input"]), json.loads(metadata["classes"])
        fused = json.loads(metadata["reparameterized"])
        if plan.task == "segment" and not json.loads(metadata["auxiliary"]):
            model.auxiliary = None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} describes a network that this version of paperrepro cannot build: {error}"
        ) from error
    if fused:
        model = reparameterize(model)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not hold the weights that it describes: {error}; save it again"
        ) from error
    if settings:
        model.input = Input(**settings | {k: tuple(settings[k]) for k in ("mean", "std")})
    model.classes = tuple(names) if names else None
    return model
