"""Does every value of an execution stay in the range of its precision?"""

from pathlib import Path

import torch
from torch import Tensor

from .package import Operation


class VerificationError(ValueError):
    """A package that is not the network; the message names the first difference."""


class Watch:
    """A hook that keeps the largest value, and stops at the first that is not finite."""

    def __init__(self, path: Path, precision: str) -> None:
        self.path, self.precision = path, precision
        self.peak, self.peak_at = 0.0, ""

    def __call__(self, operation: Operation, results: tuple[object, ...]) -> None:
        for result in results:
            if not isinstance(result, Tensor) or not result.is_floating_point():
                continue
            largest = result.abs().max().item()
            if not largest < float("inf"):
                raise VerificationError(
                    f"{self.path}: {operation.type} {operation.name!r} leaves the range of "
                    f"{self.precision} ({torch.finfo(getattr(torch, self.precision)).max:,.0f}), "
                    f"after values of up to {self.peak:,.0f} at {self.peak_at!r}; calibrate a "
                    "fresh network (paperrepro.export.calibrate), keep the values of a trained one "
                    "smaller, or export with precision='float32'"
                )
            if largest > self.peak:
                self.peak, self.peak_at = largest, operation.name
