"""The checks of the chapter on dense prediction: right answers pass, usual mistakes do not."""

from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch.nn import functional as F

SOLUTIONS = Path(__file__).parents[1] / "book" / "solutions" / "dense-prediction.ipynb"


@cache
def cells():
    notebook = nbformat.read(SOLUTIONS, as_version=4)
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}


@cache
def names():
    found = {}
    for name, source in cells().items():
        if name == "imports" or name.startswith("answer"):
            exec(source, found)
    return found


def run_check(number, **answers):
    exec(cells()[f"check-{number}"], {**names(), **answers})


@pytest.mark.parametrize("number", range(1, 7))
def test_right_answers_pass(number, capsys):
    run_check(number)
    assert "correct" in capsys.readouterr().out


def recall(m):
    return m.diagonal() / m.sum(1)


def doubled(m):
    return m.diagonal() / (m.sum(0) + m.sum(1))


def floored(height, width):
    return sum(3 * (height // s) * (width // s) for s in (4, 8, 16, 32, 64))


def four_levels(height, width):
    return sum(3 * -(-height // s) * -(-width // s) for s in (4, 8, 16, 32))


def without_strides(kernels, strides):
    return (1 + sum(k - 1 for k in kernels)) // 2


def whole_width(kernels, strides):
    size, jump = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        size, jump = size + (kernel - 1) * jump, jump * stride
    return size


def early(scores, size):
    return F.interpolate(scores.argmax(1)[:, None].float(), size=size)[:, 0].long()


def unsorted(boxes, scores, limit):
    return names()["suppress"](boxes, -torch.arange(len(scores)).float(), limit)


def all_at_once(boxes, scores, limit):
    import torchvision

    order = scores.argsort(descending=True)
    overlap = torchvision.ops.box_iou(boxes[order], boxes[order]).triu(1)
    return order[(overlap > limit).sum(0) == 0].tolist()


def without_envelope(scores, right, objects):
    order = np.argsort(-np.asarray(scores))
    hits = np.asarray(right, float)[order].cumsum()
    precision, recalls = hits / np.arange(1, len(hits) + 1), hits / objects
    points = [np.flatnonzero(recalls >= at - 1e-9) for at in np.linspace(0, 1, 101)]
    return float(np.mean([precision[at[0]] if len(at) else 0 for at in points]))


def of_those_found(scores, right, objects):
    return names()["average_precision"](scores, right, max(sum(right), 1))


def in_given_order(scores, right, objects):
    return names()["average_precision"](-np.arange(len(scores)), right, objects)


WRONG = [
    (1, "iou", recall, "recall"),
    (1, "iou", lambda m: recall(m.T), "precision"),
    (1, "iou", doubled, "twice"),
    (1, "iou", lambda m: torch.zeros(len(m)), "."),
    (1, "iou", lambda m: names()["iou"](m).nan_to_num(), "third class"),
    (2, "anchors", lambda h, w: names()["anchors"](h, w) / 3, "three shapes"),
    (2, "anchors", four_levels, "five levels"),
    (2, "anchors", floored, "rounded up"),
    (2, "anchors", lambda h, w: 0, "512"),
    (3, "reach_of", whole_width, "one side"),
    (3, "reach_of", without_strides, "stride of 4"),
    (3, "reach_of", lambda k, s: 0, "two layers"),
    (4, "class_map", early, "decided first"),
    (4, "class_map", lambda s, size: F.interpolate(s, size=size).argmax(1), "steps"),
    (4, "class_map", lambda s, size: F.interpolate(s, size=size, mode="bilinear"), "a number"),
    (4, "class_map", lambda s, size: torch.zeros(len(s), *size).long(), "."),
    (5, "suppress", unsorted, "best score"),
    (5, "suppress", all_at_once, "drops no other"),
    (5, "suppress", lambda b, s, limit: s.argsort(descending=True).tolist(), "."),
    (5, "suppress", lambda b, s, limit: [], "."),
    (5, "suppress", lambda b, s, limit: sorted(names()["suppress"](b, s, limit)), "."),
    (6, "average_precision", without_envelope, "beyond"),
    (6, "average_precision", of_those_found, "no box found"),
    (6, "average_precision", in_given_order, "sort"),
    (6, "average_precision", lambda s, r, n: 1.0, "none found"),
    (6, "average_precision", lambda s, r, n: 0.0, "all found"),
]


@pytest.mark.parametrize(("number", "name", "answer", "why"), WRONG)
def test_wrong_answers_do_not(number, name, answer, why):
    with pytest.raises(AssertionError, match=why):
        run_check(number, **{name: answer})
