"""What the figures of stored measurements show: their numbers, and the same in words."""

from functools import cache
from typing import Any

import numpy as np

from ..benchmark.deployment import waits
from ..claims.ablations import differences
from ..claims.compare import call, compare, level_of
from ..claims.outcomes import load_outcomes
from ..results import load_correct, load_result

COMPARED = ("LayerNorm", "ReLU", "r = 1/2", "r = 1/8")
BASE = "r = 1/4"


@cache
def interval() -> dict[str, Any]:
    """FasterNet's comparisons (Table 5), as they would have stood with fewer seeds."""
    outcomes = load_outcomes().query("result == 'experiment-fasternet-block'")
    papers = outcomes.set_index("statement")["paper"]
    level = level_of([one.ours.p for one in differences()])
    correct = load_correct("fasternet-block")
    rows = []
    for label in COMPARED:
        paper = float(papers[f"{label} against {BASE}"])
        states = []
        for seeds in range(2, len(correct[BASE]) + 1):
            kept = {name: correct[name][:seeds] for name in (label, BASE)}
            found = compare(kept, {label: 1, BASE: -1})
            low, high = found.interval(level)
            visible = found.visible(level)
            numbers = [round(value, 2) for value in (found.difference, low, high, visible)]
            states.append([*numbers, call(paper, low, high, visible)])
        each = 100 * (correct[label].mean(1) - correct[BASE].mean(1))
        rows.append(
            {"name": label, "paper": paper, "seeds": each.round(2).tolist(), "states": states}
        )
    return {"base": BASE, "level": round(100 * level, 1), "rows": rows}


def say_interval() -> str:
    words = "; ".join(
        f"{row['name']} {row['states'][1][0]:.2f} ({row['states'][1][4]})"
        for row in interval()["rows"]
    )
    return (
        f"Differences in accuracy from {BASE} after 3 seeds, with their intervals: {words}. "
        "More seeds make the intervals and the smallest visible difference smaller."
    )


RATES = (10, 20, 40, 60, 80, 85, 100, 150, 200, 250, 300, 315, 350, 400, 500, 590, 650, 700)
FORMS = {
    "eager": "PyTorch, eager",
    "onnxruntime": "ONNX Runtime",
    "executorch": "ExecuTorch",
    "onnxruntime int8": "ONNX Runtime, int8",
    "executorch int8": "ExecuTorch, int8",
}
FULL = 0.97
"""Of what a server can do: beyond it 20,000 requests are too few to find its 99th percentile."""


@cache
def waiting() -> dict[str, Any]:
    """MobileOne-S0 at one server: ms from a request to its answer, by requests in a second."""
    table = load_result("deployment").table.query("network == 'mobileone_s0'").set_index("form")
    forms = []
    for form, name in FORMS.items():
        row = table.loc[form]
        ends = row[["p50_ms", "p50_ms", "p95_ms", "p99_ms", "p99_ms"]].astype(float)
        service = np.interp((np.arange(300) + 0.5) / 300, [0, 0.5, 0.95, 0.99, 1], ends)
        loads = [rate * service.mean() / 1000 for rate in RATES]
        found = [
            np.percentile(waits(service, load), (50, 99)).round(2).tolist()
            for load in loads
            if load <= FULL
        ]
        forms.append({"name": name, "ms": round(float(service.mean()), 3), "answers": found})
    return {"rates": RATES, "forms": forms}


def say_waiting() -> str:
    parts = []
    for form in waiting()["forms"]:
        median, slow = form["answers"][RATES.index(60)]
        parts.append(f"{form['name']} {median:.1f} and {slow:.1f} ms")
    return (
        "MobileOne-S0 at 60 requests in a second, the median and the 99th percentile of waiting "
        f"and computing: {'; '.join(parts)}."
    )


SHOWN = {
    "caffe_and_humans/alexnet": "AlexNet (2012)",
    "caffe_and_humans/vgg": "VGG-16 (2014)",
    "caffe_and_humans/googlenet": "GoogLeNet (2014)",
    "torchvision/resnet50": "ResNet-50 (2015)",
    "torchvision/densenet121": "DenseNet-121 (2016)",
    "torchvision/squeezenet1-1": "SqueezeNet 1.1 (2016)",
}


@cache
def bias() -> dict[str, Any]:
    """The published decisions of Geirhos et al. (2019), counted by `paperrepro shape-bias`."""
    table = load_result("shape-bias-public").table
    keys = table["source"] + "/" + table["name"]
    counts = {
        key: rows.set_index("category")[["n_shape", "n_texture", "n_neither"]]
        for key, rows in table.groupby(keys)
    }
    people = counts["caffe_and_humans/humans"]
    return {
        "categories": people.index.tolist(),
        "names": SHOWN,
        "people": people.to_numpy().tolist(),
        "networks": {key: counts[key].loc[people.index].to_numpy().tolist() for key in SHOWN},
    }


def say_bias() -> str:
    found = bias()
    key, name = next(iter(SHOWN.items()))
    shape, texture, neither = found["networks"][key][0]
    ours, theirs = found["people"][0][:2], (shape, texture)
    shares = [round(100 * one[0] / sum(one)) for one in (theirs, ours)]
    return (
        f"{name}: {shape} decisions for the shape, {texture} for the texture, {neither} for "
        f"neither: a shape bias of {shares[0]} %; people have {shares[1]} %."
    )
