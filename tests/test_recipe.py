"""The papers' settings, to the number, and what a recipe refuses."""

import json
import math

import pytest
import torch

from paperrepro import create_model, list_models
from paperrepro.cli.training import choose_recipe
from paperrepro.training.recipe import (
    REASONS,
    changes,
    find_recipe,
    from_json,
    list_recipes,
    override,
)
from paperrepro.training.schedules import learning_rate, weight_decay

NETWORKS = [*list_models(), "mobilenetv2"]
EVERY = [(name, recipe) for name in NETWORKS for recipe in list_recipes(name)]


@pytest.mark.parametrize(
    "name, rate, batch, decay, magnitude, mixup, clip",
    [
        ("fasternet_t0", 4e-3, 4096, 0.005, 0, 0.05, None),
        ("fasternet_t1", 4e-3, 4096, 0.01, 3, 0.1, None),
        ("fasternet_t2", 4e-3, 4096, 0.02, 5, 0.1, None),
        ("fasternet_s", 4e-3, 4096, 0.03, 7, 0.3, None),
        ("fasternet_m", 2e-3, 2048, 0.05, 7, 0.5, 1),
        ("fasternet_l", 2e-3, 2048, 0.05, 7, 0.7, 0.01),
    ],
)
def test_fasternet_table_6(name, rate, batch, decay, magnitude, mixup, clip):
    recipe = find_recipe(name)
    assert (recipe.lr, recipe.batch_size, recipe.weight_decay) == (rate, batch, decay)
    assert (recipe.rand_augment, recipe.mixup, recipe.clip_grad) == (magnitude, mixup, clip)
    assert (recipe.optimizer, recipe.epochs, recipe.warmup_epochs) == ("adamw", 300, 20)
    assert (recipe.label_smoothing, recipe.cutmix, recipe.erasing, recipe.ema) == (0.1, 1, 0, 0)
    assert [recipe.stage(epoch)[0] for epoch in (0, 279, 280, 299)] == [192, 192, 224, 224]
    assert recipe.test_crop == 0.9 and recipe.repeats == 1 and recipe.amp
    assert recipe.distillation == "none"


def test_mobileone_section_4_and_table_10():
    for name in list_models("mobileone"):
        recipe = find_recipe(name)
        assert (recipe.optimizer, recipe.epochs, recipe.batch_size) == ("sgd", 300, 256)
        assert (recipe.lr, recipe.label_smoothing, recipe.ema) == (0.1, 0.1, 0.9995)
        assert (recipe.weight_decay, recipe.final_weight_decay) == (1e-4, 1e-5)
        assert recipe.stage(0) == recipe.stage(38) == (160, 0.3)
        assert recipe.stage(39) == recipe.stage(113) == (192, 0.6)
        assert recipe.stage(114) == recipe.stage(299) == (224, 1.0)
        assert recipe.auto_augment == (name[-1] in "234")


@pytest.mark.parametrize("name", ["rapidnet_ti", "mobilevigv2_b"])
def test_rapidnet_and_mobilevigv2(name):
    recipe = find_recipe(name)
    assert (recipe.optimizer, recipe.lr, recipe.batch_size) == ("adamw", 2e-3, 2048)
    assert (recipe.distillation, recipe.teacher) == ("hard", "timm:regnety_160.deit_in1k")
    assert (recipe.repeats, recipe.epochs, recipe.sync_bn) == (3, 300, True)
    assert min(recipe.rand_augment, recipe.mixup, recipe.cutmix, recipe.erasing) > 0


def test_replknet_appendix_a():
    assert find_recipe("replknet_13").epochs == find_recipe("replknet_31b", "120").epochs == 120
    paper = find_recipe("replknet_31b")
    assert (paper.epochs, paper.batch_size, paper.lr, paper.warmup_epochs) == (300, 2048, 4e-3, 10)
    assert (paper.weight_decay, paper.rand_augment, paper.erasing) == (0.05, 9, 0.25)
    assert (paper.mixup, paper.cutmix, paper.label_smoothing) == (0.8, 1, 0.1)
    assert set(changes(paper, find_recipe("replknet_31b", "120"))) == {"epochs", "config", "source"}
    fine = find_recipe("replknet_31b", "384")
    assert (fine.epochs, fine.batch_size, fine.lr, fine.warmup_epochs) == (30, 1024, 4e-4, 1)
    assert (fine.mixup, fine.cutmix, fine.ema, fine.size) == (0, 0, 1 - 1e-4, 384)
    large = find_recipe("replknet_31l", "384")
    assert (large.batch_size, large.config) == (512, {"drop_path_rate": 0.3})
    extra = find_recipe("replknet_xl")
    assert (extra.lr, extra.layer_decay, extra.size, extra.epochs) == (1e-4, 0.4, 320, 30)


@pytest.mark.parametrize("name, recipe", EVERY)
def test_every_recipe_builds_its_network_and_survives_json(name, recipe):
    chosen = find_recipe(name, recipe)
    assert from_json(chosen.to_json()) == chosen
    assert chosen.source and chosen.model == name
    with torch.device("meta"):
        create_model(name, **chosen.config)


@pytest.mark.parametrize("name", list_models())
def test_the_small_recipe_says_why_it_differs(name):
    small, paper = find_recipe(name, "small"), find_recipe(name)
    different = set(changes(small, paper)) - {"source"}
    assert different <= set(REASONS)
    with torch.device("meta"):
        ours = create_model(name, num_classes=16, **small.config)
    assert sum(parameter.numel() for parameter in ours.parameters()) < 1.5e6
    assert small.size == 32 and small.epochs <= 30


def test_the_small_networks_keep_what_their_paper_is_about():
    for name, kernel in (("replknet_3", 3), ("replknet_31b", 31)):
        model = create_model(name, **find_recipe(name, "small").config)
        assert model.stages[0].blocks[0].large_kernel["large"].conv.kernel_size == (kernel, kernel)
    s0, s1 = (
        create_model(n, **find_recipe(n, "small").config) for n in ("mobileone_s0", "mobileone_s1")
    )
    assert [len(m.stages[0].blocks[0].conv) for m in (s0, s1)] == [5, 2]  # k = 4 and 1, and scale


# Schedules


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    recipe = find_recipe("fasternet_s")
    assert learning_rate(recipe, 0) == 1e-6
    assert learning_rate(recipe, 10) == pytest.approx((4e-3 + 1e-6) / 2)
    assert learning_rate(recipe, 20) == 4e-3
    assert learning_rate(recipe, 160) == pytest.approx((4e-3 + 1e-5) / 2)
    assert learning_rate(recipe, 300) == pytest.approx(1e-5)


def test_weight_decay_is_annealed_by_the_same_cosine():
    recipe = find_recipe("mobileone_s2")
    for epoch in (0, 75, 150, 300):
        share = (1 + math.cos(math.pi * epoch / 300)) / 2
        assert learning_rate(recipe, epoch) == pytest.approx(0.1 * share)
        assert weight_decay(recipe, epoch) == pytest.approx(1e-5 + 9e-5 * share)
    constant = find_recipe("fasternet_t0")
    assert weight_decay(constant, 299) == weight_decay(constant, 0) == 0.005


# Overriding and refusing


def test_fields_are_overridden_one_by_one():
    recipe = find_recipe("mobileone_s0", "small")
    ours = override(
        recipe, ["lr=1", "config.k=2", "clip_grad=0.5", "optimizer=adamw", "flip=false"]
    )
    assert (ours.lr, ours.clip_grad, ours.optimizer, ours.flip) == (1.0, 0.5, "adamw", False)
    assert ours.config == recipe.config | {"k": 2}
    assert override(ours, ["clip_grad=null"]).clip_grad is None
    assert override(recipe, ["config={}"]).config == {}
    stages = override(recipe, ["size=64", "progressive=[[0,32,0.5],[5,64,1]]"])
    assert stages.progressive == ((0, 32, 0.5), (5, 64, 1.0))
    assert override(recipe, []) == recipe


@pytest.mark.parametrize(
    "setting, message",
    [
        ("lr", "'lr'"),
        ("learning_rate=1", "'learning_rate'"),
        ("zzz=1", "'zzz'.*model, source"),
        ("lr.x=1", "'lr.x'.*config"),
        ("lr=fast", "lr .*'fast'"),
        ("lr=true", "lr is True"),
        ("lr=0", "lr is 0"),
        ("lr=-1", "lr is -1"),
        ("lr=NaN", "lr is nan"),
        ("epochs=2.5", "epochs .*2.5.*int"),
        ("epochs=0", "epochs is 0"),
        ("size=16", "size .*16.*32"),
        ("optimizer=adam", "optimizer .*'adam'.*sgd.*adamw"),
        ("warmup_epochs=20", "warmup_epochs .*20.*epochs=20"),
        ("accumulate=3", "accumulate .*3.*batch_size=64"),
        ("crop_scale=[1,0.5]", "crop_scale is"),
        ("crop_scale=0.5", "crop_scale is 0.5"),
        ("progressive=[[0,64,1]]", "progressive .*size=32"),
        ("progressive=[[1,32,1]]", "progressive .*epoch 0"),
        ("progressive=[[0,32,1],[40,32,1]]", "progressive .*epochs=20"),
        ("progressive=[[0,16,1],[5,32,1]]", "progressive .*32"),
        ("distillation=hard", "teacher .*None.*distillation"),
        ("config=3", "config .*3.*dict"),
        ("model=resnet", "'resnet'"),
        ("flip=1", "flip .*1.*bool"),
    ],
)
def test_bad_settings_are_told(setting, message):
    with pytest.raises(ValueError, match=message):
        override(find_recipe("mobileone_s0", "small"), [setting])


def test_unknown_recipes_and_damaged_files(tmp_path):
    with pytest.raises(ValueError, match="'large'.*paper, .*small"):
        find_recipe("mobileone_s0", "large")
    with pytest.raises(ValueError, match="mobileone_s0"):
        list_recipes("mobileone_s00")
    recipe = find_recipe("mobileone_s0")
    values = json.loads(recipe.to_json())
    with pytest.raises(ValueError, match="not JSON"):
        from_json(recipe.to_json()[:50])
    with pytest.raises(ValueError, match="'learning_rat'"):
        from_json(json.dumps(values | {"learning_rat": 1}))
    with pytest.raises(ValueError, match="epochs .*lr "):
        from_json(json.dumps({k: v for k, v in values.items() if k not in ("lr", "epochs")}))
    path = tmp_path / "mine.json"
    path.write_text(override(recipe, ["lr=0.3"]).to_json())
    assert choose_recipe("mobileone_s0", str(path), ["epochs=200"]).lr == 0.3
    with pytest.raises(ValueError, match="mobileone_s0.* mobileone_s1"):
        choose_recipe("mobileone_s1", str(path), None)
