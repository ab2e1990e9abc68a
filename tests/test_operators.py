"""FasterNet's operators: its equations, PConv's forms, the T-shaped convolution, Tables 1 and 9."""

import copy

import pandas as pd
import pytest
import torch
from conftest import randomize, relative_difference
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from paperrepro.benchmark import operators
from paperrepro.benchmark.operators import (
    FORMATS,
    FORMS,
    OPERATORS,
    SIZES,
    InPlacePConv,
    conv_macs,
    conv_memory,
    pconv_pointwise_macs,
    size_of,
    stack,
    t_shaped,
    t_shaped_macs,
)
from paperrepro.complexity import count_moved
from paperrepro.models import build_model
from paperrepro.models.fasternet import PConv
from paperrepro.results import load_result


def counted(function, *args) -> int:
    """Multiply-adds by torch's counter."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        function(*args)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("channels, side", SIZES)
def test_equations_count_what_the_operator_does(operator, channels, side):
    layer = OPERATORS[operator](channels)
    macs, memory = size_of(operator, channels, side)
    assert counted(layer, torch.randn(1, channels, side, side)) == macs
    conv = layer.conv if operator == "PConv" else layer
    moved = (conv.in_channels + conv.out_channels) * side**2 + conv.weight.numel()
    assert memory == moved


def test_numbers_moved_by_a_network_are_the_sum_of_its_equations():
    dense, depthwise = OPERATORS["Conv"](8), OPERATORS["DWConv"](8)
    network = nn.Sequential(dense, nn.BatchNorm2d(8), nn.ReLU(), depthwise).train()
    network.in_chans = 8
    expected = conv_memory(14, 14, 8) + conv_memory(14, 14, 8, groups=8)
    assert count_moved(network, 14) == expected
    assert network.training
    network.append(nn.Flatten()).append(nn.Linear(8 * 14**2, 5))
    assert count_moved(network, 14) == expected + 8 * 14**2 * 6 + 5 + 5


def test_the_roof_is_tried_by_several_programs():
    roof = operators.roof()
    assert roof["limit"].value_counts().min() >= 2
    assert set(roof["limit"]) == {"arithmetic", "cache", "memory"}
    assert (roof["g_per_s"] > 0).all()


# Table 1's column "FLOPs (M), x10 layers", which cuts instead of rounding.
@pytest.mark.parametrize(
    "operator, printed",
    [
        ("Conv", (2601, 2601, 2601, 2601)),
        ("GConv", (162, 162, 162, 162)),
        ("DWConv", (27.09, 13.54, 6.77, 3.38)),
        ("PConv", (162, 162, 162, 162)),
    ],
)
def test_flops_are_the_papers(operator, printed):
    for (channels, side), value in zip(SIZES, printed, strict=True):
        ours = 10 * size_of(operator, channels, side)[0] / 1e6
        assert 0 <= ours - value < (0.01 if operator == "DWConv" else 1)


def test_the_papers_ratios():
    """Section 3.2: with r = 1/4 a PConv has 1/16 of the multiply-adds, 1/4 of the memory access."""
    h, w, c = 56, 56, 96
    assert 16 * conv_macs(h, w, c // 4) == conv_macs(h, w, c)
    assert 4 * (conv_memory(h, w, c // 4) - 9 * 24**2) == conv_memory(h, w, c) - 9 * 96**2


def pair(c: int, c_p: int, out: int, bias: bool) -> tuple[PConv, nn.Conv2d]:
    pconv = PConv(c, n_div=c // c_p).double()
    return pconv, nn.Conv2d(c, out, 1, bias=bias).double()


@pytest.mark.parametrize(
    "c, c_p, out, bias", [(16, 4, 16, False), (12, 6, 20, True), (8, 8, 4, True)]
)
def test_t_shaped_equals_pconv_and_pointwise(c, c_p, out, bias):
    pconv, pointwise = pair(c, c_p, out, bias)
    x = torch.randn(2, c, 9, 7, dtype=torch.float64)
    dense = t_shaped(pconv, pointwise)
    torch.testing.assert_close(dense(x), pointwise(pconv(x)), rtol=0, atol=1e-13)
    around = dense.weight[:, c_p:].clone()
    around[:, :, 1, 1] = 0
    assert not around.any()  # a T: the untouched channels have their centre alone


def test_equations_6_and_7_by_the_counter():
    h, w, c, c_p = 14, 10, 16, 4
    pconv, pointwise = pair(c, c_p, c, bias=False)
    dense = t_shaped(pconv, pointwise)
    x = torch.randn(1, c, h, w, dtype=torch.float64)

    def t_in_two_parts(x):
        wide, thin = x.tensor_split([c_p], dim=1)
        weights = dense.weight[:, :c_p], dense.weight[:, c_p:, 1:2, 1:2]
        return F.conv2d(wide, weights[0], padding=1) + F.conv2d(thin, weights[1])

    torch.testing.assert_close(t_in_two_parts(x), dense(x), rtol=0, atol=1e-13)
    assert counted(t_in_two_parts, x) == t_shaped_macs(h, w, c, c_p)
    both = counted(lambda x: pointwise(pconv(x)), x)
    assert both == pconv_pointwise_macs(h, w, c, c_p) < t_shaped_macs(h, w, c, c_p)
    assert both - h * w * (9 * c_p**2 + c * c_p) == h * w * c * (c - c_p)  # what Eq. 7 leaves out


def test_forms_of_pconv_agree_and_one_overwrites():
    x = torch.randn(2, 16, 8, 8)
    reference = PConv(16)
    expected = reference(x)
    for name, form in FORMS.items():
        layer = form(16)
        layer.load_state_dict(reference.state_dict())
        given = x.clone()
        with torch.no_grad():
            assert torch.equal(layer(given), expected)
        assert torch.equal(given, x) == (name != "in_place")


def test_listing_1_changes_the_network():
    """In a block the shortcut is the very tensor that Listing 1 overwrites."""
    model = randomize(build_model("fasternet_t0"))
    overwriting = copy.deepcopy(model)
    for module in overwriting.modules():
        if isinstance(module, PConv):
            module.__class__ = InPlacePConv
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative_difference(model(images), overwriting(images)) > 0.1
    with pytest.raises(RuntimeError, match="inplace operation|in-place operation"):
        overwriting.train()(torch.randn(2, 3, 64, 64)).sum().backward()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_ten_layers_keep_their_values(operator, format):
    """However often they are called, so that no vanished or overflowing number is timed."""
    call = stack(OPERATORS[operator], 32, 7, batch=2, format=format)
    first = call().clone()
    for _ in range(20):
        last = call()
    assert first.shape == (2, 32, 7, 7)
    assert last.is_contiguous(memory_format=FORMATS[format])
    torch.testing.assert_close(last, first)
    assert 0.8 < first.std() < 1.2


def test_run_has_a_row_for_each_cell(monkeypatch):
    monkeypatch.setattr(operators, "SIZES", ((32, 8), (64, 4)))
    table = operators.run(quick=True, progress=False)
    assert list(table.operator) == list(OPERATORS) * 2
    assert set(table.memory_format) == {"nchw"} and set(table.batch) == {1}
    row = table[(table.operator == "Conv") & (table.channels == 64)].iloc[0]
    assert row.mmacs == pytest.approx(10 * 4 * 4 * 9 * 64**2 / 1e6)
    assert row.gmacs_per_s == pytest.approx(row.mmacs / row.ms)
    assert (table.ms > 0).all() and table.null.between(0.2, 5).all()


def test_forms_has_a_row_for_each_cell(monkeypatch):
    monkeypatch.setattr(operators, "SIZES", ((32, 8), (64, 4)))
    table = operators.forms(quick=True, progress=False)
    assert list(table.form) == list(FORMS) * 2
    assert (table.over_split_cat[table.form == "split_cat"] == 1).all()
    slicing = table[table.form == "slicing"].ms.to_numpy()
    split = table[table.form == "split_cat"].ms.to_numpy()
    assert table.over_split_cat[table.form == "slicing"].to_numpy() == pytest.approx(
        split / slicing
    )


def stored(name: str) -> pd.DataFrame:
    return load_result(name).table


def test_stored_table_1():
    """What of Table 1 holds on a CPU by a wide margin. PConv's lead over DWConv needs NCHW: in
    channels_last DWConv is two to four times faster than in NCHW."""
    table = stored("operators")
    assert len(table) == 3 * len(SIZES) * len(FORMATS) * len(OPERATORS)
    cells = table.pivot(
        index=["memory_format", "batch", "side"], columns="operator", values=["gmacs_per_s", "ms"]
    )
    speed, time = cells["gmacs_per_s"], cells["ms"]
    assert (speed.Conv > 2.5 * speed.DWConv).all()
    assert (speed.PConv > 1.2 * speed.DWConv).all()
    assert (speed.PConv > 3 * speed.DWConv).loc["nchw"].all()
    assert (time.Conv > 4 * time.PConv).all()


def test_stored_table_9():
    """Slicing gains where it is wrong: with the copy that FasterNet needs it gains nothing."""
    table = stored("operators-forms")
    networks = table[table.network.str.startswith("fasternet")]
    assert set(networks.form) == {"split_cat", "slicing"}
    gain = table.pivot(
        index=["network", "batch", "memory_format"], columns="form", values="over_split_cat"
    )
    assert (gain.loc["PConv x10, 96x56x56", 32].in_place > 1.5).all()
    assert gain.slicing.between(0.7, 1.4).all()
