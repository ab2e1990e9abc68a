"""The checks of the chapters that look inside: right answers pass, usual mistakes do not."""

import math

import numpy as np
import torch
from exercises import make_tests, solved

from paperrepro.analysis import erf
from paperrepro.analysis.shape_bias import decide, fraction, interval


def one_less(chapter, number, name):
    return lambda *case: solved(chapter, number)[name](*case) - 1


def even(step=2, strict=True, none=None):
    """The even field's ratio with sides 3, 3 + step, ..., or with an end that is not None."""

    def answer(side, t):
        for n in range(3, side, step):
            if n**2 / side**2 > t or (not strict and n**2 / side**2 >= t):
                return n**2 / side**2
        return none

    return answer


def linear(values, first=1, by=1):
    """The chapter's ratio without a logarithm, from another first square or in other steps."""

    def answer(given, t):
        field = values(given.double())
        h, w = field.shape
        for i in range(first, h // 2, by):
            inside = slice(h // 2 - i, h // 2 + 1 + i)
            if field[inside, inside].sum() / field.sum() > t:
                return (2 * i + 1) ** 2 / (h * w)

    return answer


def gradient(net, image, target):
    return solved("attribution", 2)["gradients"](net, image[None], target)[0]


def difference(first, second, same=True, order=1, ends=(2.5, 97.5), rows=None):
    dice = np.random.default_rng(0)
    gaps = []
    for _ in range(500):
        drawn = dice.integers(len(first), size=rows or len(first))
        again = drawn if same else dice.integers(len(first), size=len(first))
        gaps.append(order * (fraction(first.iloc[drawn]) - fraction(second.iloc[again])))
    return tuple(np.percentile(gaps, ends))


def biases(share):
    def answer(table):
        rows = table[table["category"] == "all"].set_index(["source", "name"])
        return share(rows)

    return answer


def taps(row):
    return lambda kernel, side: row(kernel, side) ** 2


def twins(mean=True, diagonal=0.0, signed=False):
    def answer(maps):
        vectors = maps[0].flatten(1)
        vectors = vectors - mean * vectors.mean(1, keepdim=True)
        unit = vectors / vectors.norm(dim=1, keepdim=True)
        alike = (unit @ unit.T).fill_diagonal_(diagonal)
        return ((alike if signed else alike.abs()).amax(1) > 0.9).float().mean()

    return answer


WRONG = {
    ("receptive-fields", 1): [
        {"spanning": lambda k: 0},
        {"spanning": lambda k: k // 3},
        {"spanning": lambda k: k // 2 + 1},
        {"matching": lambda k: 0},
        {"matching": lambda k: (k - 1) // 2},
        {"matching": lambda k: math.ceil(((k**2 - 1) / 8) ** 0.5)},
        {"matching": lambda k: k**2 // 9},
    ],
    ("receptive-fields", 2): [
        {"even_ratio": lambda side, t: t},
        {"even_ratio": lambda side, t: 0.0},
        {"even_ratio": even(step=1)},
        {"even_ratio": even(none=1.0)},
        {"even_ratio": lambda side, t: erf.area_ratios(torch.ones(256, 256), (t,))[t]},
    ],
    ("receptive-fields", 3): [
        {"links": lambda kind, side, k: 0},
        {"links": lambda kind, side, k: 5},
        {"links": one_less("receptive-fields", 3, "links")},
        {
            "links": lambda kind, side, k: (
                2 * math.ceil(side / k)
                if kind == "svga"
                else solved("receptive-fields", 3)["links"](kind, side, k)
            )
        },
        {"links": lambda kind, side, k: 5 if kind == "mgc" else 1 + 2 * (math.ceil(side / k) - 1)},
    ],
    ("receptive-fields", 4): [
        {"residual_width": lambda k, n: 0.0},
        {"residual_width": lambda k, n: math.sqrt(n * (k**2 - 1) / 12)},
        {"residual_width": lambda k, n: math.sqrt(n * (k**2 - 1) / 12) / 2},
        {"residual_width": lambda k, n: n * (k**2 - 1) / 24},
    ],
    ("receptive-fields", 5): [
        {"linear_ratio": lambda field, t: 0.0},
        {"linear_ratio": lambda field, t: t},
        {"linear_ratio": lambda field, t: erf.area_ratios(field, (t,))[t]},
        {"linear_ratio": linear(lambda field: field, first=0)},
        {"linear_ratio": linear(lambda field: field, first=2)},
    ],
    ("attribution", 1): [
        {"gradient": a, "integrated": b}
        for a, b in (
            ((0, 0), (0, 0)),
            ((2, 3), (3, 3)),
            ((3, 2), (6, 6)),
            ((3, 2), (1.5, 1)),
            ((3, 2), (2, 4)),
            ((3, 2), (3, 2)),
        )
    ],
    ("attribution", 2): [
        {"gradient_times_input": lambda net, image, target: torch.zeros_like(image[0])},
        {"gradient_times_input": lambda net, image, target: image * gradient(net, image, target)},
        {"gradient_times_input": lambda net, image, target: gradient(net, image, target).sum(0)},
        {
            "gradient_times_input": lambda net, image, target: (
                (image * gradient(net, image, target)).abs().sum(0)
            )
        },
        {
            "gradient_times_input": lambda net, image, target: (
                image * gradient(net, image, target)
            ).amax(0)
        },
        {
            "gradient_times_input": lambda net, image, target: (
                image * gradient(net, image, 0)
            ).sum(0)
        },
    ],
    ("attribution", 3): [
        {"integrated_from": lambda net, x, start, target, steps=20: torch.zeros_like(x[0])},
        {"integrated_from": lambda net, x, start, target, steps=20: x.square().sum(0)},
        {"integrated_from": lambda net, x, start, target, steps=20: (x * (x + start)).sum(0)},
        {"integrated_from": lambda net, x, start, target, steps=20: (x - start).square().sum(0)},
        {
            "integrated_from": lambda net, x, start, target, steps=20: (
                start.square() - x.square()
            ).sum(0)
        },
    ],
    ("attribution", 4): [
        {"middle_of": torch.zeros_like},
        {"middle_of": lambda map: map},
        {"middle_of": lambda map: -map},
        {"middle_of": lambda map: solved("attribution", 4)["middle_of"](map.abs())},
        {"middle_of": lambda map: -solved("attribution", 4)["middle_of"](map)},
    ],
    ("shape-bias", 1): [
        {"bias": a, "named_share": b}
        for a, b in (
            (0, 0),
            (25, 20),
            (40 / 120, 0.2),
            (0.2, 0.2),
            (0.75, 0.2),
            (0.25, 0.25),
            (0.25, 0.6),
        )
    ],
    ("shape-bias", 2): [
        {"texture_bias": biases(lambda rows: 0 * rows.n_shape)},
        {"texture_bias": biases(lambda rows: rows.shape_bias)},
        {"texture_bias": biases(lambda rows: 100 * (1 - rows.shape_bias))},
        {
            "texture_bias": biases(
                lambda rows: rows.n_texture / (rows.n_shape + rows.n_texture + rows.n_neither)
            )
        },
        {"texture_bias": biases(lambda rows: (1 - rows.shape_bias)[:5])},
    ],
    ("shape-bias", 3): [
        {"difference": lambda first, second: (0, 0)},
        {"difference": lambda first, second: difference(first, second, same=False)},
        {"difference": lambda first, second: difference(first, second, order=-1)},
        {"difference": lambda first, second: difference(first, second, ends=(97.5, 2.5))},
        {"difference": lambda first, second: difference(first, second, ends=(30, 70))},
        {"difference": lambda first, second: interval(first)},
    ],
    ("shape-bias", 4): [
        {"decide_by_sum": lambda logits: ["dog"] * len(logits)},
        {"decide_by_sum": decide},
        {"decide_by_max": decide},
        {"decide_by_max": lambda logits: ["dog"] * len(logits)},
        {"decide_by_max": lambda logits: ["dog", "dog", "truck", "bear"]},
        {"decide_by_sum": lambda logits: ["dog", "dog", "oven", "bear"]},
    ],
    ("shape-bias", 5): [
        {"seeds_needed": lambda gap, scatter: 0},
        {"seeds_needed": lambda gap, scatter: 20},
        {"seeds_needed": lambda gap, scatter: math.ceil(4 * (scatter / gap) ** 2)},
        {"seeds_needed": lambda gap, scatter: math.ceil(2 * (scatter / gap) ** 2)},
        {"seeds_needed": lambda gap, scatter: math.floor(8 * (scatter / gap) ** 2)},
        {"seeds_needed": lambda gap, scatter: 8 * (scatter / gap) ** 2},
    ],
    ("what-kernels-learn", 1): [
        {"needed": lambda filters: 0},
        {"needed": lambda filters: 1 / 9},
        {"needed": lambda filters: math.ceil(filters / 9)},
        {"needed": lambda filters: filters},
        {"needed": one_less("what-kernels-learn", 1, "needed")},
    ],
    ("what-kernels-learn", 2): [
        {"weights": lambda pair, c: 0},
        {"weights": lambda pair, c: c**2},
        {"weights": lambda pair, c: solved("what-kernels-learn", 2)["weights"](pair, c) + c},
        {"weights": lambda pair, c: solved("what-kernels-learn", 2)["weights"](pair, c) - c**2},
        {"weights": lambda pair, c: 9 * c**2 // 4 + c**2},
        {"weights": lambda pair, c: 9 * c**2 + c**2},
    ],
    ("what-kernels-learn", 3): [
        {"share_used": lambda kernel, side: 0.0},
        {"share_used": lambda kernel, side: 1.0},
        {"share_used": lambda kernel, side: min(kernel, 2 * side - 1) / kernel},
        {"share_used": taps(lambda kernel, side: min(kernel, side) / kernel)},
        {"share_used": taps(lambda kernel, side: (2 * side - 1) / kernel)},
    ],
    ("what-kernels-learn", 4): [
        {"twins": lambda maps: 0.0},
        {"twins": lambda maps: 1.0},
        {"twins": twins(diagonal=1.0)},
        {"twins": twins(signed=True)},
        {"twins": twins(mean=False)},
        {"twins": lambda maps: twins()(maps) * maps.shape[1]},
        {"twins": lambda maps: twins()(maps) / 2},
    ],
    ("what-kernels-learn", 5): [
        {"choose": lambda x, y: range(8)},
        {"choose": lambda x, y: [0] * 8},
        {"choose": lambda x, y: [3, 5]},
        {"choose": lambda x, y: solved("what-kernels-learn", 5)["choose"](x, y).flip(0)},
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)
