"""What the page of a full ImageNet run states: its estimates, and the files of `examples/`."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from paperrepro.cli import app
from paperrepro.models import list_models
from paperrepro.training.cost import (
    DOWNSTREAM,
    IMAGENET,
    downstream_flops,
    downstream_help,
    estimated_costs,
    training_flops,
)
from paperrepro.training.place import process_group
from paperrepro.training.recipe import find_recipe, list_recipes

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book/full-imagenet-run.md").read_text(encoding="utf-8")


def test_the_estimates_are_those_of_the_command_beside_them():
    names = tuple(re.findall(r'"(\w+)"', PAGE.partition("estimated_costs((")[2].partition("))")[0]))
    told = [
        line.strip("| ").split(" | ") for line in PAGE.splitlines() if line[2:].startswith(names)
    ]
    counted = estimated_costs(names).itertuples(index=False)
    assert told == [[str(value) for value in row] for row in counted] and len(told) == 5


def test_the_operations_by_hand():
    """FasterNet-T0: 280 epochs at 192 pixels and 20 at 224, 335.4 million multiply-adds there."""
    expected = 6 * 335_422_720 * IMAGENET * (280 * (192 / 224) ** 2 + 20)
    assert abs(training_flops(find_recipe("fasternet_t0")) / expected - 1) < 0.01


def test_every_downstream_recipe_has_its_cost():
    """FasterNet-S under Mask R-CNN: 264.8 G multiply-adds a picture of 800 x 1280 (its Table 4)."""
    expected = 6 * 264.8e9 * 118_287 * 12
    assert abs(downstream_flops("fasternet_s", "mask_rcnn") / expected - 1) < 0.001
    found = {recipe for name in list_models() for recipe in list_recipes(name)}
    assert set(DOWNSTREAM) <= found
    heads = {"mask_rcnn", "semantic_fpn", "ssdlite", "deeplabv3", "upernet", "fcos"}
    assert heads <= set(DOWNSTREAM)
    command, estimate = downstream_help("rapidnet_m", "semantic_fpn").split("\n")
    assert "ESTIMATE" in estimate and options(shlex.split(command)) <= {"--resume"} | {
        f"--{name}" for name in ("task", "head", "recipe", "weights", "data", "out")
    }


def options(words):
    """The options of `paperrepro train` in a command."""
    return {word for word in words[words.index("train") :] if word.startswith("--")}


def test_the_examples_call_the_command_as_it_is():
    import typer

    command = typer.main.get_command(app).commands["train"]
    known = {name for parameter in command.params for name in parameter.opts}
    job = yaml.safe_load((ROOT / "examples/pytorchjob.yaml").read_text(encoding="utf-8"))
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    script = (ROOT / "examples/train.slurm").read_text(encoding="utf-8")
    called = shlex.split(script.partition("srun ")[2].replace("\\\n", " "))
    for words in (container["command"] + container["args"], called):
        assert options(words) <= known and "--resume" in options(words)
    assert "--rdzv-backend=c10d" in called
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in script
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert job["spec"]["elasticPolicy"]["rdzvBackend"] == "c10d"


def test_a_restart_that_would_wait_for_the_dead_is_refused(monkeypatch):
    for name, value in {
        "WORLD_SIZE": "2",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        with process_group("cpu"):
            pass
