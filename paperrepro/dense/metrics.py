"""How good a map of classes is: mean intersection over union, and the share of right pixels."""

import torch
from torch import Tensor

from .data import IGNORED


def confusion(answers: Tensor, maps: Tensor, num_classes: int) -> Tensor:
    """Pixels by their class (row) and the answer (column), `(num_classes, num_classes)`; those of
    no class are left out.

    Args:
        answers, maps: class numbers of any one shape; 255 in the maps is no class.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(
        answers, maps.long(), num_classes, ignore_index=IGNORED
    ).double()


def iou_of(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, of one matrix over the whole set; NaN for a class
    that is neither there nor answered."""
    hit = matrix.diagonal()
    return hit / (matrix.sum(0) + matrix.sum(1) - hit)


def summary(matrix: Tensor) -> dict[str, float]:
    """Mean IoU over the classes that are there, and pixel accuracy, in percent."""
    iou = iou_of(matrix)
    return {
        "miou": 100 * float(iou[~iou.isnan()].mean()),
        "pixel_accuracy": 100 * float(matrix.diagonal().sum() / matrix.sum()),
    }


def blank(num_classes: int) -> Tensor:
    return torch.zeros(num_classes, num_classes, dtype=torch.float64)
