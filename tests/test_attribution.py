"""Attribution: known maps of hand-made networks, exact scores, and a network left as it was."""

import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from real import DATA, WEIGHTS, needs_data
from torch import nn
from typer.testing import CliRunner

from paperrepro.analysis import attribution, faithfulness
from paperrepro.analysis.attribution import (
    METHODS,
    area,
    attribute,
    base_image,
    draw,
    order,
    perturb,
)
from paperrepro.cli.analysis import attribute as command
from paperrepro.cli.analysis import shape_bias
from paperrepro.models import build_model
from paperrepro.networks import find_network

SIDE = 16


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4)).double()


def image():
    return torch.randn(3, SIDE, SIDE, dtype=torch.float64)


class Patch(nn.Module):
    """Two classes: the second's logit is four times the mean of rows 4 to 7, columns 8 to 11."""

    def forward(self, images):
        seen = images[:, :, 4:8, 8:12].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(seen), 4 * seen], 1)


def patch_map():
    perfect = torch.zeros(SIDE, SIDE)
    perfect[4:8, 8:12] = 1
    return perfect


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 4),
    )


# Known maps


def test_integrated_gradients_of_a_linear_network_are_complete_and_exact():
    model, x = linear(), image()
    found = attribute(model, x, "integrated-gradients", target=2)
    weight = model[1].weight[2].detach().reshape(3, SIDE, SIDE)
    torch.testing.assert_close(found.map, (weight * x).sum(0))
    assert abs(found.delta) < 1e-9


def test_convergence_delta_is_what_the_map_misses():
    class Cubic(nn.Module):
        def forward(self, images):
            return images.pow(9).sum((1, 2, 3))[:, None]

    x = image().abs()
    coarse = attribute(Cubic(), x, "integrated-gradients", steps=2)
    missed = coarse.map.sum().item() - x.pow(9).sum().item()
    assert abs(missed) > 0.01 * x.pow(9).sum()
    assert coarse.delta == pytest.approx(missed)
    fine = attribute(Cubic(), x, "integrated-gradients", steps=5)
    assert abs(fine.delta) < 1e-6 * abs(missed)


def test_saliency_of_a_linear_network_is_its_largest_weight():
    model = linear()
    found = attribute(model, image(), "saliency", target=1)
    weight = model[1].weight[1].detach().reshape(3, SIDE, SIDE)
    torch.testing.assert_close(found.map, weight.abs().amax(0))
    assert found.delta is None


def test_occlusion_of_single_pixels_is_what_each_adds():
    model, x = linear(), image()
    found = attribute(model, x, "occlusion", target=0, patch=1)
    weight = model[1].weight[0].detach().reshape(3, SIDE, SIDE)
    torch.testing.assert_close(found.map.double(), (weight * x).sum(0), atol=1e-6, rtol=1e-5)


def test_occlusion_finds_the_patch_and_nothing_else():
    found = attribute(Patch(), torch.ones(3, SIDE, SIDE), "occlusion", target=1, patch=4)
    assert found.map[4:8, 8:12].min() > 0
    far = found.map.clone()
    far[1:11, 5:15] = 0
    assert far.abs().max() == 0
    assert found.map.max() == found.map[4:8, 8:12].max()


def test_grad_cam_by_hand():
    """Of maps A_k, pooled and weighted by w_k: ReLU of the sum of w_k A_k over the map's size."""
    stage = nn.Conv2d(3, 5, 1)
    model = nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).double()
    x = image()
    found = attribute(model, x, "grad-cam", target=3, stage="0")
    weighted = torch.einsum("k,khw->hw", model[3].weight[3], stage(x[None])[0]) / SIDE**2
    torch.testing.assert_close(found.map, weighted.relu().detach())
    assert 0 < (found.map > 0).sum() < found.map.numel()


def test_grad_cam_is_as_large_as_the_image():
    model = small_network().eval()
    assert attribute(model, image().float(), "grad-cam", stage="3").map.shape == (SIDE, SIDE)


def test_target_is_the_networks_answer():
    model, x = linear(), image()
    assert attribute(model, x, "saliency").target == int(model(x[None]).argmax())


@pytest.mark.parametrize("family", "mobileone_s0 fasternet_t0 mobilevigv2_ti rapidnet_ti".split())
@pytest.mark.parametrize("method", ["integrated-gradients", "grad-cam"])
def test_our_networks(family, method):
    model = build_model(family, num_classes=5)
    found = attribute(model, torch.randn(3, 64, 64), method, steps=2, stage=2)
    assert found.map.shape == (64, 64)
    assert found.map.abs().max() > 0


# A network left as it was


@pytest.mark.parametrize("method", METHODS)
def test_network_is_left_as_it_was(method):
    model = small_network().train()
    model[0].bias.requires_grad_(False)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = image().float()
    before = x.clone()
    found = attribute(model, x, method, stage="3")
    perturb(model, x, found.map, found.target, "deletion", steps=4)
    with pytest.raises(ValueError):
        attribute(model, x, "grad-cam", stage="nothing")
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m._backward_hooks or m._backward_pre_hooks for m in model.modules())
    assert torch.equal(x, before) and not x.requires_grad


def test_maps_are_the_same_each_time():
    model, x = small_network(), image().float()
    for method in METHODS:
        maps = [attribute(model, x, method, target=1, stage="3").map for _ in range(2)]
        assert torch.equal(*maps)


# Deletion and insertion


def probability(logit):
    return torch.tensor(logit).sigmoid().item()


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_scores_of_a_network_that_sees_one_patch(kind):
    """16 pixels of 256 decide: the right map changes them in the first of 16 steps, and the
    inverted one in the last."""
    x = torch.ones(3, SIDE, SIDE)
    areas = {
        name: area(perturb(Patch(), x, map, 1, kind, baseline="grey", steps=16))
        for name, map in (("right", patch_map()), ("inverted", -patch_map()))
    }
    seen, unseen = probability(4.0), probability(0.0)
    first, then = (seen, unseen) if kind == "deletion" else (unseen, seen)
    middle = (first + then) / 2
    assert areas["right"] == pytest.approx((middle + 15 * then) / 16)
    assert areas["inverted"] == pytest.approx((15 * first + middle) / 16)


def test_curve_runs_from_image_to_baseline():
    x = torch.randn(3, SIDE, SIDE)
    blurred = base_image(x, "blur")
    ends = [Patch()(each[None]).softmax(1)[0, 1] for each in (x, blurred)]
    deletion = perturb(Patch(), x, patch_map(), 1, "deletion", steps=40)
    insertion = perturb(Patch(), x, patch_map(), 1, "insertion", steps=40)
    assert deletion.shape == (41,)
    torch.testing.assert_close(deletion[[0, -1]], torch.stack(ends))
    torch.testing.assert_close(insertion[[0, -1]], torch.stack(ends[::-1]))


def test_blur_keeps_the_mean_and_takes_the_detail():
    x = torch.ones(3, 48, 48)
    x[:, ::2] = -1
    blurred = base_image(x, "blur")
    assert blurred.abs().max() < 0.02
    torch.testing.assert_close(base_image(torch.ones(3, 48, 48), "blur"), torch.ones(3, 48, 48))


def test_order_is_descending_and_equal_values_come_by_chance():
    places = order(torch.tensor([[0.1, 3.0], [-2.0, 0.5]]), seed=0)
    assert places.tolist() == [[2, 0], [3, 1]]
    equal = order(torch.zeros(8, 8), seed=0).flatten()
    assert sorted(equal.tolist()) == list(range(64))
    assert not torch.equal(equal, torch.arange(64))
    assert torch.equal(equal, order(torch.zeros(8, 8), seed=0).flatten())
    assert not torch.equal(equal, order(torch.zeros(8, 8), seed=1).flatten())


def test_area_by_hand():
    assert area(torch.tensor([1.0, 0.5, 0.0])) == 0.5
    assert area(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])) == 0.125


# Errors


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("lime", {}, "'lime'.*saliency"),
        ("saliency", {"target": 4}, "class 4.* 4"),
        ("grad-cam", {"stage": "layer9"}, "'layer9'"),
        ("grad-cam", {"stage": "6"}, "2 dimensions"),
        ("occlusion", {"patch": 17}, "17 pixels"),
    ],
)
def test_what_cannot_be_explained(method, options, message):
    with pytest.raises(ValueError, match=message):
        attribute(small_network(), image().float(), method, **options)


def test_images_that_cannot_be_explained():
    x = image().float()
    with pytest.raises(ValueError, match=r"\(3, H, W\).*\(1, 3, 16, 16\)"):
        attribute(small_network(), x[None], "saliency")
    x[0, 0, :2] = torch.nan
    with pytest.raises(ValueError, match="2 of .*768"):
        attribute(small_network(), x, "saliency")


def test_gradients_that_are_not_finite_are_counted():
    class Root(nn.Module):
        def forward(self, images):
            return images.sqrt().sum((1, 2, 3))[:, None]

    x = torch.ones(3, SIDE, SIDE)
    x[:, 2, 3:6] = 0
    with pytest.raises(ValueError, match="saliency .*class 0 .*3 of 256"):
        attribute(Root(), x, "saliency")


def test_curves_that_cannot_be_drawn():
    x, found = image().float(), torch.zeros(SIDE, SIDE)
    for wrong, message in [
        ({"kind": "removal"}, "'removal'"),
        ({"baseline": "pink"}, "'pink'"),
        ({"steps": 0}, "0 .*1 to 256"),
        ({"attribution_map": torch.zeros(4, 4)}, r"\(4, 4\).*\(16, 16\)"),
        ({"attribution_map": found / 0}, "one finite value per pixel"),
    ]:
        arguments = {"attribution_map": found, "target": 0, "kind": "deletion"} | wrong
        with pytest.raises(ValueError, match=message):
            perturb(small_network(), x, **arguments)


# A real network, the figure and the command


@needs_data
def test_grad_cam_of_a_real_network_beats_chance():
    weights = DATA / "weights" / WEIGHTS["mobilenet_v2"]
    pictures = pytest.importorskip("sklearn.datasets").load_sample_images().images
    network = find_network(f"mobilenet_v2={weights}", size=160)
    x = network.transform(Image.fromarray(pictures[1]))
    found = attribute(network.model, x, "grad-cam")
    insertion = {
        name: area(perturb(network.model, x, map, found.target, "insertion", steps=12))
        for name, map in (("grad-cam", found.map), ("random", torch.rand(160, 160)))
    }
    assert insertion["grad-cam"] > 2 * insertion["random"]


def test_figure_shows_image_and_maps():
    maps = {"signed": torch.randn(8, 8), "positive": torch.rand(8, 8)}
    axes = draw(np.zeros((8, 8, 3)), maps).axes
    assert [ax.get_title() for ax in axes] == ["image", "signed", "positive"]
    low, high = axes[1].images[0].get_clim()
    assert low == -high < 0
    assert axes[2].images[0].get_clim()[0] == 0


app = typer.Typer()
for each in (command, shape_bias):
    app.command()(each)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def run(*arguments):
    return CliRunner().invoke(app, ["attribute", *map(str, arguments)])


def test_command_writes_picture_and_json(picture):
    out = picture.with_name("maps.png")
    options = ["--size", 64, "--method", "saliency", "--method", "grad-cam", "--stage", 2]
    result = run("fasternet_t0", picture, *options, "--out", out, "--format", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["method"] for row in rows] == ["saliency", "grad-cam", "random"]
    assert all(0 < row["deletion"] < 1 and 0 < row["insertion"] < 1 for row in rows)
    assert json.loads(out.with_suffix(".json").read_text())["rows"] == rows
    assert Image.open(out).width > 300


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["fasternet_t9", "picture.png"], 2, "fasternet_t9"),
        (["fasternet_t0", "picture.png", "--method", "lime"], 2, "lime"),
        (["fasternet_t0", "picture.png", "--baseline", "pink"], 2, "pink"),
        (["fasternet_t0", "missing.png"], 1, "missing.png"),
        (["fasternet_t0", "picture.png", "--target", "1000"], 1, "class 1000"),
        (["fasternet_t0", "picture.png", "--method", "grad-cam", "--stage", "9"], 1, "stage 9"),
    ],
)
def test_command_refuses(picture, monkeypatch, arguments, code, message):
    monkeypatch.chdir(picture.parent)
    result = run(*arguments, "--size", 64)
    assert result.exit_code == code
    assert message in result.stderr


# A place that is known


def linear_network(side=32):
    """One logit, the sum of the weighted pixels; its gradient is the weights."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, 1, bias=False))
    return net, net[1].weight.detach().view(3, side, side)


def test_a_map_that_foretells_every_fall_has_no_infidelity_and_an_empty_one_has_all():
    net, weight = linear_network()
    image = torch.rand(3, 32, 32)
    parts = (weight * image).sum(0)  # what covering a pixel takes away
    state = torch.get_rng_state()
    assert faithfulness.infidelity(net, image, 0, 5 * parts) == pytest.approx(0, abs=1e-6)
    assert faithfulness.infidelity(net, image, 0, 0 * parts) == pytest.approx(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert faithfulness.infidelity(net, image, 0, torch.rand(32, 32)) > 0.1
    with pytest.raises(ValueError, match="at least 24"):
        faithfulness.infidelity(net, image[:, :20, :20], 0, parts[:20, :20])
    with pytest.raises(ValueError, match="sides must be the same"):
        faithfulness.infidelity(net, image, 0, parts[:24, :24])


def test_a_map_that_never_changes_is_not_sensitive():
    _, weight = linear_network()
    image = torch.rand(3, 32, 32)
    assert faithfulness.sensitivity(lambda image: weight.sum(0), image) == 0
    moved = faithfulness.sensitivity(lambda image: image.sum(0), image, radius=0.1)
    assert 0 < moved < 3 * 0.1 * 32 / image.sum(0).norm()


def test_localisation_by_hand():
    values = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert attribution.localisation(values, mask) == 3 / 4  # 4 beats 3 and 1, 2 beats 1
    assert attribution.localisation(-values, mask) == 1 / 4
    assert attribution.localisation(torch.zeros(2, 2), mask) == 0.5
    assert attribution.localisation(mask.float(), mask) == 1


@pytest.mark.parametrize("mask", [torch.zeros(2, 2), torch.ones(2, 2), torch.eye(3)])
def test_localisation_needs_a_place(mask):
    with pytest.raises(ValueError, match="as large, and hold some pixels"):
        attribution.localisation(torch.rand(2, 2), mask.bool())
