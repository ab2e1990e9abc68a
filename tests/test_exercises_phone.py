"""The checks of the exercises of two chapters: right answers pass, usual mistakes do not."""

import math
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from paperrepro.complexity import count_parameters

SOLUTIONS = Path(__file__).parents[1] / "book" / "solutions"
NEEDED = {"deployment": ("setup", "memory-meter"), "export-to-iphone": ("trace",)}


@cache
def cells(chapter):
    notebook = nbformat.read(SOLUTIONS / f"{chapter}.ipynb", as_version=4)
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}


def run_check(chapter, number, answer):
    from paperrepro.export.protocols import PROTOCOLS, latency

    names = dict(np=np, torch=torch, nn=nn, math=math, PROTOCOLS=PROTOCOLS, latency=latency)
    for cell in NEEDED[chapter]:
        exec(cells(chapter)[cell], names)
    if answer is None:
        import paperrepro

        names["paperrepro"] = paperrepro
        exec(cells(chapter)[f"answer-{number}"], names)
    else:
        names[ASKED[chapter, number]] = answer
    exec(cells(chapter)[f"check-{number}"], names)


ASKED = {
    ("deployment", 1): "megabytes",
    ("deployment", 2): "best_batch",
    ("deployment", 3): "peak_bytes",
    ("deployment", 4): "pareto",
    ("deployment", 5): "same_network",
    ("export-to-iphone", 1): "fits_half",
    ("export-to-iphone", 2): "trimmed_mean",
    ("export-to-iphone", 3): "palette_bytes",
}


@pytest.mark.parametrize(("chapter", "number"), ASKED)
def test_right_answers_pass(chapter, number, capsys):
    run_check(chapter, number, None)
    assert capsys.readouterr().out.endswith("correct\n")


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
        lambda network, bits: 0,
        weights_only,
        lambda network, bits: count_parameters(network) * bits / 1e6,
        lambda network, bits: count_parameters(network) * bits / 8 / 2**20,
        lambda network, bits: count_parameters(network) / 1e6,
    ],
    ("deployment", 2): [
        lambda ms, budget: max(ms),
        lambda ms, budget: min(ms),
        lambda ms, budget: max((b for b in ms if ms[b] <= budget), default=None),
        lambda ms, budget: max((b for b in ms if ms[b] < budget), key=lambda b: b / ms[b]),
        lambda ms, budget: 8,
    ],
    ("deployment", 3): [
        lambda shapes: 0,
        lambda shapes: sum(sizes(shapes)),
        lambda shapes: max(sizes(shapes)),
        lambda shapes: (sizes(shapes)[1] + sizes(shapes)[2]) // 4 if len(shapes) > 1 else 0,
        lambda shapes: sizes(shapes)[1] + sizes(shapes)[2] if len(shapes) > 1 else 0,
    ],
    ("deployment", 4): [
        lambda points: [],
        lambda points: list(points),
        lambda points: sorted(points, key=lambda n: points[n]),
        lambda points: ["a", "b", "c"] if len(points) > 1 else list(points),
        lambda points: ["b", "f", "a", "c"],
    ],
    ("deployment", 5): [
        lambda *given: True,
        lambda *given: False,
        any_difference,
        lambda f, g, x, t: bool((f(x) - g(x)).abs().max() <= t),
        lambda f, g, x, t: torch.equal(f(x).argmax(1), g(x).argmax(1)),
    ],
    ("export-to-iphone", 1): [
        lambda values: True,
        lambda values: False,
        lambda values: bool(values.abs().max() <= 65504),
        lambda values: bool(values.max() < 65520),
        lambda values: bool(values.half().isfinite().all()),
        lambda values: not bool((values.abs() >= 65520).any()),
    ],
    ("export-to-iphone", 2): [
        lambda times, trim: 0.0,
        lambda times, trim: np.mean(times),
        lambda times, trim: np.mean(np.array(times)[:, trim : len(times[0]) - trim]),
        lambda times, trim: np.mean(np.sort(np.ravel(times))[500:-500]),
        of_rounds,
        lambda times, trim: np.mean(np.sort(times, 1)[:, 10:-10]),
    ],
    ("export-to-iphone", 3): [
        lambda count, bits: 0,
        lambda count, bits: count * bits / 8,
        lambda count, bits: count * bits / 8 + 2**bits,
        lambda count, bits: count * bits / 8 + 4 * 2**bits,
        lambda count, bits: count * bits / 8 + 2 * 2**bits,
        lambda count, bits: count * bits // 8 + 2 * 2**bits,
    ],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("chapter", "number", "answer"),
    [(*exercise, answer) for exercise, answers in WRONG.items() for answer in answers],
)
def test_wrong_answers_fail_and_say_why(chapter, number, answer):
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=r"\w"):
        run_check(chapter, number, answer)
