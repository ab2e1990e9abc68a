"""Training: it learns, and each part of a step does what its formula says."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from training_runs import few_digits, largest_difference, tiny, without_batch_norm

from paperrepro import create_model, load_model, reparameterize
from paperrepro.datasets import Images, load_data
from paperrepro.files import UnreadableImage
from paperrepro.training import (
    Classification,
    Machine,
    Trainer,
    draw_curves,
    evaluate,
    train,
)
from paperrepro.training.optimizers import parameter_groups
from paperrepro.training.preparation import transform_for_training, transform_for_validation
from paperrepro.training.recipe import from_json
from paperrepro.training.schedules import learning_rate, weight_decay
from paperrepro.training.task import starting_network

# It learns


def test_a_tiny_network_learns_the_digits(tmp_path):
    recipe = tiny(epochs=5, mixup=0.0, batch_size=64)
    log = train(recipe, load_data("digits"), tmp_path / "run", progress=False)
    assert log["top1"].iloc[-1] > 60 > 30 > log["top1"].iloc[0]
    assert log["train_loss"].is_monotonic_decreasing


def test_what_a_run_leaves(whole):
    events = set(whole.glob("events.out.*"))  # of TensorBoard, where it is installed
    assert {path.name for path in set(whole.iterdir()) - events} == {
        "last.pt",
        "previous.pt",
        "log.csv",
        "log.json",
        "recipe.json",
        "steps.csv",
        "best.safetensors",
        "model.safetensors",
        ".lock",
    }
    log = json.loads((whole / "log.json").read_text())
    assert len(log["epochs"]) == 4 and log["classes"] == list("0123456789")
    assert log["surroundings"]["torch"] == torch.__version__
    assert from_json((whole / "recipe.json").read_text()) == tiny()
    states = [torch.load(whole / name, weights_only=True) for name in ("previous.pt", "last.pt")]
    assert [state["epoch"] for state in states] == [3, 4]
    model = load_model(whole / "model.safetensors")
    view = transform_for_validation(tiny())
    score = evaluate(model, few_digits().val, view)
    assert score.top1 == pytest.approx(log["epochs"][-1]["top1"])
    assert score.loss == pytest.approx(log["epochs"][-1]["val_loss"])
    best = max(row["top1"] for row in log["epochs"])
    score = evaluate(load_model(whole / "best.safetensors"), few_digits().val, view)
    assert score.top1 == pytest.approx(best)


def test_the_log_of_the_steps(whole):
    steps, log = pd.read_csv(whole / "steps.csv"), pd.read_csv(whole / "log.csv")
    assert steps["step"].tolist() == [*range(1, 17)]
    means = steps["loss"].to_numpy().reshape(4, 4).mean(1)
    assert means.tolist() == pytest.approx(log["train_loss"].tolist())
    rates = [learning_rate(tiny(), step / 4) for step in range(16)]
    assert steps["lr"].tolist() == pytest.approx(rates)
    assert (steps[["images_per_second", "memory_mb"]] > 0).all(axis=None)
    assert log["top1_without_ema"].notna().tolist() == [False, False, False, True]


def test_curves(whole):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = draw_curves({"whole": whole})
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    with pytest.raises(FileNotFoundError, match="log.csv"):
        draw_curves({"nothing": whole / "nothing"})


# Bad data


class Unreadable(Images):
    """Every `period`-th image is damaged."""

    period = 50

    def __getitem__(self, index):
        if index % self.period == 0:
            raise UnreadableImage(f"{index}.jpg: cut off")
        return super().__getitem__(index)


def test_unreadable_images_are_counted_and_too_many_stop_the_training(tmp_path, capsys):
    digits = load_data("digits")
    images = Unreadable(digits.train.images[:200], digits.train.labels[:200])
    data = replace(digits, train=images, val=images)
    log = train(tiny(epochs=1, max_unreadable=0.02), data, tmp_path / "run", progress=False)
    assert log["unreadable"].iloc[-1] == 4
    told = capsys.readouterr().err
    assert "150.jpg: cut off" in told
    with pytest.raises(OSError, match=r"2 of .*200 .*digits.* .*0.005"):
        train(tiny(max_unreadable=0.005), data, tmp_path / "other", progress=False)
    score = evaluate(create_model("mobileone_s0"), images, transform_for_validation(tiny()))
    assert score.images == 196 and len(score.unreadable) == 4


def test_unreadable_images_of_the_validation_are_told_and_counted(tmp_path, capsys):
    digits = load_data("digits")
    data = replace(few_digits(), val=Unreadable(digits.val.images[:60], digits.val.labels[:60]))
    log = train(tiny(epochs=1), data, tmp_path / "run", progress=False)
    assert log["unreadable"].iloc[-1] == 2
    assert "left out of the validation: 50.jpg" in capsys.readouterr().err


def test_data_that_do_not_fit(tmp_path):
    data = few_digits()
    with pytest.raises(ValueError, match="9.*3"):
        train(tiny(), replace(data, classes=("0", "1", "2", "3")), tmp_path, progress=False)
    with pytest.raises(ValueError, match="batch_size 256 .*128 .*digits"):
        train(tiny(batch_size=256), data, tmp_path)
    with pytest.raises(ValueError, match="GPU"):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        train(tiny(), data, tmp_path, machine=Machine(device="cuda"))


# The parts of a step


def test_accumulated_steps_are_one_large_step(tmp_path):
    for parts in (1, 4):
        recipe = without_batch_norm(accumulate=parts)
        train(recipe, few_digits(), tmp_path / str(parts), progress=False)
    assert largest_difference(tmp_path / "1", tmp_path / "4") < 1e-5


# The parts of a step


def steps_of(recipe, count, **machine):
    """A training after some steps, and its weights after each."""
    trainer = Trainer(Classification(recipe, few_digits()), machine=Machine(**machine))
    weights = []
    for batches, _ in zip(trainer.epoch_batches(), range(count), strict=False):
        trainer.step(batches)
        weights.append([parameter.detach().clone() for parameter in trainer.model.parameters()])
    return trainer, weights


def test_the_average_of_the_weights():
    training, weights = steps_of(tiny(ema=0.75), 4)
    expected = weights[0]
    for current in weights[1:]:
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, current, strict=True)]
    kept = list(training.kept.parameters())
    for ours, theirs in zip(kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    trainer, _ = steps_of(tiny(ema=0.0), 1)
    assert trainer.kept is trainer.model


def test_clipping_bounds_the_step():
    recipe = tiny(clip_grad=0.01, weight_decay=0.0, final_weight_decay=None, lr=1.0)
    torch.manual_seed(recipe.seed)
    start = [
        p.detach().clone()
        for p in create_model(recipe.model, num_classes=10, **recipe.config).parameters()
    ]
    _, (after,) = steps_of(recipe, 1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, start, strict=True)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_norms_and_biases_do_not_decay_and_the_rest_is_annealed():
    recipe = tiny(weight_decay=0.3, final_weight_decay=0.1)
    training, _ = steps_of(recipe, 3)
    for group in training.optimizer.param_groups:
        vectors = {parameter.dim() == 1 for parameter in group["params"]}
        assert vectors == {not group["decays"]}
    decays = {group["decays"]: group["weight_decay"] for group in training.optimizer.param_groups}
    assert decays == {True: weight_decay(recipe, 2 / training.steps), False: 0.0}
    assert decays[True] < 0.3


def test_layer_decay_slows_the_first_stages():
    recipe = tiny(layer_decay=0.5, lr=0.32)
    model = create_model(recipe.model, **recipe.config)
    parts = Classification(recipe, few_digits()).parts(model)
    groups = parameter_groups(parts, recipe)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[id(model.head.fc.weight)] == 0.32
    for i, expected in enumerate((0.02, 0.04, 0.08, 0.16)):
        (rate,) = {rates[id(p)] for p in model.stages[i].parameters()}
        assert rate == pytest.approx(expected)
    assert {rates[id(p)] for p in model.stem.parameters()} == {0.01}
    assert len(parameter_groups(parts, tiny())) == 2


def test_progressive_learning_changes_the_size():
    recipe = tiny(size=64, progressive=((0, 32, 0.5), (2, 64, 1.0)))
    data = few_digits()
    sides = [
        transform_for_training(recipe, epoch)(data.train[0][0]).shape[-1] for epoch in range(4)
    ]
    assert sides == [32, 32, 64, 64]


def test_a_training_begins_with_weights(tmp_path, whole):
    """With other drop rates, another classifier; but not with re-parameterized weights."""
    weights = whole / "model.safetensors"
    same = starting_network(tiny(), 10, weights, trunk_only=False)
    assert torch.equal(same.head.fc.weight, load_file(weights)["head.fc.weight"])
    trunk = starting_network(tiny(), 3, weights, trunk_only=True)
    assert trunk.head.fc.out_features == 3
    assert torch.equal(
        trunk.stages[0].blocks[0].conv["conv0"].conv.weight,
        same.stages[0].blocks[0].conv["conv0"].conv.weight,
    )
    from paperrepro import save_model

    save_model(reparameterize(same), tmp_path / "fused.safetensors")
    with pytest.raises(ValueError, match="re-parameterized"):
        starting_network(tiny(), 10, tmp_path / "fused.safetensors", trunk_only=False)
