"""Fewer bits: the arithmetic by hand, what equalising keeps, and the tables' own statistics."""

import numpy as np
import pytest
import torch
from conftest import randomize
from test_coreml import SIZE, tiny
from torch import nn
from torchvision.io import write_png

from paperrepro import reparameterize
from paperrepro.benchmark import deployment, quantization, rounding
from paperrepro.benchmark.quantization import scored
from paperrepro.datasets import load_data
from paperrepro.export import coreml, mil
from paperrepro.export.activations import quantize_activations
from paperrepro.export.network import Preparation
from paperrepro.export.simulate import (
    FakeQuantized,
    chained,
    equalize,
    fake_quantized,
    layers_of,
    rounded_between,
    rounded_weight,
)
from paperrepro.models import build_model, list_models
from paperrepro.results import load_result


def test_rounding_by_hand():
    weight = torch.tensor([[1.0, -0.26], [10.0, 0.4]])
    found = rounded_weight(weight, 3, True)
    assert torch.allclose(found, torch.tensor([[1.0, -1 / 3], [10.0, 0.0]]), atol=1e-6)
    assert rounded_weight(weight, 3, False)[0].tolist() == [0.0, 0.0]  # steps of 10 / 3
    x = torch.tensor([-1.0, -0.2, 0.0, 1.1, 9.0])
    found = rounded_between(x, torch.tensor(-0.5), torch.tensor(1.0), 2)
    assert found.tolist() == pytest.approx([-0.5, 0.0, 0.0, 1.0, 1.0])


def test_gradients_pass_the_rounding():
    layer = FakeQuantized(nn.Linear(3, 2), 4)
    layer.low, layer.high = torch.tensor(-3.0), torch.tensor(3.0)
    x = torch.randn(5, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().min() > 0 and layer.layer.weight.grad.abs().min() > 0


@pytest.fixture
def network():
    config = {"num_classes": 10, "widths": (0.25,) * 4, "blocks": (1, 1, 1, 1)}
    return reparameterize(randomize(build_model("mobileone_s0", **config)))


@torch.no_grad()
def test_more_bits_and_channels_are_nearer(network):
    x = torch.randn(4, 3, SIZE, SIZE)
    expected = network(x)

    def error(**options):
        return (fake_quantized(network, x, **options)(x) - expected).norm().item()

    assert error(bits=12) < error(bits=8) < error(bits=4)
    assert error(bits=4, activations=False) < error(bits=4)
    assert error(bits=4, per_channel=True) < error(bits=4, per_channel=False)
    names = layers_of(network)
    assert error(bits=8, only=names[0]) < error(bits=8)
    with pytest.raises(ValueError, match="'stem'"):
        fake_quantized(network, x, only="stem")


@torch.no_grad()
def test_equalising_keeps_the_function_and_repairs_unequal_channels(network):
    x = torch.randn(4, 3, SIZE, SIZE)
    expected = network(x)
    assert len(list(chained(network))) == 8  # all nine convolutions follow each other
    first, second = next(iter(chained(network)))
    first.weight[0] *= 300  # a channel that would take the whole grid of its layer
    first.bias[0] *= 300
    second.weight[0] /= 300  # depthwise
    assert torch.allclose(network(x), expected, atol=1e-3)
    equal = equalize(network)
    assert torch.allclose(equal(x), expected, atol=1e-3)

    def error(model):
        return (fake_quantized(model, x, per_channel=False)(x) - expected).norm().item()

    assert error(equal) < error(network) / 3


def test_a_paired_change_by_hand():
    labels = torch.zeros(100, dtype=torch.long)
    reference, found = labels.clone(), labels.clone()
    reference[:10], found[5:25] = 1, 1  # 5 repaired, 15 broken
    row = scored(found, reference, labels)
    assert row["top1"] == 80 and row["agreement"] == 80
    assert row["change"] == pytest.approx(-10)
    assert row["high"] - row["change"] == pytest.approx(196 * np.sqrt(0.19 / 99), rel=1e-3)


def test_eight_bit_activations_in_a_package(tmp_path):
    """Executed on this machine: quantize and dequantize stand around every convolution."""
    model = reparameterize(tiny("fasternet_t0"))
    x = torch.rand(2, 3, SIZE, SIZE)
    settings = coreml.Settings(
        **vars(Preparation(SIZE, (), ())), **quantization.PLAIN, target="iOS17"
    )
    converted, _ = coreml.convert(model, settings, None, 2)
    path = tmp_path / "net.mlpackage"
    coreml.save(converted, path)
    plain = mil.load(path)
    small = coreml.compressed(quantize_activations(converted, plain, x, 2), "int8")
    coreml.save(small, tmp_path / "small.mlpackage")
    program = mil.load(tmp_path / "small.mlpackage")
    kinds = [operation.type for operation in program.operations]
    assert kinds.count("quantize") >= 10 and kinds.count("dequantize") >= kinds.count("quantize")
    with torch.no_grad():
        expected = model(x)
    error = ((program(x)["logits"] - expected).norm() / expected.norm()).item()
    assert 1e-3 < error < 0.3


def test_waiting_grows_with_the_load():
    """With equal times and half the load an M/D/1 queue waits half a time on average."""
    service = np.full(100, 0.01)
    answered = deployment.waits(service, 0.5)
    assert answered.min() == pytest.approx(0.01)
    assert answered.mean() == pytest.approx(0.015, rel=0.05)
    assert np.percentile(deployment.waits(service, 0.8), 99) > np.percentile(answered, 99)


def test_stored_networks_are_there_for_both():
    for family in quantization.FAMILIES:
        for data in ("shapes", "some/cifar10"):
            assert quantization.stored_network(data, family).model is not None
    assert max(rounding.BITS) == 8


def test_images_have_the_networks_size_and_its_classes(tmp_path):
    """Small pictures in a folder, read as tensors to train and as PIL's to validate."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            grey = torch.full((3, 32, 40), 90, dtype=torch.uint8)
            write_png(grey, str(tmp_path / part / name / "1.png"))
    opened = quantization.stored_network("shapes", "mobileone")
    data = load_data(str(tmp_path), size=64)
    for images in (data.train, data.val):
        found = quantization.Images(opened, images, 2).pixels
        assert found.shape == (2, 3, 64, 64) and (found == 90).all()
    with pytest.raises(ValueError, match="has 2 classes, and the network has 10: train one"):
        quantization.run([str(tmp_path)], count=2, progress=False)


def test_what_is_robust_in_the_stored_tables():
    """Eight bits cost no family more than three points; four break a tensor's one scale, and
    equalising repairs it. Every file of ExecuTorch is the network, in one piece."""
    table = load_result("quantization").table
    eight = table[table["form"].str.contains("weights 8")]
    families = table.groupby("data")["network"].unique()
    assert set(families.index) == {"shapes", "cifar10_jpeg"}
    assert all(set(each) == set(quantization.FAMILIES) for each in families)
    assert set(table["format"]) == {"pytorch", *quantization.FORMATS}
    assert eight["change"].min() > -3 and eight["agreement"].min() > 90
    order = load_result("quantization-order").table.set_index(["data", "bits", "form"])["top1"]
    for data in order.index.unique("data"):
        four = order[data, 4]
        whole, apart = four["re-parameterized, per tensor"], four["re-parameterized, per channel"]
        assert whole + 5 < min(apart, four["re-parameterized, equalised, per tensor"])
        assert abs(order[data, 8]["re-parameterized, per channel"] - order[data, 32]["float32"]) < 2
    files = load_result("executorch").table
    assert list(files["network"]) == list_models()
    assert (files["delegates"] == 1).all() and files["error"].max() < 1e-5
