"""Eight-bit activations in a Core ML package, calibrated without Core ML.

coremltools reads the range of every value from Core ML's predictions, which only a Mac makes. Here
`paperrepro.export.mil` executes the package and observes the ranges; the rest is coremltools' own.
"""

from typing import Any
from unittest.mock import patch

from torch import Tensor

from . import mil
from .package import Operation, bounds_of, quiet


def quantize_activations(converted: Any, program: mil.Program, images: Tensor, batch: int) -> Any:
    """A converted model with 8-bit activations; its weights stay as they are.

    Args:
        converted: what `coreml.convert` gave, for iOS 17 or newer.
        program: the same, as it was saved.
        images: of 0 to 1, as many as some batches.
        batch: of the program's input.
    """
    from coremltools.optimize import coreml as optimize
    from coremltools.optimize.coreml import _post_training_quantization as calibration

    ranges = ranges_of(program, images, batch)
    configuration = optimize.OptimizationConfig(
        global_config=optimize.OpLinearQuantizerConfig(mode="linear_symmetric")
    )
    with (
        quiet(),
        patch.object(calibration, "_get_activation_calibration_stats", lambda *_, **__: ranges),
    ):
        return optimize.linear_quantize_activations(converted, configuration, [])


def ranges_of(program: mil.Program, images: Tensor, batch: int) -> dict[str, dict[str, float]]:
    """The smallest and the largest value of everything that the program computes.

    What is concatenated, and its result, get one range, as coremltools asks.
    """
    ranges: dict[str, dict[str, float]] = {}

    def observe(name: str, value: object) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            low, high = value.min().item(), value.max().item()
            known = ranges.get(name, {"rmin": low, "rmax": high})
            ranges[name] = {"rmin": min(low, known["rmin"]), "rmax": max(high, known["rmax"])}

    def hook(operation: Operation, results: tuple[object, ...]) -> None:
        for name, value in zip(operation.outputs, results, strict=True):
            observe(name, value)

    (entry,) = program.inputs
    for part in images.split(batch):
        if len(part) == batch:
            observe(entry, part)
            program({entry: part}, mode="float16", hook=hook)
    groups: list[set[str]] = []
    for operation in program.operations:
        if operation.type == "concat":
            joined = {b for b in bounds_of(operation.inputs["values"]) if isinstance(b, str)}
            joined |= set(operation.outputs)
            apart = [group for group in groups if not group & joined]
            groups = [*apart, joined.union(*(group for group in groups if group & joined))]
    for group in groups:
        found = [ranges[name] for name in group if name in ranges]
        whole = {
            "rmin": min(each["rmin"] for each in found),
            "rmax": max(each["rmax"] for each in found),
        }
        ranges.update(dict.fromkeys(group & ranges.keys(), whole))
    return ranges
