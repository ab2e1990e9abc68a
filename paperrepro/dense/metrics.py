"""How good a map of classes is, by mean intersection over union; how good boxes are, by COCO's
average precision."""

import io
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor

from .data import IGNORED
from .objects import run_lengths


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


NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve: average precision over ten overlaps, at two, by the objects' size; average recall
with at most 1, 10 and 100 detections, by size. -1 where there is no such object."""


def coco_scores(truth: Any, found: list[dict[str, Any]], kind: str = "bbox") -> dict[str, float]:
    """COCO's twelve numbers, from 0 to 1, as pycocotools computes them.

    Args:
        truth: of a set's `coco()`.
        found: detections as `as_results` gives them.
        kind: "bbox" for boxes, "segm" for masks.
    """
    from pycocotools.cocoeval import COCOeval

    if not found:
        return dict.fromkeys(NUMBERS, 0.0)
    # pycocotools writes outlines into what it is given, and takes an object's area from its box
    # where there is one: copies, and of masks without the box.
    unused = "bbox" if kind == "segm" else "segmentation"
    found = [{key: value for key, value in one.items() if key != unused} for one in found]
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NUMBERS, map(float, evaluation.stats), strict=True))


def as_results(detections: dict[str, Tensor], image_id: int, objects: Any) -> list[dict[str, Any]]:
    """A detector's answer to one picture in COCO's form.

    Args:
        detections: `boxes`, `labels`, `scores` and, from 0 to 1, `masks` `(n, 1, H, W)`.
        objects: the set, which knows the file's numbers of the classes.
    """
    rows = []
    for i in range(len(detections["boxes"])):
        left, top, right, bottom = detections["boxes"][i].tolist()
        row = {
            "image_id": image_id,
            "category_id": objects.category_of(int(detections["labels"][i])),
            "bbox": [left, top, right - left, bottom - top],
            "score": float(detections["scores"][i]),
        }
        if "masks" in detections:
            row["segmentation"] = run_lengths(detections["masks"][i, 0].cpu() > 0.5)
        rows.append(row)
    return rows
