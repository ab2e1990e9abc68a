"""What a recipe and a machine can ask of the trainer, each against its formula."""

import math
import platform
import sys
import types
from dataclasses import replace
from itertools import pairwise

import pytest
import timm.optim
import torch
import torch.nn.functional as F
from test_distillation import Constant
from torch import nn
from training_runs import few_digits, tiny, without_batch_norm

from paperrepro.training import Classification, Machine, Trainer, train
from paperrepro.training.distillation import classification_loss
from paperrepro.training.log import Log
from paperrepro.training.optimizers import LAMB, Average
from paperrepro.training.place import Place, backends, mixed_precision
from paperrepro.training.schedules import learning_rate


def trained(recipe, steps=3, images=128, **machine):
    """A trainer after some steps of its first epoch."""
    trainer = Trainer(Classification(recipe, few_digits(images)), machine=Machine(**machine))
    for _, batches in zip(range(steps), trainer.epoch_batches(), strict=False):
        trainer.step(batches)
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# Precision and memory


def test_mixed_precision_on_a_cpu_is_bfloat16_in_training_and_validation(capsys):
    recipe = without_batch_norm(amp=True)
    plain, mixed = trained(replace(recipe, amp=False)), trained(recipe)
    assert "a cpu computes in bfloat16, not in float16" in capsys.readouterr().err
    assert mixed.precision == torch.bfloat16 and not mixed.scaler.is_enabled()
    difference = (weights(plain) - weights(mixed)).abs().max()
    assert 0 < difference < 0.02
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    seen = []
    mixed.model.register_forward_hook(lambda _, images, logits: seen.append(logits.dtype))
    mixed.validate()
    assert set(seen) == {torch.bfloat16}
    assert math.isfinite(mixed.rows[0]["val_loss"])


def test_float16_needs_an_nvidia_gpu():
    recipe, gpu = tiny(amp=True), torch.device("cuda")
    assert mixed_precision(recipe, gpu) == torch.float16
    assert mixed_precision(replace(recipe, amp_dtype="bfloat16"), gpu) == torch.bfloat16
    assert mixed_precision(recipe, torch.device("mps")) == torch.bfloat16
    assert mixed_precision(tiny(), gpu) is None


def test_less_memory_and_other_layouts_train_the_same_network():
    recipe = without_batch_norm()
    plain = weights(trained(recipe))
    assert torch.equal(weights(trained(recipe, grad_checkpointing=True)), plain)
    torch.testing.assert_close(weights(trained(recipe, channels_last=False)), plain)
    with torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(weights(trained(recipe, compile=True)), plain)


def test_what_cannot_checkpoint_its_gradients_says_so():
    class Plain(Classification):
        def build(self):
            return Constant()

    with pytest.raises(ValueError, match="Constant cannot checkpoint"):
        Trainer(Plain(tiny(), few_digits()), machine=Machine(grad_checkpointing=True))


# Losses and mixing


def test_binary_cross_entropy_of_smoothed_and_mixed_labels():
    recipe = tiny(loss="bce", label_smoothing=0.1)
    logits, labels = torch.randn(4, 5), torch.tensor([0, 3, 3, 1])
    target = F.one_hot(labels, 5) * 0.9 + 0.1 / 5
    p = logits.sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels, recipe), expected)
    mixed = 0.3 * F.one_hot(labels, 5) + 0.7 * F.one_hot(labels.flip(0), 5)
    plain = tiny(loss="bce", label_smoothing=0.0)
    expected = -(mixed * p.log() + (1 - mixed) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, mixed, plain), expected)


def test_images_are_mixed_on_the_device_until_their_epoch():
    task = Classification(tiny(mixup=0.5, mix_epochs=2), few_digits())
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    for epoch, mixed in ((0, True), (1, True), (2, False)):
        ours, theirs, _ = task.augment((images.clone(), labels, ("",) * 8), epoch)
        assert (theirs.dim() == 2) == mixed and torch.equal(ours, images) != mixed


# What moves the weights


def test_lamb_is_timms():
    torch.manual_seed(0)
    nets = [nn.Linear(7, 5), nn.Linear(7, 5)]
    nets[1].load_state_dict(nets[0].state_dict())
    groups = [
        [{"params": [n.weight], "weight_decay": 0.1}, {"params": [n.bias], "weight_decay": 0.0}]
        for n in nets
    ]
    theirs = timm.optim.Lamb(groups[1], lr=0.05, max_grad_norm=None)
    pairs = [(nets[0], LAMB(groups[0], lr=0.05)), (nets[1], theirs)]
    for _ in range(6):
        x, y = torch.randn(16, 7), torch.randn(16, 5)
        for net, optimizer in pairs:
            optimizer.zero_grad()
            F.mse_loss(net(x), y).backward()
            optimizer.step()
    for ours, others in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours, others)
    assert trained(tiny(optimizer="lamb")).done == 3


def test_the_schedules():
    step = tiny(epochs=12, schedule="step", milestones=(8, 11), lr=0.1, warmup_epochs=0.5)
    assert learning_rate(step, 0.5) == 0.1 == learning_rate(step, 7.99)
    assert learning_rate(step, 0.25) == pytest.approx((1e-6 + 0.1) / 2)
    assert [learning_rate(step, e) for e in (8, 11)] == pytest.approx([0.01, 0.001])
    poly = tiny(epochs=10, schedule="poly", lr=0.1, min_lr=0.0)
    assert learning_rate(poly, 0) == 0.1 and learning_rate(poly, 10) == 0
    assert learning_rate(poly, 5) == pytest.approx(0.1 * 0.5**0.9)
    for wrong in ({"schedule": "step"}, {"milestones": (3,)}):
        with pytest.raises(ValueError, match="milestones"):
            tiny(**wrong)


def test_an_average_on_its_own_schedule():
    model = nn.BatchNorm1d(3)
    average = Average(model, 0.9, warmup=True)
    values = [1.0, 5.0, 2.0]
    expected = values[0]
    for updates, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked.fill_(updates)
        average.update()
        if updates:
            decay = min(0.9, (1 + updates) / (10 + updates))
            expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.module.weight, torch.full((3,), expected))
    assert average.module.num_batches_tracked == 2
    assert trained(tiny(ema=0.9, ema_every=2), steps=4).average.updates == 2


# What a run leaves


def test_the_last_epochs_and_the_best_are_kept(tmp_path):
    train(tiny(), few_digits(), tmp_path, machine=Machine(keep=2), progress=False)
    kept = sorted(path.name for path in tmp_path.glob("epoch-*.pt"))
    assert kept == ["epoch-3.pt", "epoch-4.pt"]
    states = [torch.load(tmp_path / name, weights_only=True) for name in kept]
    assert [state["epoch"] for state in states] == [3, 4]
    assert states[1]["best"] == max(row["top1"] for row in states[1]["rows"])


def test_the_log_goes_elsewhere_where_that_is_asked_for(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="pip install wandb"):
        Log(tmp_path, {}, Machine(wandb="digits"), 0)
    told = []
    session = types.SimpleNamespace(
        log=lambda values, step: told.append((step, values)), finish=lambda: told.append("end")
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **named: told.append(named["project"]) or session
    monkeypatch.setitem(sys.modules, "wandb", fake)
    machine = Machine(wandb="digits", log_every=3)
    train(tiny(epochs=2), few_digits(), tmp_path / "run", machine=machine, progress=False)
    assert told[0] == "digits" and told[-1] == "end"
    steps = [step for step, _ in told[1:-1]]
    assert all(a <= b for a, b in pairwise(steps)) and steps[-1] == 8
    assert {"step/loss", "step/lr", "step/images_per_second", "step/memory_mb"} == set(told[1][1])
    assert any("top1" in values for _, values in told[1:-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_a_training_on_a_cpu_keeps_the_memory_that_it_frees():
    """Pages of the system come empty, each at the price of a fault."""
    resource = pytest.importorskip("resource")
    with backends(Machine(), Place(0, 1, torch.device("cpu"))):
        pass
    torch.ones(20_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(20_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
