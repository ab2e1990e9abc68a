"""Distillation and evaluation: losses against their formulas, scores against counted answers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from training_runs import few_digits, tiny

from paperrepro import create_model, load_model
from paperrepro.datasets import Images
from paperrepro.training import evaluate, find_recipe, train
from paperrepro.training.distillation import Answers, load_teacher, loss_of
from paperrepro.training.evaluation import fused_difference
from paperrepro.training.preparation import transform_for_validation

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
