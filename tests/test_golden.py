"""The thirty networks compute today what they computed when they equalled the released code.

Counts of parameters cannot see a flipped sign, another activation or another distance of a graph.
So golden.json freezes logits of every network, with weights that depend on nothing but the names
and shapes of the weights. A change that is meant, and checked against the released code, is
recorded by

    python tests/test_golden.py NAME...     # the networks that changed; without names, all
"""

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from paperrepro import list_models
from paperrepro.models import build_model

FILE = Path(__file__).with_name("golden.json")
SIDES = {"replknet_31l": (64, 32), "replknet_xl": (64, 32)}
"""Height and width of the image where 128 x 160 would take long. No network with a graph stands
here: on a side of n pixels K connects the same as n - K, and with 96 pixels 8 the same as 4."""
BRANCH = re.compile(r"(.*\.(?:conv|large_kernel))\.(?:skip|scale|conv\d|large|small)(?:\.norm)?")
RESIDUAL_END = re.compile(r".*\.(?:(?:fc2|pw2|project)\.norm|project)")


def noise(key: str, shape: torch.Size) -> torch.Tensor:
    """Uniform between -1 and 1, and for each key its own."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
    return torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))


def golden_model(name: str) -> nn.Module:
    """The network in eval mode, with weights that keep the signal near 1 from layer to layer: only
    there do biases count and activations differ."""
    with torch.device("meta"):
        model = build_model(name)
    model = model.to_empty(device="cpu").eval()
    state = model.state_dict()
    norms = [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]
    branches = Counter(match[1] for norm in norms if (match := BRANCH.fullmatch(norm)))
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if kind == "num_batches_tracked":
            value.zero_()
            continue
        value.copy_(noise(key, value.shape))
        if kind in ("bias", "running_mean"):
            value.mul_(0.3)
        elif kind == "running_var" or layer in norms or value.dim() == 3:  # 3: a layer scale
            value.mul_(0.5).add_(1)
        else:
            value.mul_((4.5 / value[0].numel()) ** 0.5)
        if kind == "weight" and layer in norms and (match := BRANCH.fullmatch(layer)):
            value.div_(branches[match[1]] ** 0.5)
        if kind == "weight" and RESIDUAL_END.fullmatch(layer):
            value.mul_(0.3)
    return model


def golden(name: str) -> list[float]:
    """Sixteen logits of the network, and the norm of all of them."""
    images = noise("images", (1, 3, *SIDES.get(name, (128, 160)))) * 3**0.5
    with torch.inference_mode():
        logits = golden_model(name)(images)[0]
    return [*logits[::63].tolist(), logits.norm().item()]


def test_noise_is_the_same_with_every_pytorch():
    """Where this fails, the tests below fail too, and say nothing about the networks."""
    first = [-0.80495095, -0.71783793, 0.44662988]
    assert noise("images", (3,)).tolist() == pytest.approx(first, abs=1e-7)


@pytest.mark.parametrize("name", list_models())
def test_logits_are_the_golden_ones(name):
    expected = json.loads(FILE.read_text())[name]
    typical = expected[-1] / 1000**0.5
    assert golden(name) == pytest.approx(expected, rel=1e-4, abs=1e-4 * typical)


def update(names: list[str]) -> None:
    values = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or list_models():
        values[name] = [float(f"{value:.7g}") for value in golden(name)]
    rows = [f'"{name}": {json.dumps(values[name])}' for name in list_models()]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    update(sys.argv[1:])
