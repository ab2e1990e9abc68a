"""Training: it learns, it survives every kill, and many processes do what one does."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Subset
from typer.testing import CliRunner

from paperrepro import create_model, load_model, reparameterize
from paperrepro.cli import training as commands
from paperrepro.datasets import Images, load_data
from paperrepro.files import UnreadableImage
from paperrepro.training import (
    Diverged,
    Interrupted,
    draw_curves,
    evaluate,
    find_recipe,
    train,
)
from paperrepro.training.checkpoint import load_checkpoint
from paperrepro.training.distillation import Answers, load_teacher, loss_of
from paperrepro.training.evaluation import fused_difference
from paperrepro.training.recipe import REASONS, from_json
from paperrepro.training.trainer import (
    Place,
    Training,
    parameter_groups,
    transform_for_training,
    transform_for_validation,
)

HERE = Place(0, 1, torch.device("cpu"))
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["paperrepro.training"])


def few_digits(images=128):
    data = load_data("digits")
    return replace(data, train=Subset(data.train, range(images)), val=Subset(data.val, range(32)))


def tiny(**changes):
    """A network of 20,000 parameters, with BatchNorm, EMA and annealed weight decay."""
    recipe = find_recipe("mobileone_s1", "small")
    config = {"widths": [0.125, 0.125, 0.125, 0.125], "blocks": [1, 1, 1, 1]}
    settings = {"config": config, "batch_size": 32, "epochs": 4, "ema": 0.9, "mixup": 0.2}
    return replace(recipe, **(settings | changes))


def without_batch_norm(**changes):
    recipe = find_recipe("fasternet_t0", "small")
    config = {"embed_dim": 8, "depths": [1, 1, 1, 1], "norm": "layer", "drop_path_rate": 0.0}
    settings = {"config": config, "batch_size": 32, "epochs": 2, "lr": 1e-3}
    return replace(recipe, **(settings | changes))


class Signalling(torch.utils.data.Dataset):
    """Sends this process a signal when the n-th image is asked for."""

    def __init__(self, images, moment, signal=signal.SIGTERM):
        self.images, self.left, self.signal = images, moment, signal

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)
        return self.images[index]


def run_in_child(recipe, run, *, faults=(), begun=None):
    """A child process that trains, with its faults: ("last.pt", n) kills it when a file is about to
    take that name for the n-th time, ("image", n) at its n-th image, ("disk", bytes) lets no file
    grow beyond that."""
    child = CHILDREN.Process(target=in_child, args=(recipe, str(run), faults, begun))
    child.start()
    return child


def in_child(recipe, run, faults, begun):
    torch.set_num_threads(1)
    data = few_digits()
    for fault, number in faults:
        if fault == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
        elif fault == "image":
            data = replace(data, train=Signalling(data.train, number, signal.SIGKILL))
        else:
            kill_before_renaming(fault, number)
    if begun:
        begun.set()
    try:
        train(recipe, data, run, resume=True, progress=False)
    except OSError as error:
        with open(f"{run}.error", "w") as file:
            file.write(str(error))


def kill_before_renaming(name, number):
    """Python announces every renaming, by whatever function, as the event "os.rename"."""
    left = number

    def watch(event, arguments):
        nonlocal left
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def same_weights(run, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (run, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of `tiny` that nothing interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    child = run_in_child(tiny(), run)
    child.join()
    assert child.exitcode == 0
    return run


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
        "model.safetensors",
    }
    log = json.loads((whole / "log.json").read_text())
    assert len(log["epochs"]) == 4 and log["classes"] == list("0123456789")
    assert log["surroundings"]["torch"] == torch.__version__
    assert from_json((whole / "recipe.json").read_text()) == tiny()
    states = [torch.load(whole / name, weights_only=True) for name in ("previous.pt", "last.pt")]
    assert [state["epoch"] for state in states] == [3, 4]
    model = load_model(whole / "model.safetensors")
    score = evaluate(model, few_digits().val, transform_for_validation(tiny()))
    assert score.top1 == pytest.approx(log["epochs"][-1]["top1"])
    assert score.loss == pytest.approx(log["epochs"][-1]["val_loss"])


def test_curves(whole):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = draw_curves({"whole": whole})
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    with pytest.raises(FileNotFoundError, match="log.csv"):
        draw_curves({"nothing": whole / "nothing"})


# It survives


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, whole):
    moments, run, kills = random.Random(0), tmp_path / "run", 0
    log = json.loads((whole / "log.json").read_text())["epochs"]
    longest = sum(row["seconds"] for row in log) / 2
    while kills < 8:
        begun = CHILDREN.Event()
        child = run_in_child(tiny(), run, begun=begun)
        assert begun.wait(60)
        child.join(moments.uniform(0, longest))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        else:  # it was done before the kill: begin another one
            assert child.exitcode == 0 and same_weights(run, whole)
            run = tmp_path / f"run{kills}"
    child = run_in_child(tiny(), run)
    child.join()
    assert child.exitcode == 0 and same_weights(run, whole)


def test_killed_at_random_images(tmp_path, whole):
    """However fast the machine is, in the middle of an epoch."""
    images, run, reached = random.Random(1), tmp_path / "run", []
    for _ in range(6):
        child = run_in_child(tiny(), run, faults=[("image", images.randrange(1, 215))])
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        state = load_checkpoint(run)[0]
        reached.append(state["epoch"] if state else 0)
    assert len(set(reached)) >= 3, reached
    child = run_in_child(tiny(), run)
    child.join()
    assert child.exitcode == 0 and same_weights(run, whole)


@pytest.mark.parametrize(
    "name, time",
    [
        *(("last.pt", time) for time in (1, 2, 3)),
        *(("previous.pt", time) for time in (1, 2)),
        *((name, 1) for name in ("log.csv", "log.json", "recipe.json")),
    ],
)
def test_killed_before_a_file_takes_its_name(tmp_path, whole, name, time):
    run = tmp_path / "run"
    child = run_in_child(tiny(), run, faults=[(name, time)])
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child = run_in_child(tiny(), run)
    child.join()
    assert child.exitcode == 0 and same_weights(run, whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_saves_in_the_middle_of_an_epoch(tmp_path, whole, workers):
    data = few_digits()
    before = signal.getsignal(signal.SIGTERM)
    ending = replace(data, train=Signalling(data.train, 128 + 70))
    with pytest.raises(Interrupted, match="epoch 2 .*step 3.*--resume"):
        train(tiny(), ending, tmp_path, progress=False)
    assert signal.getsignal(signal.SIGTERM) is before
    state, _ = load_checkpoint(tmp_path)
    assert (state["epoch"], state["step"]) == (1, 3)
    train(tiny(), data, tmp_path, resume=True, workers=workers, progress=False)
    assert same_weights(tmp_path, whole), "and the number of workers changes nothing"


def test_a_cut_off_checkpoint_is_told_and_the_one_before_it_used(tmp_path, whole, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("last.pt", "previous.pt"):
        (run / name).write_bytes((whole / name).read_bytes())
    os.truncate(run / "last.pt", 5000)
    train(tiny(), few_digits(), run, resume=True, progress=False)
    told = capsys.readouterr().err
    assert "last.pt" in told
    assert same_weights(run, whole)
    assert (run / "last.damaged").stat().st_size == 5000
    for name in ("last.pt", "previous.pt"):
        os.truncate(run / name, 100)
    with pytest.raises(OSError, match="last.pt .100 bytes"):
        train(tiny(), few_digits(), run, resume=True, progress=False)


def test_a_full_disk_loses_nothing(tmp_path, whole):
    run = tmp_path / "run"
    child = run_in_child(tiny(), run, faults=[("previous.pt", 1)])
    child.join()
    size = (run / "last.pt").stat().st_size
    child = run_in_child(tiny(), run, faults=[("disk", size // 2)])
    child.join()
    told = (tmp_path / "run.error").read_text()
    assert "last.pt" in told
    assert load_checkpoint(run)[0]["epoch"] >= 1
    assert not list(run.glob("*.partial"))
    train(tiny(), few_digits(), run, resume=True, progress=False)
    assert same_weights(run, whole)


def test_a_loss_that_is_no_number_stops(tmp_path):
    recipe = tiny(optimizer="sgd", lr=1e9, ema=0.0)
    with pytest.raises(Diverged) as stopped:
        train(recipe, few_digits(), tmp_path, progress=False)
    told = str(stopped.value)
    for part in (
        "epoch 1, step",
        "rate of 9.",
        "--set lr=5e+08",
        "warmup_epochs=1",
        "clip_grad",
    ):
        assert part in told
    assert not (tmp_path / "last.pt").exists()


def test_a_run_is_resumed_as_it_began(tmp_path, whole):
    data = few_digits()
    with pytest.raises(ValueError, match=f"{whole}.*--resume"):
        train(tiny(), data, whole)
    other = tiny(config=tiny().config | {"k": 2})
    with pytest.raises(ValueError, match="mobileone_s1 .*'k': 2"):
        train(other, data, whole, resume=True)
    with pytest.raises(ValueError, match="lr .*0.05.* 0.01"):
        train(tiny(lr=0.01), data, whole, resume=True)
    with pytest.raises(ValueError, match="fasternet_t0"):
        train(without_batch_norm(), data, whole, resume=True)
    with pytest.raises(ValueError, match="128 images"):
        train(tiny(), few_digits(96), whole, resume=True)
    assert len(train(tiny(), data, whole, resume=True, progress=False)) == 4


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
    assert score.images == 196


def test_data_that_do_not_fit(tmp_path):
    data = few_digits()
    with pytest.raises(ValueError, match="9.*3"):
        train(tiny(), replace(data, classes=("0", "1", "2", "3")), tmp_path, progress=False)
    with pytest.raises(ValueError, match="batch_size 256 .*128 .*digits"):
        train(tiny(batch_size=256), data, tmp_path)
    with pytest.raises(ValueError, match="GPU"):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        train(tiny(), data, tmp_path, device="cuda")


# Many processes, many steps


def worker(rank, recipe, run):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + os.getppid() % 20000),
    }
    train(recipe, few_digits(), run, progress=False, device="cpu")


def largest_difference(run, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (run, other))
    return max((ours[key] - theirs[key]).abs().max().item() for key in ours)


def test_two_processes_train_the_network_of_one(tmp_path):
    recipe = without_batch_norm()
    children = [
        CHILDREN.Process(target=worker, args=(rank, recipe, tmp_path / "two")) for rank in (0, 1)
    ]
    for child in children:
        child.start()
    log = train(recipe, few_digits(), tmp_path / "one", progress=False)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5
    other = json.loads((tmp_path / "two/log.json").read_text())
    assert other["processes"] == 2
    assert other["epochs"][-1]["top1"] == log["top1"].iloc[-1]
    assert other["epochs"][-1]["train_loss"] == pytest.approx(log["train_loss"].iloc[-1], abs=1e-5)


def test_accumulated_steps_are_one_large_step(tmp_path):
    for parts in (1, 4):
        recipe = without_batch_norm(accumulate=parts)
        train(recipe, few_digits(), tmp_path / str(parts), progress=False)
    assert largest_difference(tmp_path / "1", tmp_path / "4") < 1e-5


@pytest.mark.slow
def test_torchrun_trains(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import typer
        from paperrepro.cli import training as commands
        app = typer.Typer()
        app.command()(commands.train)
        app.command()(commands.evaluate)
        app()
        """)
    )
    run = tmp_path / "run"
    sizes = 'config={"embed_dim": 8, "depths": [1, 1, 1, 1], "drop_path_rate": 0.1}'
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(40000 + os.getpid() % 20000), str(program), "train"),
        *("fasternet_t0", "--data", "digits", "--recipe", "small", "--out", str(run)),
        *("--set", "epochs=2", "--set", sizes, "--resume"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 1, "one process speaks"
    assert done.stderr.count("epoch 2/2") == 1
    assert json.loads((run / "log.json").read_text())["processes"] == 2


def test_batch_and_processes_must_fit(monkeypatch):
    with pytest.raises(ValueError, match="batch_size 32 .*3 processes"):
        Training(tiny(), few_digits(), create_model("mobileone_s0"), replace(HERE, world=3))


# The parts of a step


def steps_of(recipe, count):
    """A training after some steps, and its weights after each."""
    torch.manual_seed(0)
    data = few_digits()
    model = create_model(recipe.model, num_classes=10, **recipe.config)
    training = Training(recipe, data, model, HERE)
    batches, weights = training.batches(0), []
    for _ in range(count):
        training.take_step(batches, None, None)
        weights.append([parameter.detach().clone() for parameter in training.model.parameters()])
    return training, weights


def test_the_average_of_the_weights():
    training, weights = steps_of(tiny(ema=0.75), 4)
    expected = weights[0]
    for current in weights[1:]:
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, current, strict=True)]
    kept = list(training.kept().parameters())
    for ours, theirs in zip(kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert steps_of(tiny(ema=0.0), 1)[0].kept() is not None


def test_clipping_bounds_the_step():
    recipe = tiny(clip_grad=0.01, weight_decay=0.0, final_weight_decay=None, lr=1.0)
    torch.manual_seed(0)
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
    from paperrepro.training.schedules import weight_decay

    assert decays == {True: weight_decay(recipe, 2 / training.steps), False: 0.0}
    assert decays[True] < 0.3


def test_layer_decay_slows_the_first_stages():
    recipe = tiny(layer_decay=0.5, lr=0.32)
    model = create_model(recipe.model, **recipe.config)
    groups = parameter_groups(model, recipe)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[id(model.head.fc.weight)] == 0.32
    for i, expected in enumerate((0.02, 0.04, 0.08, 0.16)):
        (rate,) = {rates[id(p)] for p in model.stages[i].parameters()}
        assert rate == pytest.approx(expected)
    assert {rates[id(p)] for p in model.stem.parameters()} == {0.01}
    assert len(parameter_groups(model, tiny())) == 2


def test_progressive_learning_changes_the_size():
    recipe = tiny(size=64, progressive=((0, 32, 0.5), (2, 64, 1.0)))
    data = few_digits()
    sides = [
        transform_for_training(recipe, epoch)(data.train[0][0]).shape[-1] for epoch in range(4)
    ]
    assert sides == [32, 32, 64, 64]


def test_a_training_begins_with_weights(tmp_path, whole):
    """With other drop rates, another classifier; but not with re-parameterized weights."""
    from paperrepro.training.trainer import starting_network

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


# Distillation


def distilled(**config):
    sizes = dict(channels=(8, 8, 16, 16), local=(1, 1, 1, 1), dilated=(0, 0, 1, 1), embed_dim=16)
    return create_model("rapidnet_ti", num_classes=5, **(sizes | config))


def test_both_heads_answer_apart():
    images = torch.rand(2, 3, 32, 32)
    model = distilled().eval()
    head, dist_head = Answers(model)(images)
    torch.testing.assert_close((head + dist_head) / 2, model(images))
    assert head.shape == (2, 5) and not torch.equal(head, dist_head)
    alone = distilled(distilled=False).eval()
    (answer,) = Answers(alone)(images)
    assert torch.equal(answer, alone(images))


def test_distillation_losses():
    recipe = replace(find_recipe("rapidnet_ti", "small"), label_smoothing=0.0)
    hard = replace(recipe, distillation="hard", teacher="some", distillation_weight=0.3)
    head, other, teacher = torch.randn(3, 4, 5)
    labels = torch.tensor([0, 1, 2, 3])
    by_labels, by_teacher = F.cross_entropy(head, labels), F.cross_entropy(other, teacher.argmax(1))
    assert loss_of([head, other], labels, hard, teacher) == 0.7 * by_labels + 0.3 * by_teacher
    both = (by_labels + F.cross_entropy(other, labels)) / 2
    torch.testing.assert_close(loss_of([head, other], labels, recipe), both)
    alone = 0.7 * by_labels + 0.3 * F.cross_entropy(head, teacher.argmax(1))
    torch.testing.assert_close(loss_of([head], labels, hard, teacher), alone)
    soft = replace(hard, distillation="soft", temperature=2.0)
    p, q = (teacher / 2).softmax(1), (head / 2).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(
        loss_of([head], labels, soft, teacher), 0.7 * by_labels + 0.3 * 4 * divergence
    )
    torch.testing.assert_close(loss_of([head], labels, soft, head), 0.7 * by_labels)
    torch.testing.assert_close(loss_of([head], F.one_hot(labels, 5).float(), recipe), by_labels)


def test_a_network_of_ours_teaches(tmp_path, whole):
    teacher = str(whole / "model.safetensors")
    config = {"channels": [8, 8, 16, 16], "local": [1, 1, 1, 1], "dilated": [0, 0, 1, 1]}
    recipe = replace(
        find_recipe("rapidnet_ti", "small"),
        config=config | {"embed_dim": 16},
        distillation="hard",
        teacher=teacher,
        epochs=2,
        batch_size=32,
    )
    train(recipe, few_digits(), tmp_path, progress=False)
    state = load_file(tmp_path / "model.safetensors")
    first, second = (state[f"head.classifier.{head}.weight"] for head in ("head", "dist_head"))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="10 classes.* 3"):
        load_teacher(teacher, 3)
    with pytest.raises(ValueError, match="'nowhere.safetensors'"):
        load_teacher("nowhere.safetensors", 3)


# Evaluation


class Constant(nn.Module):
    """Ranks the classes 0, 1, 2, ... for every image."""

    def forward(self, images):
        return -torch.arange(8.0).expand(len(images), -1)


def test_top_1_and_top_5():
    images = Images(
        torch.zeros(8, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 4, 5, 6, 7, 7])
    )
    score = evaluate(Constant().train(), images, transform_for_validation(tiny()), batch_size=3)
    assert (score.images, score.top1, score.top5) == (8, 25.0, 50.0)
    expected = F.cross_entropy(-torch.arange(8.0).expand(8, -1), images.labels)
    assert score.loss == pytest.approx(expected.item()) and score.speed > 0


def test_fused_networks_answer_the_same(whole):
    model = load_model(whole / "model.safetensors")
    difference, equal = fused_difference(model, few_digits().val, transform_for_validation(tiny()))
    assert 0 < difference < 1e-4 and equal == 100


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
