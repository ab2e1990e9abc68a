"""Whole networks and their peers: what is loaded, what is folded, what is counted and measured."""

import pytest
import torch
from conftest import randomize, relative_difference
from torch import nn

from paperrepro import networks
from paperrepro.benchmark import models
from paperrepro.benchmark.models import NETWORKS, PEERS, as_run, fold_norms
from paperrepro.claims import load_claims
from paperrepro.complexity import complexity
from paperrepro.networks import find_network
from paperrepro.results import load_result


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.fixture
def small(monkeypatch):
    """Images of 64 pixels and short rounds, so that a measurement takes moments."""
    monkeypatch.setattr(models, "SIZE", 64)
    compare = models.compare
    monkeypatch.setattr(models, "compare", lambda each, **_: compare(each, rounds=2, min_seconds=0))


@pytest.mark.parametrize(
    "name, library",
    [
        ("fasternet_t0", "paperrepro"),  # timm has it too
        ("mobilenetv4_conv_small", "timm"),
        ("shufflenet_v2_x1_0", "torchvision"),
    ],
)
def test_networks_come_from_the_first_library_that_has_them(name, library):
    model = find_network(name).model
    assert models.library_of(model) == library
    assert not model.training


def test_unknown_network_names_where_it_was_looked_for():
    with pytest.raises(ValueError, match="'mobilenet_v9'.*timm.*torchvision"):
        find_network("mobilenet_v9")


def test_without_timm_the_remedy_is_named_and_the_rest_works(monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    assert models.library_of(find_network("shufflenet_v2_x1_0").model) == "torchvision"
    with pytest.raises(ValueError, match="'repvit_m1_0'.*pip install timm"):
        find_network("repvit_m1_0")


def test_peers_cover_the_issue_and_the_papers_tables():
    wanted = "mobilenetv2 mobilenetv3 mobilenetv4 shufflenet_v2 efficientnet_b0 fastvit repvit"
    for part in [*wanted.split(), "resnet50", "convnext_tiny"]:
        assert any(name.startswith(part) for name in PEERS), part
    claims = load_claims()
    for name, place in PEERS.items():
        if place:
            paper, subject = place
            found = claims[(claims["paper"] == paper) & (claims["subject"] == subject)]
            quantities = set(found["quantity"])
            assert "top1" in quantities and any("latency" in each for each in quantities), name


@pytest.mark.parametrize(
    "name, left",
    [
        ("mobilenetv3_small_100", 0),  # BatchNorm and activation in one module
        ("shufflenet_v2_x1_0", 0),
        ("repvit_m0_9", 0),
        ("mixnet_s", 34),  # after a concatenation of convolutions
        ("fastvit_sa12", 2),  # before the attention: the convolution's output has other users
    ],
)
def test_peers_compute_the_same_as_they_are_run(name, left):
    model = randomize(find_network(name).model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        folded = as_run(model)
        assert relative_difference(model(image), folded(image)) < 1e-4
    assert norms(model) > norms(folded) == left
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


class Shared(nn.Module):
    """A convolution with a BatchNorm that alone follows it, and one whose output is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.conv2, self.norm2 = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv2(self.norm1(self.conv1(x)).relu())
        return x + self.norm2(x)


def test_norm_is_folded_only_into_a_convolution_that_it_alone_follows():
    model = randomize(Shared())
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(image)
        folded = fold_norms(model)
        assert torch.allclose(folded(image), expected, atol=1e-4)
    assert isinstance(folded.norm1, nn.Identity)
    assert isinstance(folded.norm2, nn.BatchNorm2d)


def test_table_counts_and_converts(small):
    table = models.run(["mobileone_s0", "shufflenet_v2_x1_0"], progress=False)
    assert set(zip(table["form"], table["memory_format"], table["batch"], strict=True)) == {
        *((form, each, 1) for form in ("training", "fused") for each in models.FORMATS),
        *(("fused", each, 8) for each in models.FORMATS),
    }
    assert len(table) == 2 * 6
    ours = table[table["model"] == "mobileone_s0"].set_index("form")
    size = complexity("mobileone_s0", 64)
    assert (ours.loc["training", "params"] == size.params).all()
    assert (ours.loc["fused", "macs"] == size.macs_fused).all()
    assert table["images_per_s"].to_numpy() == pytest.approx(1e3 * table["batch"] / table["ms"])
    speed = table["macs"] * table["images_per_s"] / 1e9
    assert table["gmacs_per_s"].to_numpy() == pytest.approx(speed.to_numpy())
    assert (table["ms"] > 0).all() and (table["null"] > 0).all()


def test_batches_leave_the_largest_networks_out(small, monkeypatch):
    monkeypatch.setattr(models, "count_macs", lambda model, size: 5_000_000_000)
    table = models.run(["mobileone_s0"], progress=False)
    assert set(table["batch"]) == {1}


def test_quick_takes_four_networks_unless_others_are_named(small, monkeypatch):
    monkeypatch.setattr(models, "QUICK", ("mobileone_s0",))
    assert set(models.run(quick=True, progress=False)["model"]) == {"mobileone_s0"}
    named = models.run(["shufflenet_v2_x1_0"], quick=True, progress=False)
    assert set(named["model"]) == {"shufflenet_v2_x1_0"}


def test_stored_result_holds_every_network_and_what_is_robust():
    table = load_result("models").table
    assert set(table["model"]) == set(NETWORKS)
    single = table[(table["batch"] == 1) & (table["memory_format"] == "nchw")]
    ms = single.pivot(index="model", columns="form", values="ms")
    assert ms.loc["mobileone_s0", "training"] > 3 * ms.loc["mobileone_s0", "fused"]
    # FasterNet, Fig. 2: fewer multiply-adds per second than ResNet-50 in most small networks,
    # and more of them in FasterNet than in networks of the same size.
    speed = single[single["form"] == "fused"].set_index("model")["gmacs_per_s"]
    for slow in ("shufflenet_v2_x1_0", "mixnet_s", "mobilenetv3_small_100"):
        assert speed["resnet50"] > 2 * speed[slow]
        assert speed["fasternet_t0"] > 1.5 * speed[slow]
