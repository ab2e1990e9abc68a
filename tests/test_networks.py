"""What the commands call a network: names, files, and how its images are prepared."""

import json

import pytest
import safetensors.torch
import torch
from shallow import SHALLOW
from torch import nn

from paperrepro import create_model, load_model, save_model
from paperrepro.models import Backbone, Input
from paperrepro.networks import find_network
from paperrepro.weights import WeightsError, read_checkpoint

SMALL = Input(size=48, crop=0.5, interpolation="bilinear", mean=(0.1,) * 3, std=(0.2,) * 3)


@pytest.fixture
def saved(tmp_path):
    """A file of a network that was trained on images of its own kind."""
    model = create_model("fasternet_t0", num_classes=3, **SHALLOW["fasternet_t0"])
    model.input, model.classes = SMALL, ("a", "b", "ü")
    save_model(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_file_says_how_its_images_are_prepared(saved):
    model = load_model(saved)
    assert model.input == SMALL and model.classes == ("a", "b", "ü")
    for network in (find_network(str(saved)), find_network(f"fasternet_t0={saved}")):
        assert network.input == SMALL and network.saved
    picture = torch.full((3, 60, 90), 128, dtype=torch.uint8)
    prepared = find_network(str(saved)).transform(picture)
    assert prepared.shape == (3, 48, 48)
    assert prepared.mean().item() == pytest.approx((128 / 255 - 0.1) / 0.2, abs=1e-4)
    assert find_network(str(saved), size=32).input.size == 32
    assert find_network("fasternet_t0", weights=str(saved)).input == SMALL
    assert not find_network("fasternet_t0").saved


def test_saving_again_keeps_it(saved, tmp_path):
    save_model(load_model(saved), tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    assert again.input == SMALL and again.classes == ("a", "b", "ü")
    again.reset_classifier(7)
    assert again.classes is None


def test_a_file_of_before_is_prepared_by_its_recipe(saved):
    state, metadata = read_checkpoint(saved)
    old = {key: value for key, value in metadata.items() if key not in ("input", "classes")}
    safetensors.torch.save_file(state, saved, old)
    assert load_model(saved).input == create_model("fasternet_t0").input
    recipe = saved.with_name("recipe.json")
    recipe.write_text(json.dumps({"size": 40, "test_crop": None}))
    network = find_network(str(saved))
    assert (network.input.size, network.input.crop) == (40, None)
    assert network.name == saved.parent.name


def test_a_bad_input_in_a_file_is_named(saved):
    state, metadata = read_checkpoint(saved)
    for bad in ("[1]", '{"side": 3}', "nonsense"):
        safetensors.torch.save_file(state, saved, metadata | {"input": bad})
        with pytest.raises(WeightsError, match="model.safetensors"):
            load_model(saved)


def test_the_same_seed_gives_the_same_network():
    first, second, other = (find_network("mobileone_s0", seed=seed).model for seed in (0, 0, 1))
    weights = [next(model.parameters()) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_others_networks_by_their_names():
    network = find_network("resnet18", size=64)
    assert not isinstance(network.model, Backbone) and isinstance(network.model, nn.Module)
    assert network.transform(torch.zeros(3, 80, 80, dtype=torch.uint8)).shape == (3, 64, 64)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("fasternet_t9", {}, "fasternet_t0"),
        ("fasternet_t0=absent.pt", {}, "absent.pt"),
        ("mobileone_s0={saved}", {}, "fasternet_t0.*mobileone_s0"),
        ("fasternet_t0={saved}", {"num_classes": 5}, "3 .*5"),
        ("squeezenet1_1", {}, "squeezenet1_1=FILE"),
    ],
)
def test_what_cannot_be_found_is_named(name, options, message, saved):
    with pytest.raises(ValueError, match=message):
        find_network(name.format(saved=saved), **options)


def test_weights_that_are_no_numbers_do_not_agree_with_anything(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from paperrepro.cli import app

    monkeypatch.setattr("paperrepro.datasets.COUNTS", (64, 64))
    model = create_model("fasternet_t0", num_classes=16, **SHALLOW["fasternet_t0"])
    model.input = Input(size=32, crop=None)
    with torch.no_grad():
        model.head.fc.weight[0, 0] = float("nan")
    save_model(model, tmp_path / "nan.safetensors")
    words = ["evaluate", "fasternet_t0", "--weights", tmp_path / "nan.safetensors"]
    result = CliRunner().invoke(app, [*map(str, words), "--data", "shapes"])
    assert result.exit_code == 1 and "head.fc.weight" in result.stderr and not result.stdout
