"""A training survives kills, signals, damage and a second one; many processes do what one does.

What takes minutes, hundreds of kills and signals at random moments, is `tests/faults/signals.py`.
"""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.data import IterableDataset
from training_runs import (
    CHILDREN,
    Signalling,
    few_digits,
    in_two_processes,
    largest_difference,
    run_in_child,
    same_weights,
    tiny,
    without_batch_norm,
)

from paperrepro.datasets import Images
from paperrepro.training import Diverged, Interrupted, Machine, Trainer, train
from paperrepro.training.checkpoint import load_checkpoint, save_checkpoint
from paperrepro.training.place import Place
from paperrepro.training.task import Classification

# It survives


def test_killed_at_images_in_the_middle_of_an_epoch(tmp_path, whole):
    run, reached = tmp_path / "run", []
    for images in (100, 170, 90, 215):
        child = run_in_child(tiny(), run, faults=[("image", images)])
        child.join()
        assert child.exitcode == -signal.SIGKILL
        state = load_checkpoint(run)[0]
        reached.append(state["epoch"] if state else 0)
    assert reached == [0, 1, 1, 2]
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


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_in_the_middle_of_an_epoch(tmp_path, whole, number, code):
    data = few_digits()
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    ending = replace(data, train=Signalling(data.train, 128 + 70, number))
    with pytest.raises(Interrupted, match="epoch 2 .*step 3.*--resume") as stopped:
        train(tiny(), ending, tmp_path, progress=False)
    assert stopped.value.code == code
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    state, _ = load_checkpoint(tmp_path)
    assert (state["epoch"], state["step"]) == (1, 3)
    machine = Machine(workers=int(number == signal.SIGTERM))
    train(tiny(), data, tmp_path, resume=True, machine=machine, progress=False)
    assert same_weights(tmp_path, whole), "and the number of workers changes nothing"


def test_a_signal_in_the_validation_loses_nothing(tmp_path, whole):
    data = few_digits()
    ending = replace(data, val=Signalling(data.val, 32 + 5))
    with pytest.raises(Interrupted, match="epoch 2 .*step 4"):
        train(tiny(), ending, tmp_path, progress=False)
    train(tiny(), data, tmp_path, resume=True, progress=False)
    assert same_weights(tmp_path, whole)
    logs = [json.loads((run / "log.json").read_text())["epochs"] for run in (tmp_path, whole)]
    assert [row["train_loss"] for row in logs[0]] == [row["train_loss"] for row in logs[1]]


def test_a_signal_before_the_first_step_ends_at_once(tmp_path):
    data = few_digits()

    class Digested(Signalling):
        def content_digest(self):
            os.kill(os.getpid(), signal.SIGINT)
            return "never"

    begun = replace(data, train=Digested(data.train, -1))
    with pytest.raises(Interrupted):
        train(tiny(), begun, tmp_path / "run", progress=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_trainer(tmp_path, number):
    """As a terminal sends Ctrl-C, and a cluster the end."""
    child = run_in_child(tiny(), tmp_path / "run", workers=1, faults=[("group", number)])
    child.join()
    assert (tmp_path / "run.stopped").read_text().startswith("stopped in epoch 2 after step")
    assert load_checkpoint(tmp_path / "run")[0]["epoch"] == 1


def test_a_killed_worker_is_told_in_one_line(tmp_path, whole):
    run = tmp_path / "run"
    child = run_in_child(tiny(), run, workers=1, faults=[("image", 150)])
    child.join()
    assert "a worker that prepares images was killed" in (tmp_path / "run.error").read_text()
    train(tiny(), few_digits(), run, resume=True, progress=False)
    assert same_weights(run, whole)


def test_checkpoints_by_the_clock_in_the_middle_of_an_epoch(tmp_path, whole):
    run, machine = tmp_path / "run", Machine(minutes=0)
    child = run_in_child(tiny(), run, minutes=0.0, faults=[("last.pt", 8)])
    child.join()
    state, _ = load_checkpoint(run)
    assert (state["epoch"], state["step"]) == (1, 2), "five renamings make an epoch of four steps"
    train(tiny(), few_digits(), run, resume=True, machine=machine, progress=False)
    assert same_weights(run, whole)


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


def test_every_flipped_bit_is_found(tmp_path, whole):
    """In a thousand random places of a checkpoint, and in a foreign file of that name."""
    content = (whole / "last.pt").read_bytes()
    path, places = tmp_path / "last.pt", random.Random(0)
    small = {"weights": torch.arange(6.0), "step": 3}
    save_checkpoint(tmp_path, small)
    little = path.read_bytes()
    for original, times in ((little, 1000), (content, 20)):
        for _ in range(times):
            damaged = bytearray(original)
            damaged[places.randrange(len(damaged))] ^= 1 << places.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(OSError, match="damaged or cut off"):
                load_checkpoint(tmp_path)
    path.write_bytes(little)
    assert load_checkpoint(tmp_path)[0]["step"] == 3
    torch.save({"a": 1}, path)
    with pytest.raises(OSError, match="damaged or cut off"):
        load_checkpoint(tmp_path)


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
    with pytest.raises(ValueError, match="network .*mobileone_s1.*'k': 2"):
        train(other, data, whole, resume=True)
    with pytest.raises(ValueError, match="lr .*0.05.* 0.01.*--allow lr"):
        train(tiny(lr=0.01), data, whole, resume=True)
    with pytest.raises(ValueError, match="fasternet_t0"):
        train(without_batch_norm(), data, whole, resume=True)
    with pytest.raises(ValueError, match="images was 128, now 96"):
        train(tiny(), few_digits(96), whole, resume=True)
    images = Images(data.train.dataset.images[:128].flip(-1), data.train.dataset.labels[:128])
    with pytest.raises(ValueError, match="digest .*--allow data"):
        train(tiny(), replace(data, train=images), whole, resume=True)
    with pytest.raises(ValueError, match="--allow optimizer"):
        train(tiny(), data, whole, resume=True, allow=["optimizer"])
    state = load_checkpoint(whole)[0]
    save_checkpoint(tmp_path, state | {"identity": state["identity"] | {"processes": 8}})
    with pytest.raises(ValueError, match="8 processes.*--allow processes"):
        train(tiny(), data, tmp_path, resume=True)
    before = (whole / "model.safetensors").read_bytes()
    assert len(train(tiny(), data, whole, resume=True, progress=False)) == 4
    assert (whole / "model.safetensors").read_bytes() == before


def test_a_recipe_is_changed_on_purpose(tmp_path, whole):
    run = tmp_path / "run"
    child = run_in_child(tiny(), run, faults=[("last.pt", 3)])
    child.join()
    longer = tiny(epochs=5, lr=0.02)
    log = train(longer, few_digits(), run, resume=True, allow=["epochs", "lr"], progress=False)
    assert len(log) == 5 and log["lr"].iloc[1] > log["lr"].iloc[2]
    smaller = tiny(epochs=6, lr=0.02, batch_size=16)
    allowed = ["epochs", "batch_size"]
    log = train(smaller, few_digits(), run, resume=True, allow=allowed, progress=False)
    assert log["steps"].iloc[-1] == 6 * 8


def test_a_finished_run_is_not_written_over(tmp_path, whole):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"dear")
    for resume in (False, True):
        with pytest.raises(ValueError, match="finished run"):
            train(tiny(), few_digits(), run, resume=resume)
    assert (run / "model.safetensors").read_bytes() == b"dear"


def test_two_trainings_into_one_folder(tmp_path):
    """The second one is refused for as long as the first one lives, and no longer."""
    begun, run = CHILDREN.Event(), tmp_path / "run"
    child = run_in_child(tiny(epochs=500, warmup_epochs=0), run, begun=begun)
    assert begun.wait(60)
    while not (run / "last.pt").exists():
        assert child.is_alive()
    with pytest.raises(OSError, match="another process works in"):
        train(tiny(), few_digits(), run, resume=True)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with pytest.raises(ValueError, match="begun by another recipe"):
        train(tiny(), few_digits(), run, resume=True)


def test_the_log_is_complete_after_a_kill_between_checkpoint_and_log(tmp_path):
    run = tmp_path / "run"
    child = run_in_child(tiny(), run, faults=[("log.csv", 2)])
    child.join()
    assert len((run / "log.csv").read_text().splitlines()) == 1 + 1
    assert load_checkpoint(run)[0]["epoch"] == 2
    log = train(tiny(), few_digits(), run, resume=True, progress=False)
    written = (run / "log.csv").read_text().splitlines()
    assert len(written) == 1 + 4 and len(log) == 4
    steps = [line.split(",")[0] for line in (run / "steps.csv").read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(1, 17)]


# A set that knows where it is


class Stream(IterableDataset):
    """Pictures of numbers, in order, from where it was left."""

    def __init__(self, images, recipe):
        task = Classification(recipe, images)
        self.prepared, self.epoch, self.start = task.train, 0, 0

    def __len__(self):
        return len(self.prepared)

    def set_epoch(self, epoch):
        self.epoch, self.start = epoch, 0

    def state_dict(self, samples):
        return {"epoch": self.epoch, "samples": samples}

    def load_state_dict(self, state):
        self.epoch, self.start = state["epoch"], state["samples"]

    def __iter__(self):
        for index in range(self.start, len(self)):
            yield self.prepared[self.epoch, index, 0]


def test_a_stateful_set_goes_on_in_mid_epoch():
    recipe = tiny(ema=0.0)

    def trainer():
        task = Classification(recipe, few_digits())
        task.train = Stream(few_digits(), recipe)
        return Trainer(task)

    whole, first, second = trainer(), trainer(), trainer()
    for one, steps in ((whole, 7), (first, 6)):
        while steps:
            for batches in one.epoch_batches():
                one.step(batches)
                steps -= 1
                if not steps:
                    break
            else:
                one.epoch, one.done = one.epoch + 1, 0
    second.restore(first.state())
    assert (second.epoch, second.done) == (1, 2)
    second.step(next(second.epoch_batches()))
    ours, theirs = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# Many processes


def with_synchronised_batch_norm(**changes):
    """Two steps: rounding alone drives longer trainings with BatchNorm apart."""
    settings = {"ema": 0.0, "epochs": 1, "mixup": 0.0, "batch_size": 64, "lr": 0.01}
    return tiny(**settings | {"sync_bn": True} | changes)


@pytest.mark.parametrize(
    "recipe, tolerance", [(without_batch_norm(), 1e-5), (with_synchronised_batch_norm(), 1e-4)]
)
def test_two_processes_train_the_network_of_one(tmp_path, recipe, tolerance):
    children = in_two_processes(recipe, tmp_path / "two")
    log = train(recipe, few_digits(), tmp_path / "one", progress=False)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < tolerance
    other = json.loads((tmp_path / "two/log.json").read_text())
    assert other["processes"] == 2
    assert other["epochs"][-1]["top1"] == log["top1"].iloc[-1]
    assert other["epochs"][-1]["train_loss"] == pytest.approx(
        log["train_loss"].iloc[-1], abs=tolerance
    )


def test_batch_and_processes_must_fit():
    task = Classification(tiny(), few_digits())
    with pytest.raises(ValueError, match="batch_size 32 .*3 processes"):
        Trainer(task, Place(0, 3, torch.device("cpu")))


@pytest.mark.slow
def test_torchrun_trains(tmp_path):
    run = tmp_path / "run"
    sizes = 'config={"embed_dim": 8, "depths": [1, 1, 1, 1], "drop_path_rate": 0.1}'
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "paperrepro", "train"),
        *("fasternet_t0", "--data", "digits", "--recipe", "small", "--out", str(run)),
        *("--set", "epochs=2", "--set", sizes, "--resume"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 1, "one process speaks"
    assert done.stderr.count("epoch 2/2") == 1
    assert "BatchNorm takes its statistics" in done.stderr
    assert json.loads((run / "log.json").read_text())["processes"] == 2
