"""Pictures with maps and with objects: what a user has, what is wrong with it, and the metrics."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from real import DATA, needs_data
from torchmetrics.detection import MeanAveragePrecision

from paperrepro.dense.data import ADE20K, CAMVID, IGNORED, VOC, load_maps
from paperrepro.dense.metrics import as_results, coco_scores, confusion, iou_of, summary
from paperrepro.dense.objects import Objects, SceneObjects, indexed, load_objects
from paperrepro.dense.scenes import Scenes
from paperrepro.files import UnreadableImage


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(path, size=(40, 50)):
    write(path, np.random.default_rng(0).integers(0, 255, (*size, 3)))


# Scenes


def test_a_scene_follows_from_its_number_alone():
    one, same, other = (Scenes(5, distances=(0, 16), seed=s) for s in (3, 3, 4))
    assert torch.equal(one[2][0], same[2][0]) and not torch.equal(one[2][0], other[2][0])
    assert all(torch.equal(one[2][1][key], value) for key, value in same[2][1].items())


@pytest.mark.parametrize("distance", [0, 16, 64])
def test_a_scenes_class_is_its_cues_color_at_that_distance(distance):
    colors = torch.tensor(
        [[0.85, 0.2, 0.2], [0.2, 0.75, 0.25], [0.25, 0.35, 0.9], [0.85, 0.8, 0.2]]
    )
    scenes = Scenes(6, 96, distances=(distance,))
    for index in range(6):
        image, found = scenes[index]
        for mask, label, box in zip(found["masks"], found["labels"], found["boxes"], strict=True):
            assert (found["map"][mask.bool()] == label).all()
            left, top, right, bottom = box.int().tolist()
            assert mask[top:bottom, left:right].sum() == mask.sum()
            row = image[:, (top + bottom) // 2].float() / 255
            seen = (row.T[:, None] - colors).abs().amax(-1).lt(0.12)  # (columns, colours)
            if distance == 0:
                continue
            told = seen.float().sum(0)
            assert told.argmax() == label - 1 and told[label - 1] >= 4
            cue = seen[:, label - 1].nonzero().float().mean()
            assert abs(abs(cue - (left + right) / 2) - distance) < 5
    assert (found["distances"] == distance).all()


@pytest.mark.parametrize("options", [dict(distances=(5,)), dict(distances=()), dict(size=64)])
def test_scenes_that_cannot_be(options):
    with pytest.raises(ValueError, match="distance|pixels"):
        Scenes(2, **{"size": 96, "distances": (16,)} | options)


# Pictures with maps


def test_voc_leaves_the_border_out(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        write(tmp_path / "SegmentationClass" / f"{name}.png", np.full((40, 50), 20))
    write(tmp_path / "SegmentationClass" / "b.png", np.full((40, 50), 255))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    data = load_maps(tmp_path)
    assert data.classes == tuple(VOC) and len(data.train) == len(data.val) == 1
    assert (data.train[0][1] == 20).all() and (data.val[0][1] == IGNORED).all()


def test_ade20ks_zero_is_no_class_and_the_rest_move_down(tmp_path):
    for part in ("training", "validation"):
        picture(tmp_path / "images" / part / "a.jpg")
        values = np.resize([0, 1, ADE20K], (40, 50))
        write(tmp_path / "annotations" / part / "a.png", values)
    data = load_maps(tmp_path)
    assert data.train[0][1].unique().tolist() == [0, ADE20K - 1, IGNORED]
    assert len(data.classes) == ADE20K


def folder(tmp_path, values=0, size=(40, 50)):
    for part in ("train", "val"):
        for name in ("a", "b"):
            picture(tmp_path / part / "images" / f"{name}.jpg")
            write(tmp_path / part / "labels" / f"{name}.png", np.zeros((40, 50)))
    write(tmp_path / "train" / "labels" / "b.png", np.full(size, values))
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    return tmp_path


def test_a_folder_and_the_same_as_an_archive(tmp_path):
    place = folder(tmp_path / "mine")
    data = load_maps(place)
    assert data.classes == ("sky", "road") and len(data.train) == 2
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in place.rglob("*.*"):
            archive.write(path, path.relative_to(place))
    packed = load_maps(tmp_path / "mine.zip")
    assert packed.classes == data.classes
    assert torch.equal(packed.train[1][1], data.train[1][1])
    assert np.array_equal(packed.train[1][0], data.train[1][0])
    (tmp_path / "mine.zip").write_bytes((tmp_path / "mine.zip").read_bytes()[:300])
    with pytest.raises(OSError, match="mine.zip"):
        load_maps(tmp_path / "mine.zip")


@pytest.mark.parametrize(
    ("fault", "message"),
    [(dict(values=2), "class 2"), (dict(size=(40, 49)), r"\(49, 40\).*\(50, 40\)")],
)
def test_a_map_that_does_not_fit_is_named(tmp_path, fault, message):
    data = load_maps(folder(tmp_path, **fault))
    assert (data.train[0][1] == 0).all()
    with pytest.raises(UnreadableImage, match=rf"b\.png.*{message}"):
        data.train[1]


def test_folders_that_say_too_little(tmp_path):
    place = folder(tmp_path)
    (place / "classes.txt").unlink()
    with pytest.raises(ValueError, match="classes.txt"):
        load_maps(place)
    (place / "classes.txt").write_text("sky\n")
    (place / "val" / "labels" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"val/labels/a\.png"):
        load_maps(place)
    for name, message in (("nowhere", "nowhere"), ("scenes:near", "scenes:16,32")):
        with pytest.raises(ValueError, match=message):
            load_maps(name)


@needs_data
def test_camvids_archive_as_it_lies_in_shared():
    data = load_maps(DATA / "camvid" / "camvid_480x360.zip")
    assert (len(data.train), len(data.val), data.classes) == (367, 101, tuple(CAMVID))
    image, numbers = data.val[7]
    assert image.size == (480, 360) and set(numbers.unique().tolist()) <= {*range(11), IGNORED}


# Metrics


def test_mean_iou_of_a_small_map_by_hand():
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [255, 255, 255, 255]])
    answer = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 0, 0], [3, 3, 0, 0]])
    matrix = confusion(answer, truth, 4)
    assert matrix.sum() == 12
    assert iou_of(matrix)[:3].tolist() == [3 / 6, 4 / 5, 2 / 4]
    found = summary(matrix)
    assert found["miou"] == pytest.approx(100 * (0.5 + 0.8 + 0.5) / 3)
    assert found["pixel_accuracy"] == pytest.approx(100 * 9 / 12)


def answers(objects, shift=0.0, score=0.9):
    rows = []
    for index in range(len(objects)):
        _, target = objects[index]
        masks = target["masks"][:, None].float().roll(int(shift), -1)
        detections = {
            "boxes": target["boxes"] + shift,
            "labels": target["labels"],
            "scores": torch.full((len(target["boxes"]),), score),
            "masks": masks,
        }
        rows += as_results(detections, int(target["image_id"]), objects)
    return rows


def test_the_truth_itself_has_ap_1_and_shifted_boxes_0():
    objects = SceneObjects(Scenes(4, distances=(16, 32)))
    truth = objects.coco()
    for kind in ("bbox", "segm"):
        assert coco_scores(truth, answers(objects), kind)["AP"] == pytest.approx(1)
        assert coco_scores(truth, answers(objects, shift=40), kind)["AP"] == 0
    assert coco_scores(truth, [])["AP"] == 0


def test_a_mask_counts_by_its_own_area_and_boxes_alone_have_no_masks():
    """A thin diagonal: 60 pixels of mask in a box of 60 x 60. A wrong one beside it is as small."""
    mask = torch.eye(60).bool()
    height = width = 120
    blank = torch.zeros(height, width, dtype=torch.bool)
    right, wrong = blank.clone(), blank.clone()
    right[:60, :60], wrong[60:, 60:] = mask, mask
    boxes = torch.tensor([[0.0, 0, 60, 60], [60, 60, 120, 120]])

    class One:
        category_of = staticmethod(lambda label: label)

    answer = {"boxes": boxes, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.5, 0.9])}
    plain = as_results(answer, 1, One)
    rows = as_results(answer | {"masks": torch.stack([right, wrong])[:, None].float()}, 1, One)
    truth = indexed(
        {
            "images": [{"id": 1, "height": height, "width": width}],
            "categories": [{"id": 1, "name": "line"}],
            "annotations": [
                dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 60, 60], area=60, iscrowd=0)
                | {"segmentation": rows[0]["segmentation"]}
            ],
        }
    )
    assert coco_scores(truth, rows, "segm")["APs"] == pytest.approx(0.5)
    coco_scores(truth, plain)
    assert "segmentation" not in plain[0]


@needs_data
def test_coco_mini_agrees_with_torchmetrics_on_the_same_answers():
    place = DATA / "coco_mini"
    objects = Objects(place / "images", place / "instances_mini.json")
    assert len(objects) == 33 and not objects.faults and len(objects.classes) == 80
    metric = MeanAveragePrecision(backend="pycocotools")
    rows = []
    torch.manual_seed(0)
    for index in range(12):
        _, target = objects[index]
        boxes = target["boxes"] + 6 * torch.randn_like(target["boxes"])
        found = {
            "boxes": boxes,
            "labels": target["labels"],
            "scores": torch.rand(len(boxes)),
        }
        metric.update([found], [{k: target[k] for k in ("boxes", "labels")}])
        rows += as_results(found, int(target["image_id"]), objects)
    whole = objects.content
    kept = {int(objects.pictures[i]["id"]) for i in range(12)}
    objects.content = whole | {
        "images": [one for one in whole["images"] if one["id"] in kept],
        "annotations": [
            # The area that COCO states is the outline's; torchmetrics knows the box only.
            one | {"area": one["bbox"][2] * one["bbox"][3]}
            for one in whole["annotations"]
            if one["image_id"] in kept and not one["iscrowd"]
        ],
    }
    ours, theirs = coco_scores(objects.coco(), rows), metric.compute()
    assert 0.05 < ours["AP"] < 0.95
    for name, key in (("AP", "map"), ("AP50", "map_50"), ("APs", "map_small"), ("AR1", "mar_1")):
        assert ours[name] == pytest.approx(float(theirs[key]), abs=1e-6)


# Objects as a user has them


OBJECT = dict(id=1, image_id=7, category_id=18, bbox=[5, 5, 10, 10], area=100, iscrowd=0)
OBJECT["segmentation"] = [[5, 5, 15, 5, 15, 15, 5, 15]]


def coco_folder(tmp_path, *objects):
    picture(tmp_path / "images" / "a.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 50}],
        "categories": [{"id": 90, "name": "brush"}, {"id": 18, "name": "dog"}],
        "annotations": [OBJECT | {"id": i} | change for i, change in enumerate(objects, 1)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def test_cocos_numbers_become_labels_and_back(tmp_path):
    data = load_objects(coco_folder(tmp_path, {}, {"category_id": 90}))
    image, target = data.train[0]
    assert data.classes == ("dog", "brush") and target["labels"].tolist() == [1, 2]
    assert target["boxes"][0].tolist() == [5, 5, 15, 15] and target["masks"][0].sum() == 100
    assert target["masks"].shape == (2, image.height, image.width)
    rows = answers(data.train)
    assert [row["category_id"] for row in rows] == [18, 90]
    assert coco_scores(data.train.coco(), rows)["AP"] == pytest.approx(1)


FAULTS = {
    "no area": ({"bbox": [5, 5, 0, 10]}, "no area"),
    "outside": ({"bbox": [60, 5, 10, 10]}, "outside"),
    "category": ({"category_id": 91}, "category 91"),
    "picture": ({"image_id": 8}, "picture 8"),
    "no outline": ({"segmentation": []}, "no outline"),
    "mask": ({"segmentation": {"size": [40, 49], "counts": [1960]}}, r"\[40, 49\]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_annotation_that_cannot_be_is_named_and_the_rest_is_used(tmp_path, fault):
    change, message = FAULTS[fault]
    data = load_objects(coco_folder(tmp_path, {}, change))
    assert len(data.train[0][1]["boxes"]) == 1
    (told,) = data.train.faults
    assert "instances.json, line 1: annotation 2" in told
    assert message.replace("\\", "") in told


def test_a_faults_line_is_the_annotations(tmp_path):
    place = coco_folder(tmp_path, {}, {"bbox": [5, 5, 0, 9]}, {"category_id": 91}, {})
    file = place / "instances.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=2))
    faults = load_objects(place).train.faults
    lines = file.read_text().splitlines()
    for fault, number in zip(faults, (2, 3), strict=True):
        line = int(fault.split("line ")[1].split(":")[0])
        assert lines[line - 1].strip() == "{" and lines[line].strip() == f'"id": {number},'


def test_a_picture_without_objects_and_a_crowd(tmp_path):
    data = load_objects(coco_folder(tmp_path, {"iscrowd": 1}))
    _, target = data.train[0]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 40, 50)
    assert not data.train.faults and len(data.train.coco().anns) == 1


def test_files_that_hold_no_instances(tmp_path):
    place = coco_folder(tmp_path)
    (place / "instances.json").write_text('{"images": []')
    with pytest.raises(ValueError, match=r"instances\.json"):
        load_objects(place)
    (place / "instances.json").unlink()
    with pytest.raises(ValueError, match="COCO"):
        load_objects(place)
