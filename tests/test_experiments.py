"""The ablations: what they compare, how they run and resume, and that what is stored is theirs."""

import json
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image
from typer.testing import CliRunner

from paperrepro.cli import app
from paperrepro.datasets import load_data
from paperrepro.results import load_correct, load_result
from paperrepro.training import experiments as running
from paperrepro.training.dense_studies import STUDIES
from paperrepro.training.evaluation import evaluate
from paperrepro.training.experiments import (
    Source,
    find_experiment,
    keep_weights,
    recipes_json,
    run_experiment,
    summary,
)
from paperrepro.training.listing import (
    estimated_hours,
    listing,
    seconds_of,
    seconds_per_image,
    short_recipe,
    stored_steps,
)
from paperrepro.training.preparation import transform_for_validation
from paperrepro.training.recipe import changes, from_json
from paperrepro.training.studies import EXPERIMENTS, TEACHER, Experiment
from paperrepro.weights import create_model, load_model

DATA = Path(__file__).parents[1] / "data"
KEPT = ("shapes", "cifar10-full")
"""The experiments whose networks of seed 0 lie in data/weights."""
FAMILIES = (*KEPT, "cifar10-kernels", "cues", "tiny-imagenet")
STORED = [
    path.stem.removeprefix("experiment-")
    for path in sorted((DATA / "results").glob("experiment-*.json"))
]
LOST = {"cifar10-full": 0}
"""The seed of which the networks are left, in half precision, and no log."""

TINIEST = {"widths": (0.25, 0.125, 0.125, 0.125), "blocks": (1, 1, 1, 1), "k": 1}
TRIAL = Experiment(
    source="a test",
    data="shapes",
    common={"epochs": 2, "batch_size": 4},
    variants={
        "with": ("mobileone_s0", {"config": TINIEST}),
        "without": ("mobileone_s0", {"config": TINIEST | {"branches": False}}),
        "taught": (
            "mobileone_s0",
            {"config": TINIEST, "distillation": "hard", "distillation_weight": 1.0},
        ),
    },
    teacher=("fasternet_t0", {"config": {"embed_dim": 8, "depths": (1, 1, 1, 1)}}),
)


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """A process takes long to start; tests/test_trainer.py has trainings in several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "processes", lambda jobs: AtOnce())
        yield


class AtOnce(Executor):
    def submit(self, function, /, *given, **named):
        done = Future()
        done.set_result(function(*given, **named))
        return done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes: bright pictures and dark ones."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 6), ("val", 4)):
        for label, shade in (("bright", 220), ("dark", 30)):
            for i in range(count):
                path = folder / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (shade + i,) * 3).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def trial(pictures, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return runs, run_experiment(TRIAL, runs, data=pictures, seeds=2, progress=False)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_variant_can_be_built_and_trained(name):
    experiment = EXPERIMENTS[name]
    for label in [*experiment.variants, *([TEACHER] if experiment.teacher else [])]:
        recipe = experiment.recipe(label)
        with torch.device("meta"):
            create_model(recipe.model, num_classes=16, **recipe.config)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in FAMILIES])
def test_variants_differ_in_what_is_asked_and_in_nothing_else(name):
    experiment = EXPERIMENTS[name]
    first = experiment.recipe(next(iter(experiment.variants)))
    allowed = {
        "mobileone-training": {"progressive", "final_weight_decay", "ema"},
        "rapidnet-mixers": {"config", "distillation", "teacher"},
    }.get(name, {"config"})
    for label in experiment.variants:
        assert set(changes(experiment.recipe(label), first)) <= allowed


def test_the_families_have_one_budget():
    for name in FAMILIES:
        recipes = [EXPERIMENTS[name].recipe(label) for label in EXPERIMENTS[name].variants]
        assert len({(r.epochs, r.batch_size, r.size, r.crop_scale) for r in recipes}) == 1


def test_a_run_per_variant_and_seed(trial):
    _, outcome = trial
    runs = [(label, seed) for seed in (0, 1) for label in ("with", "without", "taught")]
    assert list(zip(outcome.table["variant"], outcome.table["seed"], strict=True)) == [
        (TEACHER, 0),
        *runs,
    ]
    assert len(outcome.log) == 2 * len(outcome.table)
    last = outcome.log.groupby(["variant", "seed"], sort=False)["val_loss"].last().tolist()
    assert last == pytest.approx(outcome.table["val_loss"].tolist())
    kparams = outcome.table.set_index("variant")["kparams"]
    assert kparams["with"].max() > kparams["without"].max()
    with_branches = outcome.table[outcome.table["variant"] == "with"]
    assert with_branches["val_loss"].nunique() == 2, "the seeds do nothing"


def test_the_teacher_is_the_one_that_was_trained(trial):
    runs, _ = trial
    recipe = json.loads((runs / "taught-0/recipe.json").read_text())
    assert recipe["teacher"] == str(runs / "teacher/model.safetensors")
    assert json.loads((runs / "with-0/recipe.json").read_text())["teacher"] is None


def test_what_is_done_is_not_done_again_and_what_is_missing_is(trial, pictures):
    runs, outcome = trial
    kept = runs / "with-0/model.safetensors"
    before = kept.stat().st_mtime_ns
    lost = runs / "without-1/model.safetensors"
    content = safetensors.torch.load_file(lost)
    lost.unlink()
    (runs / "without-1/last.pt").unlink()  # as if killed while the last epoch was written
    again = run_experiment(TRIAL, runs, data=pictures, seeds=2, progress=False)
    assert kept.stat().st_mtime_ns == before
    torch.testing.assert_close(safetensors.torch.load_file(lost), content, rtol=0, atol=0)
    columns = [name for name in outcome.table if name != "seconds"]
    pd.testing.assert_frame_equal(again.table[columns], outcome.table[columns])


def test_kept_weights_are_half_as_large_and_say_how_good_they_are(trial, pictures, tmp_path):
    runs, _ = trial
    kept = keep_weights(TRIAL, "trial", runs, tmp_path / "weights", data=pictures)
    assert list(kept["file"]) == [f"trial-{label}.safetensors" for label in TRIAL.variants]
    for row in kept.itertuples():
        stored = tmp_path / "weights" / row.file
        label = row.file.removeprefix("trial-").removesuffix(".safetensors")
        full = runs / f"{label}-0" / "model.safetensors"
        assert stored.stat().st_size < 0.7 * full.stat().st_size
        model = load_model(stored)
        assert next(model.parameters()).dtype == torch.float32
        recipe = TRIAL.recipe(label)
        score = evaluate(model, load_data(pictures).val, transform_for_validation(recipe))
        assert row.top1_stored == round(score.top1, 2)


def test_the_answers_are_those_of_the_networks(trial, pictures):
    runs, outcome = trial
    assert outcome.correct.shape == (len(outcome.table), 8)
    assert outcome.table["top1"].tolist() == [round(100 * c.mean(), 2) for c in outcome.correct]
    recipe = TRIAL.recipe("with")
    score = evaluate(
        load_model(runs / "with-0/model.safetensors"),
        load_data(pictures).val,
        transform_for_validation(recipe),
    )
    row = outcome.table.set_index(["variant", "seed"]).loc["with", 0]
    told = (row["top1"], row["top5"], row["val_loss"])
    assert told == pytest.approx((score.top1, score.top5, score.loss), abs=1e-3)


def test_images_are_evenly_spaced_and_trials_see_no_test_image(pictures):
    data, test = Source(pictures, "data", images=6, watched=2).load(32)
    assert [label for _, label in (data.train[i] for i in range(6))] == [0, 0, 0, 1, 1, 1]
    assert len(data.val) == 2 and len(test) == 8
    data, held_out = Source(pictures, "data").load(32, trial=True)
    names = [set(files(part)) for part in (data.train, data.val)]
    assert held_out is data.val and len(data.val) == 2
    assert not names[0] & names[1] and len(names[0] | names[1]) == 12
    assert all("/train/" in name for name in names[0] | names[1])


def files(part):
    """Of a subset of a folder that is kept in memory."""
    return [part.dataset.images.samples[i][0] for i in part.indices]


def test_each_variant_keeps_its_best_rate(pictures, tmp_path):
    quick = replace(
        TRIAL,
        teacher=None,
        common={"epochs": 3, "batch_size": 4},
        rates=(1e-9, 1.0),
        trial={"epochs": 4},
        variants={"with": TRIAL.variants["with"]},
    )
    outcome = run_experiment(quick, tmp_path, data=pictures, seeds=1, progress=False)
    assert outcome.trials["rate"].tolist() == [1e-9, 1.0]
    best = outcome.trials.sort_values("top1").iloc[-1]
    assert outcome.table["lr"].item() == pytest.approx(best["rate"] * quick.recipe("with").lr)
    assert len(pd.read_csv(tmp_path / "trials" / "with-1000-1" / "log.csv")) == 4


def test_summary_has_mean_and_spread():
    table = pd.DataFrame(
        {
            "variant": ["b", "a", "b", "a"],
            "seed": [0, 0, 1, 1],
            "kparams": [2.0, 1.0, 2.0, 1.0],
            "top1": [50.0, 10.0, 54.0, 10.0],
            "train_loss": [1.0, 2.0, 3.0, 2.0],
            "val_loss": [1.0, 2.0, 3.0, 2.0],
        }
    )
    found = summary(table).set_index("variant")
    assert list(found.index) == ["b", "a"]
    assert found.loc["b", ["top1", "std"]].tolist() == [52.0, 2.83]
    assert found.loc["a", ["top1", "std", "seeds"]].tolist() == [10.0, 0.0, 2]


def test_the_command(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = replace(TRIAL, teacher=None, variants={"with": TRIAL.variants["with"]})
    monkeypatch.setitem(EXPERIMENTS, "trial", quick)
    run = CliRunner().invoke
    options = ["--data", pictures, "--seeds", "1", "--out", "results", "--weights", "weights"]
    result = run(app, ["experiment", "trial", *options, "--format", "csv"])
    assert result.exit_code == 0, result.output
    assert "with" in result.stdout
    stored = load_result(tmp_path / "results/experiment-trial.csv")
    assert stored.provenance["source"] == "a test"
    assert stored.provenance["images"] == "12 for training, 8 for testing"
    assert stored.provenance["command"] == (
        f"paperrepro experiment trial --data {pictures} --seeds 1"
    )
    assert list(stored.table["variant"]) == ["with"]
    correct = load_correct("trial", tmp_path / "results")
    assert correct["with"].shape == (1, 8)
    assert round(100 * correct["with"].mean(), 2) == stored.table["top1"].item()
    assert json.loads((tmp_path / "results/experiment-trial.json").read_text())["with"]
    assert (tmp_path / "weights/trial-with.safetensors").exists()


def test_an_experiment_goes_on_from_its_results_alone(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = replace(TRIAL, rates=(1e-9, 1.0), trial={"epochs": 2})
    monkeypatch.setitem(EXPERIMENTS, "trial", quick)

    def run(runs, out, *more, data=pictures):
        options = ["--data", data, "--runs", runs, "--out", out, *more]
        return CliRunner().invoke(app, ["experiment", "trial", *options])

    assert run("here", "part", "--seeds", "1").exit_code == 0
    added = run("there", "part", "--seeds", "2", "--add")
    assert added.exit_code == 0, added.output
    done = {path.parent.name for path in Path("there/trial").glob("*/model.safetensors")}
    assert done == {"teacher", "with-1", "without-1", "taught-1"}
    assert not Path("there/trial/trials").exists(), "the known trials chose the rates"
    assert run("whole", "whole", "--seeds", "2", "--add").exit_code == 0, "nothing is known"
    for part in ("", "-log", "-trials"):
        two = [load_result(f"{out}/experiment-trial{part}.csv").table for out in ("part", "whole")]
        two = [table.drop(columns="seconds", errors="ignore") for table in two]
        pd.testing.assert_frame_equal(*two)
    parts, whole = (load_correct("trial", Path(out)) for out in ("part", "whole"))
    assert all((parts[label] == whole[label]).all() for label in whole)

    for label in ("bright", "dark"):
        (tmp_path / "other/val" / label).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(f"other/val/{label}/0.png")
    (tmp_path / "other/train").symlink_to(f"{pictures}/train")
    refused = run("there", "part", "--seeds", "3", "--add", data="other")
    assert refused.exit_code == 1 and "8 test images" in refused.stderr
    monkeypatch.setitem(EXPERIMENTS, "trial", replace(quick, common={"epochs": 3}))
    refused = run("there", "part", "--seeds", "3", "--add")
    assert refused.exit_code == 1 and "other recipes" in refused.stderr
    nowhere = CliRunner().invoke(app, ["experiment", "trial", "--add"])
    assert nowhere.exit_code == 2 and "--out" in nowhere.stderr


def test_the_command_lists_the_experiments_and_refuses_others():
    run = CliRunner().invoke
    listed = run(app, ["experiment", "--list", "--format", "csv"])
    assert all(name in listed.stdout for name in EXPERIMENTS)
    assert run(app, ["experiment", "--format", "csv"]).stdout == listed.stdout
    wrong = run(app, ["experiment", "mobileone-facto"])
    assert wrong.exit_code == 2 and "mobileone-factor" in wrong.stderr
    nothing = run(app, ["experiment", "shapes", "--data", "nowhere"])
    assert nothing.exit_code == 1 and "unknown data 'nowhere'" in nothing.stderr


# What is stored.


def test_every_experiment_was_run():
    assert set(STORED) == set(EXPERIMENTS)


@pytest.mark.parametrize("name", STORED)
def test_stored_results_are_of_this_experiment(name):
    experiment = find_experiment(name)
    stored = load_result(f"experiment-{name}")
    table = stored.table[stored.table["variant"] != TEACHER]
    assert set(table["variant"]) == set(experiment.variants)
    command = stored.provenance["command"]
    assert command.startswith(f"paperrepro experiment {name}")
    seeds = table.groupby("variant")["seed"].nunique()
    assert seeds.nunique() == 1 and seeds.min() >= 3
    recipes = (DATA / "results" / f"experiment-{name}.json").read_text(encoding="utf-8")
    first, *others = json.loads(recipes).items()
    assert from_json(json.dumps(first[1])) == experiment.recipe(first[0]), "run it again"
    assert others == [*json.loads(recipes_json(experiment)).items()][1:], "run it again"
    log = load_result(f"experiment-{name}-log").table
    lost = stored.table["seed"] == LOST.get(name)
    assert len(log) == stored.table["epochs"].where(~lost, 1).sum()
    assert (stored.table["seconds"].isna() == lost).all()


@pytest.mark.parametrize("name", KEPT)
def test_the_small_networks_learned(name):
    table = load_result(f"experiment-{name}").table
    chance = {"shapes": 100 / 16, "cifar10-full": 100 / 10}[name]
    assert (table.groupby("variant")["top1"].min() > 3 * chance).all()


def test_stored_networks_are_those_of_the_tables_and_within_10_megabytes():
    files = {path.name: path.stat().st_size for path in (DATA / "weights").glob("*.safetensors")}
    told = pd.concat([load_result(f"weights-{name}").table for name in KEPT])
    segmenters = load_result("weights-camvid").table
    assert {*told["file"], *segmenters["file"]} == set(files)
    assert sum(files.values()) < 1e7
    assert (segmenters["trained"] - segmenters["stored"]).abs().max() < 0.1
    assert (told["top1"] - told["top1_stored"]).abs().max() < 1
    assert told["top1"].min() > 70
    for name in KEPT:
        column = "top1_stored" if LOST.get(name) == 0 else "top1"
        kept = load_result(f"weights-{name}").table[column].tolist()
        table = load_result(f"experiment-{name}").table
        assert kept == table[table["seed"] == 0]["top1"].tolist()


@pytest.mark.parametrize("family", ["mobileone", "replknet"])
def test_a_stored_network_is_as_good_as_its_table_says(family):
    told = load_result("weights-shapes").table.set_index("file")
    model = load_model(DATA / "weights" / f"shapes-{family}.safetensors")
    recipe = EXPERIMENTS["shapes"].recipe(family)
    data = load_data("shapes", size=recipe.size)
    score = evaluate(model, data.val, transform_for_validation(recipe))
    assert score.top1 == pytest.approx(
        told.loc[f"shapes-{family}.safetensors", "top1_stored"], abs=0.1
    )


def test_the_list_tells_what_is_stored_and_what_it_costs():
    found = listing().set_index("experiment")
    assert set(found.index) == {*EXPERIMENTS, *STUDIES}
    block = found.loc["fasternet-block"]
    assert block["stored"] == block["seeds"] == 13
    seconds = load_result("experiment-fasternet-block").table["seconds"].sum()
    assert block["hours"] == pytest.approx(seconds / 3600, abs=0.06)
    assert (found["core_hours"] > 0).all()
    assert found.loc["camvid", "stored"] >= 3


def test_the_estimate_counts_every_run_and_every_trial():
    """Two variants of 4 epochs on 1,000 images; the trials: 3 rates, 2 epochs, nine tenths."""
    asked = replace(
        TRIAL,
        variants={label: TRIAL.variants[label] for label in ("with", "without")},
        common={"epochs": 4},
        seeds=5,
        images=1000,
        rates=(0.5, 1.0, 2.0),
        trial={"epochs": 2},
    )
    per_image = {"with": 0.36, "without": 0.72}
    runs, trials = 5 * 4 * 1000, 3 * 2 * 900
    assert estimated_hours(asked, per_image) == pytest.approx((runs + trials) * 1.08 / 3600)


def test_a_step_of_every_variant_can_be_measured_and_was(monkeypatch):
    for experiment in EXPERIMENTS.values():
        for label in experiment.variants:
            assert short_recipe(experiment.recipe(label), 1).epochs == 1
    assert set(stored_steps()) == set(EXPERIMENTS)
    assert all(seconds > 0 for rows in stored_steps().values() for seconds in rows.values())
    seen = []

    def told(recipe, data):
        """Four seconds to begin, and three for an epoch; the first training is done as well."""
        assert seen or seconds_of(recipe, data) > 0
        seen.append((len(data.train), recipe.epochs))
        return 4 + 3 * recipe.epochs

    monkeypatch.setattr("paperrepro.training.listing.seconds_of", told)
    assert seconds_per_image(replace(TRIAL, data="cifar10"), "with", images=20) == 3 / 20
    assert seen == [(20, 1), (20, 2)]
