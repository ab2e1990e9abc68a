"""The checks of the exercises of two chapters: right answers pass, usual mistakes do not."""

import math

import numpy as np
import torch
from exercises import make_tests

from paperrepro.complexity import count_parameters


def weights_only(network, bits):
    return sum(p.numel() for n, p in network.named_parameters() if "bias" not in n) * bits / 8e6


def sizes(shapes):
    return [4 * math.prod(shape) for shape in shapes]


def any_difference(first, second, images, tolerance):
    a, b = first(images), second(images)
    return not bool((a - b).abs().max() > tolerance * a.std())


def of_rounds(times, trim):
    return np.mean(np.sort(np.mean(times, 1))[trim : len(times) - trim])


WRONG = {
    ("deployment", 1): [
        {"megabytes": lambda network, bits: 0},
        {"megabytes": weights_only},
        {"megabytes": lambda network, bits: count_parameters(network) * bits / 1e6},
        {"megabytes": lambda network, bits: count_parameters(network) * bits / 8 / 2**20},
        {"megabytes": lambda network, bits: count_parameters(network) / 1e6},
    ],
    ("deployment", 2): [
        {"best_batch": lambda ms, budget: max(ms)},
        {"best_batch": lambda ms, budget: min(ms)},
        {"best_batch": lambda ms, budget: max((b for b in ms if ms[b] <= budget), default=None)},
        {
            "best_batch": lambda ms, budget: max(
                (b for b in ms if ms[b] < budget), key=lambda b: b / ms[b]
            )
        },
        {"best_batch": lambda ms, budget: 8},
    ],
    ("deployment", 3): [
        {"peak_bytes": lambda shapes: 0},
        {"peak_bytes": lambda shapes: sum(sizes(shapes))},
        {"peak_bytes": lambda shapes: max(sizes(shapes))},
        {
            "peak_bytes": lambda shapes: (
                (sizes(shapes)[1] + sizes(shapes)[2]) // 4 if len(shapes) > 1 else 0
            )
        },
        {
            "peak_bytes": lambda shapes: (
                sizes(shapes)[1] + sizes(shapes)[2] if len(shapes) > 1 else 0
            )
        },
    ],
    ("deployment", 4): [
        {"pareto": lambda points: []},
        {"pareto": lambda points: list(points)},
        {"pareto": lambda points: sorted(points, key=lambda n: points[n])},
        {"pareto": lambda points: ["a", "b", "c"] if len(points) > 1 else list(points)},
        {"pareto": lambda points: ["b", "f", "a", "c"]},
    ],
    ("deployment", 5): [
        {"same_network": lambda *given: True},
        {"same_network": lambda *given: False},
        {"same_network": any_difference},
        {"same_network": lambda f, g, x, t: bool((f(x) - g(x)).abs().max() <= t)},
        {"same_network": lambda f, g, x, t: torch.equal(f(x).argmax(1), g(x).argmax(1))},
    ],
    ("export-to-iphone", 1): [
        {"fits_half": lambda values: True},
        {"fits_half": lambda values: False},
        {"fits_half": lambda values: bool(values.abs().max() <= 65504)},
        {"fits_half": lambda values: bool(values.max() < 65520)},
        {"fits_half": lambda values: bool(values.half().isfinite().all())},
        {"fits_half": lambda values: not bool((values.abs() >= 65520).any())},
    ],
    ("export-to-iphone", 2): [
        {"trimmed_mean": lambda times, trim: 0.0},
        {"trimmed_mean": lambda times, trim: np.mean(times)},
        {
            "trimmed_mean": lambda times, trim: np.mean(
                np.array(times)[:, trim : len(times[0]) - trim]
            )
        },
        {"trimmed_mean": lambda times, trim: np.mean(np.sort(np.ravel(times))[500:-500])},
        {"trimmed_mean": of_rounds},
        {"trimmed_mean": lambda times, trim: np.mean(np.sort(times, 1)[:, 10:-10])},
    ],
    ("export-to-iphone", 3): [
        {"palette_bytes": lambda count, bits: 0},
        {"palette_bytes": lambda count, bits: count * bits / 8},
        {"palette_bytes": lambda count, bits: count * bits / 8 + 2**bits},
        {"palette_bytes": lambda count, bits: count * bits / 8 + 4 * 2**bits},
        {"palette_bytes": lambda count, bits: count * bits / 8 + 2 * 2**bits},
        {"palette_bytes": lambda count, bits: count * bits // 8 + 2 * 2**bits},
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)
