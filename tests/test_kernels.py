"""RepLKNet's Fig. 6 as numbers: kernels made by hand, both forms of a network, a real network."""

import pytest
import torch
from conftest import randomize, relative_difference
from real import needs_data, real_network
from torch import nn
from torch.nn import functional as F

from paperrepro import create_model, reparameterize
from paperrepro.analysis.kernels import (
    aggregate,
    depthwise_weights,
    describe,
    large_kernels,
    measure,
    without_small_branches,
)
from paperrepro.models.mobilenetv2 import MobileNetV2
from paperrepro.models.replknet import LargeKernel, RepLKNet


def small_replknet(**config) -> RepLKNet:
    settings = dict(kernels=(13, 11, 9, 7), channels=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    return randomize(RepLKNet(**(settings | config), num_classes=2))


def test_aggregate_by_hand():
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 1, 1], weight[1, 0, 1, 1], weight[1, 0, 0, 0] = -3, 1, 2
    assert aggregate(weight).tolist() == [[0.5, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert not aggregate(torch.zeros(4, 1, 5, 5)).any()


@pytest.mark.parametrize("shape", [(5, 5), (4, 2, 5, 5), (4, 1, 5, 3)])
def test_aggregate_refuses_what_is_not_depthwise(shape):
    with pytest.raises(ValueError, match="depthwise kernels"):
        aggregate(torch.zeros(shape))


def test_aggregate_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        aggregate(torch.full((1, 1, 5, 5), torch.nan))


def test_an_even_kernel_has_the_even_shares():
    found = describe(torch.ones(13, 13))
    assert found["centre"] == found["even_centre"] == pytest.approx(9 / 169)
    assert found["skeleton"] == found["even_skeleton"] == pytest.approx((4 * 6 - 4) / 169)


def test_a_cross_a_core_and_a_corner():
    cross = torch.zeros(7, 7)
    cross[3] = cross[:, 3] = 1
    found = describe(cross)
    assert (found["centre"], found["skeleton"]) == pytest.approx((5 / 13, 8 / 13))
    core = torch.zeros(7, 7)
    core[2:5, 2:5] = 0.5
    core[2, 4] = 1
    found = describe(core)
    assert found["peak"] == 1 and found["centre"] == 1 and found["skeleton"] == 0
    corner = torch.zeros(7, 7)
    corner[0, 6] = 1
    assert describe(corner)["peak"] == 3 and describe(corner)["centre"] == 0


def test_a_small_kernel_has_a_central_entry():
    found = describe(torch.tensor([[0.0, 1, 0], [1, 4, 1], [2, 1, 0]]))
    assert (found["centre"], found["skeleton"]) == pytest.approx((0.4, 0.4))
    assert found["even_centre"] == pytest.approx(1 / 9)


def test_decay_follows_the_distance():
    offset = torch.arange(9.0) - 4
    distance = (offset[:, None] ** 2 + offset**2).sqrt()
    assert describe((-distance).exp())["decay"] == pytest.approx(-1)
    assert describe(distance)["decay"] == pytest.approx(1)
    assert abs(describe(torch.rand(31, 31))["decay"]) < 0.1


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (1, 1), (2, 5, 5)])
def test_describe_refuses(shape):
    with pytest.raises(ValueError, match="odd side"):
        describe(torch.ones(shape))


def test_merged_is_large_plus_small_by_hand():
    """One layer: BatchNorm scales each kernel, and the small one lands in the middle."""
    model = nn.Sequential(LargeKernel(4, 9, 5))
    randomize(model)
    scaled = {}
    for name, branch in model[0].items():
        norm = branch.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        scaled[name] = (branch.conv.weight * scale[:, None, None, None]).detach()
    (forms,) = large_kernels(model).values()
    torch.testing.assert_close(forms["large"], scaled["large"])
    torch.testing.assert_close(forms["merged"], scaled["large"] + F.pad(scaled["small"], [2] * 4))


def test_both_forms_of_replknet():
    model = small_replknet()
    found = large_kernels(model)
    assert [each["merged"].shape[-1] for each in found.values()] == [13, 11, 9, 7]
    assert all(set(forms) == {"large", "merged"} for forms in found.values())
    run = depthwise_weights(reparameterize(model))
    assert all(torch.equal(forms["merged"], run[name]) for name, forms in found.items())
    for forms in found.values():
        difference = (forms["merged"] - forms["large"]).abs().sum((0, 1))
        margin = (difference.shape[-1] - 5) // 2
        assert difference[margin:-margin, margin:-margin].all()
        assert (
            not F.pad(difference[margin:-margin, margin:-margin], [margin] * 4).ne(difference).any()
        )
    table = measure(model).pivot(index="layer", columns="form", values="centre")
    assert (table["merged"] > table["large"]).all()


def test_without_a_small_branch_there_is_one_form():
    model = small_replknet(small_kernel=None)
    assert all(set(forms) == {"merged"} for forms in large_kernels(model).values())
    merged = large_kernels(reparameterize(small_replknet()))
    assert all(set(forms) == {"merged"} for forms in merged.values())


def test_mobilenet_with_13x13_kernels():
    """The paper's network of Fig. 6, with and without the 3x3 branch."""
    model = randomize(MobileNetV2(13, small_kernel=3, last_stage_only=True, num_classes=2))
    table = measure(model)
    assert set(table.kernel_size) == {13} and table.form.value_counts().to_dict() == {
        "large": 4,
        "merged": 4,
    }


@pytest.mark.parametrize("name, kernel", [("rapidnet_ti", 7), ("mobilevigv2_ti", 7)])
def test_the_graph_family_has_large_kernels(name, kernel):
    """7x7: conditional position encodings, whose skip is their small branch, and, in RapidNet, the
    feed-forward's."""
    table = measure(create_model(name, num_classes=2))
    assert set(table.kernel_size) == {kernel}
    encodings = table.pivot(index="layer", columns="form", values="centre").dropna()
    assert len(encodings) and (encodings["merged"] > encodings["large"]).all()


def test_a_network_without_large_kernels_is_told_what_it_has():
    with pytest.raises(ValueError, match="5 x 5.*3 x 3"):
        measure(create_model("mobileone_s0", num_classes=2))
    with pytest.raises(ValueError, match="none at all"):
        measure(nn.Conv2d(8, 8, 7))


def test_the_network_stays_as_it_was():
    model = small_replknet().train()
    images = torch.randn(1, 3, 64, 64)
    before = model.eval()(images)
    model.train()
    measure(model)
    assert model.training and all(each.requires_grad for each in model.parameters())
    assert relative_difference(before, model.eval()(images)) == 0
    assert not relative_difference(before, without_small_branches(model)(images)) == 0


@needs_data
def test_the_centre_of_real_kernels_is_the_largest_but_in_the_last_layer():
    """MobileNetV2's 3x3 kernels: what RepLKNet shows of 13x13 ones holds in 16 of the 17."""
    table = measure(real_network("mobilenet_v2"), smallest=3).set_index("layer")
    last = table.loc["features.17.conv.1.0"]
    others = table.drop(index="features.17.conv.1.0")
    assert len(others) == 16 and (others["peak"] == 0).all() and (others["decay"] < -0.5).all()
    assert (others["centre"] > others["even_centre"]).all()
    assert last["peak"] == 1 and last["decay"] > 0.9 and last["centre"] < last["even_centre"]
