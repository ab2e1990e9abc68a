"""On a Mac: does Core ML compute what PyTorch did, how fast, and on which device?

This file has not run on a Mac. Its own arithmetic is tested with a stand-in for Core ML, which
proves that the table is put together rightly, not that Core ML is called rightly.
"""

import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from . import mil
from .coreml import COMPUTE_UNITS, Settings, labels_of
from .network import golden_path, relative_error
from .package import coremltools
from .protocols import PROTOCOLS, latency, time_inferences
from .verify import answers


def compare_on_mac(
    package: str | os.PathLike, *, protocols: bool = True, progress: bool = True
) -> pd.DataFrame:
    """Run a package by Core ML on each of its compute units.

    Args:
        package: a folder that `export_coreml` wrote, with its golden file beside it.
        protocols: times 2500 inferences as RapidNet and MobileViGv2 do, and 1000 as MobileOne does,
            on each compute unit.

    Returns:
        One row per compute unit: `error`, the relative L2 error against PyTorch's golden outputs
        (of a classifier, probabilities; of a map of classes, the share of other pixels);
        `agreement`, the share of equal answers, where the network gives answers;
        `trimmed_mean_ms` and `minimum_ms`, the two protocols' latencies; and how many operations
        Core ML's plan puts on the `cpu`, the `gpu` and the `neural_engine`.

    Raises:
        OSError: this is no Mac, or the golden file is missing.
        ValueError: a package that `export_coreml` did not make.
    """
    if platform.system() != "Darwin":
        raise OSError(
            f"Core ML needs macOS, and this is {platform.system()}; verify_coreml executes the "
            "package here, and ios/ beside paperrepro/export/mac.py measures on the phone"
        )
    path = Path(package)
    program = mil.load(path)
    settings = Settings.of(program)
    golden = safetensors.torch.load_file(golden_path(path))
    entry = {next(iter(program.inputs)): as_input(golden["image"], settings.image)}
    labels = labels_of(program)
    rows = []
    for unit in tqdm(COMPUTE_UNITS, desc="Compute units", disable=not progress):
        model = load(path, unit)
        row: dict[str, object] = {"compute_units": unit}
        row |= compared(model.predict(entry), golden, settings, labels)
        for name, timing in PROTOCOLS.items() if protocols else ():
            times = time_inferences(timing, partial(prepared, path, unit, entry))
            row[f"{name}_ms"] = 1e3 * latency(times, timing)
        rows.append(row | devices(model.get_compiled_model_path(), unit))
    return pd.DataFrame(rows)


def load(path: Path, unit: str) -> Any:
    """A package, loaded by Core ML for a compute unit."""
    ct = coremltools()
    return ct.models.MLModel(str(path), compute_units=ct.ComputeUnit[unit])


def prepared(path: Path, unit: str, entry: dict[str, Any]) -> Callable[[], object]:
    """A function that runs the package once."""
    model = load(path, unit)
    return lambda: model.predict(entry)


def as_input(image: Tensor, is_image: bool) -> Image.Image | np.ndarray:
    """The golden image `(1, 3, H, W)` of 0 to 255 as Core ML takes it."""
    if is_image:
        return Image.fromarray(image[0].permute(1, 2, 0).numpy())
    return (image / 255).numpy()


def compared(
    outputs: dict[str, Any],
    golden: dict[str, Tensor],
    settings: Settings,
    labels: list[str] | None,
) -> dict[str, float | None]:
    """Error and agreement of what Core ML predicts for the golden image."""
    if settings.pixels:
        classes = golden["logits"].argmax(1)
        found = torch.as_tensor(np.asarray(outputs["classes"])).reshape(classes.shape)
        same = (found == classes).double().mean().item()
        return {"error": 1 - same, "agreement": same}
    if labels:
        (listed,) = [output for output in outputs.values() if isinstance(output, dict)]
        probabilities = torch.tensor([[listed[label] for label in labels]])
        predicted, expected = {"logits": probabilities}, {"logits": golden["logits"].softmax(1)}
    else:
        expected = {name: golden[name] for name in settings.outputs}
        predicted = {
            name: torch.as_tensor(np.asarray(outputs[name])).reshape(each.shape)
            for name, each in expected.items()
        }
    return {
        "error": relative_error(predicted, expected),
        "agreement": answers(predicted, expected)[0],
    }


def devices(compiled: str, unit: str) -> dict[str, int]:
    """How many operations Core ML's plan puts on each device (macOS 14.4 and newer)."""
    ct = coremltools()
    from coremltools.models import compute_device
    from coremltools.models.compute_plan import MLComputePlan

    kinds = {
        "cpu": compute_device.MLCPUComputeDevice,
        "gpu": compute_device.MLGPUComputeDevice,
        "neural_engine": compute_device.MLNeuralEngineComputeDevice,
    }
    counts = dict.fromkeys(kinds, 0)
    plan = MLComputePlan.load_from_path(compiled, compute_units=ct.ComputeUnit[unit])
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        for name, kind in kinds.items():
            counts[name] += usage is not None and isinstance(usage.preferred_compute_device, kind)
    return counts
