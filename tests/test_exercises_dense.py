"""The checks of the chapter on dense prediction: right answers pass, usual mistakes do not."""

import numpy as np
import torch
from exercises import make_tests, solved
from torch.nn import functional as F

CHAPTER = "dense-prediction"


def solution(number, name):
    return lambda *case: solved(CHAPTER, number)[name](*case)


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
    return solution(5, "suppress")(boxes, -torch.arange(len(scores)).float(), limit)


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
    return solution(6, "average_precision")(scores, right, max(sum(right), 1))


def in_given_order(scores, right, objects):
    return solution(6, "average_precision")(-np.arange(len(scores)), right, objects)


WRONG = {
    (CHAPTER, 1): [
        ({"iou": recall}, "recall"),
        ({"iou": lambda m: recall(m.T)}, "precision"),
        ({"iou": doubled}, "twice"),
        ({"iou": lambda m: torch.zeros(len(m))}, "."),
        ({"iou": lambda m: solution(1, "iou")(m).nan_to_num()}, "third class"),
    ],
    (CHAPTER, 2): [
        ({"anchors": lambda h, w: solution(2, "anchors")(h, w) / 3}, "three shapes"),
        ({"anchors": four_levels}, "five levels"),
        ({"anchors": floored}, "rounded up"),
        ({"anchors": lambda h, w: 0}, "512"),
    ],
    (CHAPTER, 3): [
        ({"reach_of": whole_width}, "one side"),
        ({"reach_of": without_strides}, "stride of 4"),
        ({"reach_of": lambda k, s: 0}, "two layers"),
    ],
    (CHAPTER, 4): [
        ({"class_map": early}, "decided first"),
        ({"class_map": lambda s, size: F.interpolate(s, size=size).argmax(1)}, "steps"),
        ({"class_map": lambda s, size: F.interpolate(s, size=size, mode="bilinear")}, "a number"),
        ({"class_map": lambda s, size: torch.zeros(len(s), *size).long()}, "."),
    ],
    (CHAPTER, 5): [
        ({"suppress": unsorted}, "best score"),
        ({"suppress": all_at_once}, "drops no other"),
        ({"suppress": lambda b, s, limit: s.argsort(descending=True).tolist()}, "."),
        ({"suppress": lambda b, s, limit: []}, "."),
        ({"suppress": lambda b, s, limit: sorted(solution(5, "suppress")(b, s, limit))}, "."),
    ],
    (CHAPTER, 6): [
        ({"average_precision": without_envelope}, "beyond"),
        ({"average_precision": of_those_found}, "no box found"),
        ({"average_precision": in_given_order}, "sort"),
        ({"average_precision": lambda s, r, n: 1.0}, "none found"),
        ({"average_precision": lambda s, r, n: 0.0}, "all found"),
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)
