"""Segmentation and detection as tasks of the trainer."""

import json
from dataclasses import replace

import pytest
import torch
from real import DATA, needs_data
from shallow import SHALLOW
from training_runs import in_two_processes, largest_difference

from paperrepro.dense import load_dense
from paperrepro.dense.data import MapData, SceneMaps, load_maps
from paperrepro.dense.objects import ObjectData, Objects, SceneObjects, load_objects
from paperrepro.dense.scenes import CLASSES, Scenes
from paperrepro.training.detection import Detection
from paperrepro.training.recipe import find_recipe
from paperrepro.training.segmentation import Segmentation
from paperrepro.training.trainer import Trainer, fit

SEGMENT = dict(head="semantic_fpn", pyramid=8, width=8)
DETECT = dict(
    head="mask_rcnn",
    width=8,
    min_size=96,
    max_size=96,
    box_batch_size_per_image=16,
    rpn_post_nms_top_n_train=50,
    rpn_post_nms_top_n_test=20,
)


def recipe(**fields):
    base = find_recipe("replknet_31b", "small")
    changed = dict(config=SHALLOW["replknet_31b"], size=96, batch_size=4, warmup_epochs=0)
    return replace(base, **{**changed, **fields})


def maps(count=8):
    train, val = (SceneMaps(Scenes(count, distances=(0,), seed=seed)) for seed in (0, 1))
    return MapData("scenes", train, val, CLASSES, zoom=(1.0, 1.0))


def objects(count=4):
    train, val = (SceneObjects(Scenes(count, distances=(0,), seed=seed)) for seed in (0, 1))
    return ObjectData("scenes", train, val, train.classes)


TASKS = {
    "segment": lambda **fields: Segmentation(recipe(**fields), maps(), **SEGMENT),
    "detect": lambda **fields: Detection(recipe(**fields), objects(), **DETECT),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_leaves_a_network_and_its_metrics(task, tmp_path):
    log = fit(TASKS[task](epochs=1), tmp_path, progress=False)
    assert len(log) == 1
    assert {"segment": "miou", "detect": "mask_AP50"}[task] in log.columns
    model = load_dense(tmp_path / "model.safetensors").eval()
    assert model.classes == {"segment": CLASSES, "detect": CLASSES[1:]}[task]
    image = Scenes(1)[0][0].float() / 255
    answer = model(image[None]) if task == "segment" else model([image])[0]["boxes"]
    assert answer.shape[-2:] == (96, 96) if task == "segment" else answer.shape[1] == 4


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(task, tmp_path):
    whole = Trainer(TASKS[task](epochs=1))
    for batches in whole.epoch_batches():
        whole.step(batches)
    first = Trainer(TASKS[task](epochs=1))
    for batches in first.epoch_batches():
        first.step(batches)
        break
    state = first.state()
    second = Trainer(TASKS[task](epochs=1))
    second.restore(state)
    for batches in second.epoch_batches():
        second.step(batches)
    ours, theirs = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


class Noise(torch.utils.data.Dataset):
    """No two pixels are equal, so that no rounding turns a ReLU on or off, as in flat areas."""

    def __len__(self):
        return 8

    def content_digest(self):
        return "noise"

    def __getitem__(self, index):
        dice = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, 96, 96), generator=dice, dtype=torch.uint8)
        return image, torch.randint(5, (96, 96), generator=dice, dtype=torch.uint8)


def segmentation(fields):
    data = MapData("noise", Noise(), Noise(), CLASSES, zoom=(1.0, 1.0))
    return Segmentation(fields, data, **SEGMENT, dropout=0.0)


def test_two_processes_train_the_segmenter_of_one(tmp_path):
    """Two steps with synchronised BatchNorm, as in test_trainer_survives; nothing is dropped."""
    config = SHALLOW["replknet_31b"] | {"drop_path_rate": 0.0}
    fields = recipe(config=config, epochs=1, sync_bn=True, ema=0.0, optimizer="sgd", lr=0.01)
    children = in_two_processes(fields, tmp_path / "two", segmentation)
    log = fit(segmentation(fields), tmp_path / "one", progress=False)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    other = json.loads((tmp_path / "two/log.json").read_text())
    assert other["processes"] == 2
    assert other["epochs"][-1]["miou"] == pytest.approx(log["miou"].iloc[-1], abs=0.05)


@pytest.mark.slow
@needs_data
def test_a_detector_learns_four_photographs_by_heart():
    """The first four of which every object is large, in COCO's sense: 96 x 96 pixels or more."""
    place = DATA / "coco_mini"
    found = Objects(place / "images", place / "instances_mini.json")
    areas = {one["id"]: [box["area"] for box in found.found[one["id"]]] for one in found.pictures}
    found.pictures = [
        one for one in found.pictures if areas[one["id"]] and min(areas[one["id"]]) > 96**2
    ][:4]
    kept = {one["id"] for one in found.pictures}
    found.content["images"] = found.pictures
    found.content["annotations"] = [
        one for one in found.content["annotations"] if one["image_id"] in kept
    ]
    config = dict(embed_dim=24, depths=(1, 1, 2, 1), drop_path_rate=0.0)
    fields = dict(config=config, size=128, batch_size=4, epochs=80, warmup_epochs=10, lr=2e-3)
    fields |= dict(flip=False, weight_decay=0.0, clip_grad=5.0)
    task = Detection(
        replace(find_recipe("fasternet_t0", "small"), **fields),
        ObjectData("four", found, found, found.classes),
        "fcos",
        min_size=128,
        max_size=256,
        width=64,
    )
    trainer = Trainer(task)
    for epoch in range(fields["epochs"]):
        trainer.epoch, trainer.done = epoch, 0
        for batches in trainer.epoch_batches():
            trainer.step(batches)
    scores = task.evaluate(trainer.model.eval(), trainer.val_loader, trainer.place)
    assert scores["AP"] > 0.9 and "mask_AP" not in scores


@pytest.mark.slow
def test_a_segmenter_learns_scenes_by_heart(tmp_path):
    """At twice their size, for a quarter of the side is too coarse for such small shapes."""
    data = maps(4)
    config = dict(channels=(16, 32, 64, 64), depths=(1, 1, 1, 1), kernels=(7, 7, 5, 5))
    fields = recipe(size=192, epochs=240, lr=4e-3, config=config, flip=False)
    task = Segmentation(
        fields, replace(data, val=data.train), "semantic_fpn", pyramid=32, width=32, dropout=0.0
    )
    trainer = Trainer(task)
    for epoch in range(fields.epochs):
        trainer.epoch, trainer.done = epoch, 0
        for batches in trainer.epoch_batches():
            trainer.step(batches)
    found = task.evaluate(trainer.model.eval(), trainer.val_loader, trainer.place)
    assert found["miou"] > 90


@needs_data
def test_coco_mini_and_camvid_make_a_step():
    pictures = load_maps(DATA / "camvid" / "camvid_480x360.zip")
    found = load_objects(DATA / "coco_mini")
    for task in (
        Segmentation(recipe(), pictures, **SEGMENT),
        Detection(recipe(batch_size=2), found, **DETECT),
    ):
        trainer = Trainer(task)
        assert trainer.step(next(trainer.epoch_batches())) > 0
