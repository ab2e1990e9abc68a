"""The 1x1 convolution as a matrix product, and networks made faster for inference."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize
from torch import nn

import paperrepro.ops.pointwise as module
from paperrepro import create_model, reparameterize
from paperrepro.complexity import count_macs
from paperrepro.models import build_model
from paperrepro.ops import PointwiseConv2d, gemm, pointwise_conv2d, tuning

FORMATS = (torch.contiguous_format, torch.channels_last)


def error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "shape", [(1, 5, 6, 7), (3, 5, 6, 7), (20, 5, 1, 1), (1, 1, 4, 4), (0, 5, 2, 2)]
)
@pytest.mark.parametrize("onednn", (False, True))
def test_against_float64(shape, format, onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr(module, "has_onednn", lambda: False)
    x = torch.randn(shape).contiguous(memory_format=format)
    weight, bias = torch.randn(9, shape[1], 1, 1), torch.randn(9)
    for each in (None, bias):
        expected = F.conv2d(x.double(), weight.double(), None if each is None else each.double())
        with torch.inference_mode():
            output = pointwise_conv2d(x, weight, each)
        assert output.shape == expected.shape
        if output.numel():
            assert error(output, expected) <= 1e-6
        if output.numel() and shape[1] > 1:  # with one channel the strides have two readings
            assert output.is_contiguous(memory_format=format)


def test_views_follow_pytorch():
    x, weight = torch.randn(2, 6, 8, 8), torch.randn(4, 6, 1, 1)
    with torch.inference_mode():
        for view in (x[:1, :, ::2], x.transpose(2, 3), x[:1].flip(3)):
            assert error(pointwise_conv2d(view, weight), F.conv2d(view, weight)) <= 1e-6
        with pytest.raises(RuntimeError, match="channels"):
            pointwise_conv2d(x[:1, :3], weight)


def test_each_way_is_taken_where_it_was_the_fastest(monkeypatch):
    x, weight = torch.randn(1, 6, 8, 8), torch.randn(4, 6, 1, 1)
    with torch.inference_mode(), tuning("auto"):
        for way in ("product", "convolution"):
            monkeypatch.setattr(module, "fastest", lambda key, ways, way=way: way)
            assert error(pointwise_conv2d(x, weight), F.conv2d(x, weight)) <= 1e-6


@pytest.mark.skipif(not gemm.has_onednn(), reason="this PyTorch has no such product")
def test_the_fast_product_is_taken_and_told_apart(monkeypatch):
    monkeypatch.setattr(module.F, "conv2d", lambda *args: pytest.fail("PyTorch's convolution"))
    with torch.inference_mode():
        pointwise_conv2d(torch.randn(1, 6, 8, 8), torch.randn(4, 6, 1, 1))


def test_a_product_that_is_missing_or_wrong_is_not_used(monkeypatch):
    x, weight = torch.randn(5, 6), torch.randn(4, 6)
    for wrong in (lambda *args: torch.zeros(2, 4), lambda *args: 1 / 0):
        monkeypatch.setattr(gemm, "onednn_product", wrong)
        gemm.has_onednn.cache_clear()
        assert not gemm.has_onednn()
        assert torch.equal(gemm.linear(x, weight), F.linear(x, weight))
    gemm.has_onednn.cache_clear()


@pytest.fixture(scope="module")
def pair():
    """A small MobileOne, re-parameterized and made faster, and the original."""
    torch.manual_seed(0)
    model = randomize(create_model("mobileone_s0", num_classes=10))
    return model, reparameterize(model, for_inference=True)


@pytest.mark.parametrize("name", ("mobileone_s0", "fasternet_t0", "rapidnet_ti", "mobilevigv2_ti"))
def test_a_faster_network_answers_the_same(name):
    model = randomize(create_model(name, num_classes=10))
    fused, fast = reparameterize(model), reparameterize(model, for_inference=True)
    assert any(type(layer) is PointwiseConv2d for layer in fast.modules())
    assert [*fast.state_dict()] == [*fused.state_dict()]
    for format in FORMATS:
        images = torch.randn(2, 3, 64, 64).contiguous(memory_format=format)
        for network in (fused, fast):
            network.to(memory_format=format)
        with torch.inference_mode():
            assert error(fast(images), fused(images)) <= 1e-5


def test_a_faster_network_is_exported_as_before(pair):
    _, fast = pair
    program = torch.export.export(fast, (torch.randn(1, 3, 64, 64),))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in targets and not any("mkldnn" in target for target in targets)
    graph = torch.fx.symbolic_trace(fast).graph
    assert pointwise_conv2d in {node.target for node in graph.nodes}
    assert count_macs(fast, 64) == count_macs(reparameterize(pair[0]), 64)


def test_a_faster_network_is_differentiated_as_before(pair):
    model, fast = pair
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for network in (reparameterize(model), fast):
        x = images.clone().requires_grad_()
        loss = network(x).square().sum()
        weights = [*network.parameters()]
        gradients.append(torch.autograd.grad(loss, [x, weights[0], weights[-4]]))
    for found, expected in zip(*gradients, strict=True):
        assert error(found, expected) <= 1e-4


def test_a_faster_network_is_copied_folded_and_pickled(pair):
    _, fast = pair
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = fast(images)
        for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), reparameterize(fast)):
            assert torch.equal(twin(images), expected)


def test_what_others_may_still_read_is_not_overwritten():
    shared = nn.ReLU()
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 3, 3), shared),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()),
        nn.Sequential(nn.AvgPool2d(2), nn.ReLU()),
        shared,
    )
    seen = []
    model[1][0].register_forward_hook(lambda module, args, output: seen.append(output))
    fast = reparameterize(model, for_inference=True)
    assert not any(layer.inplace for layer in fast.modules() if isinstance(layer, nn.ReLU))
    block = reparameterize(
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity(), nn.ReLU()), for_inference=True
    )
    assert block[2].inplace and type(block[0]) is PointwiseConv2d
    grouped = reparameterize(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), for_inference=True)
    assert type(grouped[0]) is nn.Conv2d
    assert type(reparameterize(nn.Conv2d(3, 4, 1), for_inference=True)) is PointwiseConv2d


def test_a_training_network_is_left_as_it_is():
    model = build_model("fasternet_t0", num_classes=10)
    reparameterize(model, for_inference=True)
    assert not any(type(layer) is PointwiseConv2d for layer in model.modules())
