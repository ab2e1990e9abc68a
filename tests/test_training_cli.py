"""`paperrepro train`, `evaluate` and `recipe`."""

import json

import pytest
import typer
from training_runs import few_digits, tiny
from typer.testing import CliRunner

from paperrepro.cli import training as commands
from paperrepro.training.recipe import REASONS

# The commands


@pytest.fixture
def app():
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (commands.train, commands.evaluate, commands.recipe):
        app.command()(command)

    def run(*words, code=0):
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_train_evaluate_recipe(app, tmp_path, monkeypatch):
    monkeypatch.setattr("paperrepro.datasets.load_data", lambda *args, **kwargs: few_digits())
    run = tmp_path / "run"
    recipe = tmp_path / "tiny.json"
    recipe.write_text(tiny(epochs=1).to_json())
    words = ("train", "mobileone_s1", "--data", "digits", "--recipe", recipe, "--out", run)
    assert "top-1" in app(*words)
    assert "--resume" in app(*words, code=1)
    assert "top-1" in app(*words, "--resume")
    weights = run / "model.safetensors"
    told = app("evaluate", "mobileone_s1", "--weights", weights, "--data", "digits")
    assert "as trained" in told and "re-parameterized" in told
    told = app("evaluate", "mobileone_s0", "--weights", weights, "--data", "digits", code=1)
    assert "mobileone_s1" in told and "mobileone_s0" in told


def test_recipe_command(app):
    told = app("recipe", "mobileone_s0", "--recipe", "small")
    assert "'paper'" in told and REASONS["epochs"] in told
    told = app("recipe", "fasternet_s", "--format", "json", "--set", "lr=0.5")
    assert json.loads(told)["lr"] == 0.5
    assert "rand_augment,9.0" in app("recipe", "rapidnet_m", "--format", "csv")
    assert "'tiny'" in app("recipe", "rapidnet_m", "--recipe", "tiny", code=2)


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--data", "nothing"), 1, "'nothing'"),
        (("--data", "digits", "--set", "lrr=1"), 2, "'lrr'"),
        (("--data", "digits", "--recipe", "missing.json"), 2, "missing.json"),
        (("--data", "digits", "--weights", "missing.pt"), 1, "missing.pt"),
        (("--data", "cifar10", "--root", "nowhere"), 1, "nowhere"),
    ],
)
def test_mistakes_are_one_line(app, tmp_path, words, code, message):
    told = app(
        "train", "mobileone_s0", "--recipe", "small", "--out", tmp_path / "r", *words, code=code
    )
    assert message in told and told.startswith("paperrepro: ") and told.count("\n") == 1
    assert not (tmp_path / "r").exists(), "nothing was begun"
