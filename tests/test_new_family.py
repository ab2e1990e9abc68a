"""A network of one's own in one piece: every command and public function takes it, or says what its
family does not state. CONTRIBUTING.md tells how to add a network by pointing here."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import paperrepro
from paperrepro import create_model, list_models, load_model, reparameterize, save_model
from paperrepro.claims.reproduce import configuration, recompute
from paperrepro.cli import app
from paperrepro.complexity import complexity, paper_macs, paper_parameters
from paperrepro.datasets import Shapes
from paperrepro.models import MissingFactError, describe, families, register
from paperrepro.models.backbone import Backbone
from paperrepro.models.layers import Chain, ConvNorm
from paperrepro.models.registry import Family, Input, Paper, unregister
from paperrepro.networks import find_network


# The family: what a file in paperrepro/models holds.
class Toy(Backbone):
    """A strided convolution, then per stage a dense and a large depthwise convolution."""

    def __init__(self, width: int, num_classes: int = 1000, in_chans: int = 3) -> None:
        widths = [width * 2**i for i in range(4)]
        stages = [
            Chain(
                downsample=ConvNorm(widths[i - 1], channels, 3, 2) if i else None,
                blocks=nn.Sequential(
                    ConvNorm(channels, channels, 3, act="relu"),
                    ConvNorm(channels, channels, 5, groups=channels),
                ),
            )
            for i, channels in enumerate(widths)
        ]
        stem = ConvNorm(in_chans, width, 3, 4, act="relu")
        fc = nn.Linear(widths[-1], num_classes)
        head = Chain(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=fc)
        super().__init__(stem, stages, head, widths, num_classes, in_chans)


TOY = Family(
    network=Toy,
    variants={"toy_a": dict(width=16), "toy_b": dict(width=32)},
    paper=Paper("A Toy", "Nobody et al.", "arXiv", 2026),
    input=Input(size=32, crop=None, interpolation="bilinear"),
    parameters=lambda model, fused: describe.count_parameters(fused),
    macs_of="fused",
    described=(describe.channels, describe.depths),
    recipes=lambda name: {
        "paper": dict(source="the toy", epochs=1, batch_size=128, optimizer="sgd", lr=0.05)
        | dict(weight_decay=0.0, size=32)
    },
    small=dict(config=dict(width=8)),
    color="#000000",
)
BARE = Family(network=Toy, variants={"bare_a": dict(width=4)}, name="bare")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Both families known, and fewer shapes to train on."""
    for family in (TOY, BARE):
        register(family)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paperrepro.datasets.COUNTS", (1024, 256))
        yield
    for family in (TOY, BARE):
        unregister(family)


def run(*words, code=0) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(registered, tmp_path_factory):
    """A run of the trainer, by the command line."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    assert "top-1" in run("train", "toy_a", "--data", "shapes", "--out", folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from torchvision.transforms.v2.functional import to_pil_image

    folder = tmp_path_factory.mktemp("photos")
    shapes = Shapes(12, 32)
    for i in range(len(shapes)):
        to_pil_image(shapes[i][0]).save(folder / f"{i}.png")
    return folder


def test_it_is_listed_with_its_colour():
    assert list_models("toy") == list_models("toy_*") == ["toy_a", "toy_b"]
    assert families()["toy"].color == "#000000"


def test_models_info_claims_recipe():
    table = json.loads(run("models", "toy", "--format", "json"))
    assert [row["params"] for row in table] == [
        complexity(name).params for name in list_models("toy")
    ]
    told = run("info", "toy_b")
    assert "A Toy (Nobody et al., arXiv 2026)" in told and "32,64,128,256" in told
    assert json.loads(run("claims", "--model", "toy_a", "--format", "json")) == []
    assert json.loads(run("recipe", "toy_a", "--format", "json"))["batch_size"] == 128
    small = json.loads(run("recipe", "toy_a", "--recipe", "small", "--format", "json"))
    assert small["config"] == {"width": 8} and small["size"] == 32


def test_what_the_papers_tables_would_state():
    model = create_model("toy_a")
    fused = reparameterize(model)
    assert paper_parameters(model) == describe.count_parameters(fused)
    assert paper_macs(model) == complexity("toy_a").macs_fused
    assert configuration("toy_a")["channels"][0] == "16,32,64,128"
    row = dict(model="toy_a", config="", quantity="channels", size="", unit="", paper_value="")
    assert recompute(row) == "16,32,64,128"


def test_a_trained_file_knows_its_input_and_its_classes(trained):
    model = load_model(trained)
    assert model.input.size == 32 and len(model.classes) == 16 and model.classes[1] == "square"
    assert "The two agree" in run("evaluate", "toy_a", "--weights", trained, "--data", "shapes")


def test_save_load_fold(tmp_path):
    model = create_model("toy_a", num_classes=5).eval()
    save_model(reparameterize(model), tmp_path / "toy.safetensors")
    images = torch.rand(2, 3, 64, 64)
    for other in (reparameterize(model), load_model(tmp_path / "toy.safetensors")):
        torch.testing.assert_close(other(images), model(images), rtol=1e-4, atol=1e-5)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in other.modules())
    assert create_model("toy_a", features_only=True)(images)[-1].shape == (2, 128, 2, 2)
    assert paperrepro.evaluation_transform("toy_a")(Shapes(1)[0][0]).shape == (3, 32, 32)


def test_the_analyses(trained, photos, tmp_path):
    assert "ratio_20" in run("erf", trained, "--images", photos, "--out", tmp_path / "erf.png")
    for command in ("salient", "kernels"):
        assert "run" in run(command, trained, "toy_b")
    assert "stages.3" in run("similarity", trained, "--images", photos, "--size", 64)
    assert "cka" in run("similarity", trained, "--images", photos, "--size", 64, "--cka")
    assert "PConv" in run("approximate", trained, "--images", photos, "--steps", 2, "--size", 128)
    assert "shapes" in run("shape-bias", trained, "--count", 64)
    assert "grad-cam" in run("attribute", trained, photos / "0.png", "--method", "grad-cam")


def test_the_benchmarks(tmp_path):
    assert "toy_a" in run("benchmark", "models", "toy_a", "--quick", "--out", tmp_path)
    assert (tmp_path / "models-quick.csv").exists()


@pytest.mark.slow
def test_export_and_verification(trained, tmp_path):
    package = tmp_path / "toy.mlpackage"
    assert "relative error" in run("export", "toy_a", "--weights", trained, "--out", package)
    assert "agreement" in run("verify", package, "--weights", trained, "--count", 2)
    assert "conv" in run("plan", package)


FACTS = {
    "recipes": (("recipe", "bare_a"), ("train", "bare_a", "--data", "shapes", "--out", "r")),
    "input": (
        ("evaluate", "bare_a", "--weights", "{weights}", "--data", "shapes"),
        ("erf", "bare_a", "--images", "{photos}"),
        ("shape-bias", "bare_a"),
        ("attribute", "bare_a", "{photos}/0.png"),
        ("export", "bare_a"),
    ),
}


@pytest.mark.parametrize("fact, words", [(f, words) for f, all in FACTS.items() for words in all])
def test_a_command_names_the_fact_that_is_missing(fact, words, photos, tmp_path):
    save_model(create_model("bare_a", num_classes=16), tmp_path / "bare.safetensors")
    places = {"weights": tmp_path / "bare.safetensors", "photos": photos}
    result = CliRunner().invoke(app, [word.format(**places) for word in words])
    assert result.exit_code in (1, 2) and result.stderr.count("\n") == 1
    assert f"{fact}=" in result.stderr and "bare" in result.stderr


def test_a_function_names_the_fact_that_is_missing():
    model = create_model("bare_a")
    for fact, ask in (
        ("parameters", lambda: paper_parameters(model)),
        ("macs_of", lambda: paper_macs(model)),
        ("releases", lambda: create_model("bare_a", weights="released")),
        ("input", lambda: paperrepro.evaluation_transform("bare_a")),
        ("input", lambda: find_network("bare_a")),
        ("small", lambda: families()["bare"].need("small")),
    ):
        with pytest.raises(MissingFactError, match=f"{fact}="):
            ask()


def test_what_needs_no_fact_works_without_any():
    assert "bare_a" in run("models", "bare")
    assert "parameters=" in run("info", "bare_a")
    assert complexity("bare_a").params_paper is None


def test_a_name_belongs_to_one_family():
    with pytest.raises(ValueError, match="must begin with toy"):
        register(replace(TOY, variants={"tiny_a": {}}))
    with pytest.raises(ValueError, match="fasternet_t0"):
        register(Family(network=Toy, variants={"fasternet_t0": {}}, name="fasternet"))
