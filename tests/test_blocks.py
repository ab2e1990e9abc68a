"""MobileOne's Tables 1b and 3: dynamic activations by known answers, networks, timings."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paperrepro.benchmark import blocks
from paperrepro.benchmark.blocks import (
    ACTIVATIONS,
    FORMATS,
    Coefficients,
    DynamicReLU,
    DynamicShiftMax,
    network,
)
from paperrepro.complexity import count_macs
from paperrepro.results import load_result

DYNAMIC = {
    "DynamicReLU-A": DynamicReLU(8, shared=True),
    "DynamicReLU-B": DynamicReLU(8, shared=False),
    "Dynamic Shift-Max": DynamicShiftMax(8, groups=4),
}


class Fixed(nn.Module):
    """Coefficients that do not depend on the image."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = torch.tensor(values).view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.values


@pytest.mark.parametrize("name", DYNAMIC)
def test_at_the_initial_coefficients_it_is_relu(name):
    layer = DYNAMIC[name]
    x = torch.randn(2, 8, 5, 6)
    assert not torch.allclose(layer(x), F.relu(x))
    nn.init.zeros_(layer.coefficients[3].weight)
    nn.init.zeros_(layer.coefficients[3].bias)
    assert torch.equal(layer(x), F.relu(x))


def test_dynamic_relu_by_hand():
    """y = max(1.5 x + 0.1, -0.25 x - 0.2)."""
    layer = DynamicReLU(2, shared=True)
    layer.coefficients = Fixed([0.5, -0.25, 0.2, -0.4])
    x = torch.tensor([-4.0, 0.0, 2.0]).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    expected = torch.tensor([0.8, 0.1, 3.1]).expand(1, 2, 1, 3)
    torch.testing.assert_close(layer(x), expected)


def test_dynamic_relu_b_has_lines_of_its_own_for_each_channel():
    layer = DynamicReLU(2, shared=False)
    layer.coefficients = Fixed([1.0, 0.0] + [-0.5, 0.0] + [0.0, 0.6] + [0.0, 0.0])
    x = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]).view(1, 2, 1, 2)
    # channel 0: max(2 x, -0.5 x); channel 1: max(x + 0.3, 0)
    expected = torch.tensor([[0.5, 2.0], [0.0, 1.3]]).view(1, 2, 1, 2)
    torch.testing.assert_close(layer(x), expected)


def test_shift_max_by_hand():
    """Six channels in three groups: channel i meets channel i + 2, the last two the first two."""
    layer = DynamicShiftMax(6, groups=3)
    own1, other1, own2, other2 = [-0.5] * 6, [0.5] * 6, [0.25] * 6, [0.0] * 6
    layer.coefficients = Fixed(own1 + other1 + own2 + other2)
    x = torch.tensor([1.0, 2.0, 3.0, -4.0, -5.0, 6.0]).view(1, 6, 1, 1)
    # doubled: max(0 x_i + 1 x_(i + 2), 0.5 x_i)
    expected = torch.tensor([3.0, 1.0, 1.5, 6.0, 1.0, 3.0]).view(1, 6, 1, 1)
    torch.testing.assert_close(layer(x), expected)


def test_shift_max_of_one_group_shifts_by_nothing():
    layer = DynamicShiftMax(3, groups=1)
    layer.coefficients = Fixed([0.0] * 3 + [0.5] * 3 + [-0.25] * 6)
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(layer(x), torch.maximum(2 * x, -x))


def test_shift_max_needs_groups_that_divide_the_channels():
    with pytest.raises(ValueError, match="10 channels .*4 groups"):
        DynamicShiftMax(10, groups=4)


def test_coefficients_depend_on_each_image_alone():
    coefficients = Coefficients(8, 5, reduction=4)
    nn.init.normal_(coefficients[3].weight, std=5)
    x = torch.randn(3, 8, 6, 6)
    together = coefficients(x)
    assert together.shape == (3, 5, 1, 1) and (together.abs() < 1).all()
    assert not torch.allclose(together[0], together[1])
    alone = torch.cat([coefficients(image[None]) for image in x])
    torch.testing.assert_close(together, alone)
    shuffled = x.flatten(2)[:, :, torch.randperm(36)].view_as(x)
    torch.testing.assert_close(together, coefficients(shuffled))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_keep_the_shape(activation):
    x = torch.randn(2, 32, 5, 6)
    out = ACTIVATIONS[activation](32)(x)
    assert out.shape == x.shape and out.isfinite().all()


@pytest.mark.parametrize("skip", (False, True))
@pytest.mark.parametrize("kind", blocks.WIDTHS)
def test_networks_have_thirty_convolutions(kind, skip):
    model = network(kind, skip=skip)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 30
    skips = sum(isinstance(module, nn.Identity) for module in model.modules())
    fit = sum(conv.in_channels == conv.out_channels and conv.stride == (1, 1) for conv in convs)
    assert skips == (fit if skip else 0)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, blocks.WIDTHS[kind][-1], 2, 2)


def test_dense_network_by_hand():
    """Six 3 x 3 convolutions a stage: the first from half the channels, but for the image's 3."""
    expected, before = 0, 3
    for width, side in zip((16, 32, 64, 128, 256), (112, 56, 28, 14, 7), strict=True):
        expected += side**2 * 9 * (before * width + 5 * width**2)
        before = width
    assert count_macs(network("dense")) == expected


def test_separable_network_by_hand():
    """Three pairs a stage: depthwise on what comes in, then pointwise to the stage's width."""
    expected, before = 112**2 * (9 * 3 * 32 - 9 * 32), 32
    for width, side in zip((32, 64, 128, 256, 512), (112, 56, 28, 14, 7), strict=True):
        expected += side**2 * (9 * (before + 2 * width) + before * width + 2 * width**2)
        before = width
    assert count_macs(network("separable")) == expected


def test_skip_adds_the_input_of_each_convolution():
    model = network("dense", skip=True)
    layer = model[1]
    nn.init.zeros_(layer.sum["conv"].weight)
    nn.init.zeros_(layer.sum["conv"].bias)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(layer(x), F.relu(x))


@pytest.mark.parametrize(
    "wrong, message",
    [({"kind": "round"}, "'round'"), ({"activation": "relu7"}, "'SE-ReLU'")],
)
def test_unknown_names(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**({"kind": "dense"} | wrong))


def test_run_has_a_row_for_each_block(monkeypatch):
    monkeypatch.setattr(blocks, "WIDTHS", {"separable": (16,) * 5})
    table = blocks.run(quick=True, progress=False)
    assert list(table.activation) == [*ACTIVATIONS, "ReLU", "SE-ReLU"]
    assert list(table.skip) == [False] * 7 + [True] * 2
    relu = table.iloc[0]
    assert relu.over_relu == 1
    assert table.over_relu.to_numpy() == pytest.approx(table.ms.to_numpy() / relu.ms)


def test_stored_tables():
    """What of Table 3 holds on a CPU by a wide margin: the dynamic activations are the slow ones.
    Their factors do not: 37 to 179 on the phone."""
    table = load_result("blocks").table
    assert len(table) == 9 * 2 * 2 * len(FORMATS)
    cells = table[~table["skip"]].pivot(
        index=["network", "batch", "memory_format"], columns="activation", values="over_relu"
    )
    dynamic = cells[[name for name in ACTIVATIONS if name.startswith("Dynamic")]]
    assert (dynamic.min(axis=1) > cells[["GELU", "SiLU"]].max(axis=1)).all()
    assert (dynamic.loc["separable"] > 1.5).all(axis=None)
    assert (dynamic < 10).all(axis=None)
