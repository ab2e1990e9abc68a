"""Data, transforms and samplers: deterministic, learnable, and clear about what is wrong."""

import io
import json
import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from paperrepro import evaluation_transform
from paperrepro.datasets import Data, Folder, Images, Kept, Prepared, ShardedSampler, load_data
from paperrepro.files import UnreadableImage, list_images, read_image
from paperrepro.seeds import hash64, mix_seed
from paperrepro.shapes import DISTANCES, PATTERNS, SHAPES, TEXTURES, Shapes
from paperrepro.transforms import (
    AutoAugment,
    Normalise,
    RandAugment,
    RandomResizedCrop,
    mixing,
    to_pixels,
    training_transform,
    validation_transform,
)

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def picture(seed=0, width=40, height=30):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def image_folder(root, classes=("cat", "dog"), count=10):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(i).save(root / name / f"{i}.png")
    return root


# Shapes


def test_hash64_is_splitmix64():
    # The first numbers of SplitMix64 from state 1234567, as Rosetta Code lists them.
    increment = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + increment * np.arange(3, dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert hash64(states).tolist() == expected


def test_seeds_depend_on_every_part_and_its_place():
    seeds = {mix_seed(*parts) for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1, 0), (2**40,)]}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_there_are_sixteen_shapes_and_sixteen_textures():
    assert list(DISTANCES) == SHAPES and len(set(SHAPES)) == 16
    assert list(PATTERNS) == TEXTURES and len(set(TEXTURES)) == 16


@pytest.mark.parametrize("size", [32, 50])
def test_an_image_follows_from_seed_and_index(size):
    shapes = Shapes(100, size, seed=3)
    together, labels, _ = shapes.draw(range(100))
    assert together.shape == (100, 3, size, size) and together.dtype == torch.uint8
    for index in (0, 41, 99):
        image, label = Shapes(100, size, seed=3)[index]
        assert torch.equal(image, together[index]) and label == labels[index]
    assert not torch.equal(Shapes(100, size, seed=4)[0][0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 100


def test_both_cues_agree_in_training_and_never_in_conflict():
    for cue, agree in (("both", 1.0), ("conflict", 0.0), ("shape", 1 / 16), ("texture", 1 / 16)):
        shapes, textures = map(np.asarray, Shapes(4000, 8, cue=cue).draw(range(4000))[1:])
        assert abs((shapes == textures).mean() - agree) < 0.02
        for kind in (shapes, textures):
            assert np.bincount(kind, minlength=16).min() > 4000 / 16 * 0.7
    sample = Shapes(50, 8, cue="texture")
    assert [sample[i][1] for i in range(50)] == sample.draw(range(50))[2].tolist()


def test_in_turns_either_cue_tells_the_label_and_the_picture_does_not_say_which():
    turns, same = Shapes(4000, 8, cue="turns"), Shapes(4000, 8, cue="shape")
    pictures, shapes, textures = turns.draw(range(4000))
    assert torch.equal(pictures, same.draw(range(4000))[0])
    labels = torch.tensor([turns[i][1] for i in range(4000)])
    differ = shapes != textures
    by_shape, by_texture = labels == shapes, labels == textures
    assert (by_shape | by_texture).all() and abs(by_shape[differ].float().mean() - 0.5) < 0.03
    assert abs(by_shape[differ][shapes[differ] == 3].float().mean() - 0.5) < 0.1
    assert load_data("cues", size=16).train[5][1] == Shapes(8192, 16, cue="turns")[5][1]


def test_every_shape_and_texture_is_in_the_picture():
    """A shape covers a fair part of the image and stays in it; a texture has both its colours."""
    axis = (np.arange(64) + 0.5) / 32 - 1
    x, y = np.meshgrid(axis, axis)
    covered = {name: (distance(x, y) < 0).mean() for name, distance in DISTANCES.items()}
    assert all(0.12 < share < 0.8 for share in covered.values()), covered
    u, v = 4 * x[None], 4 * y[None]
    seeds = np.ones((1, 1, 1), np.uint64)
    light = {name: pattern(u, v, seeds).mean() for name, pattern in PATTERNS.items()}
    assert light.pop("plain") == 0
    assert all(0.2 < share < 0.8 for share in light.values()), light


def test_no_two_shapes_and_no_two_textures_are_alike():
    axis = (np.arange(64) + 0.5) / 32 - 1
    x, y = np.meshgrid(axis, axis)
    masks = [distance(x, y) < 0 for distance in DISTANCES.values()]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.85


@pytest.mark.parametrize("settings", [{"cue": "color"}, {"count": 0}, {"size": 4}])
def test_shapes_that_cannot_be(settings):
    with pytest.raises(ValueError, match="color.*both.*shape|0|4"):
        Shapes(**({"count": 1} | settings))
    with pytest.raises(IndexError):
        Shapes(3)[3]


# Named data and folders


def test_digits_are_the_scanned_ones():
    data = load_data("digits")
    assert (len(data.train), len(data.val), len(data.classes)) == (1437, 360, 10)
    assert not data.mirror
    image, label = data.val[0]
    assert label == 0 and image.shape == (3, 8, 8)
    assert image[0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16


def test_a_folder_of_classes_is_split(tmp_path):
    data = load_data(image_folder(tmp_path / "pets"))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (18, 2)
    image, label = data.val[1]
    assert label == 1 and image.mode == "RGB"
    image, label = data.train[0]
    assert label == 0 and image.shape == (3, 30, 40) and image.dtype == torch.uint8


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_train_and_validation_folders(tmp_path, held_out):
    image_folder(tmp_path / "train", count=3)
    image_folder(tmp_path / held_out, count=2)
    data = load_data(tmp_path)
    assert (len(data.train), len(data.val)) == (6, 4)


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="'nowhere'.*shapes.*digits.*cifar10"):
        load_data("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        load_data(tmp_path / "empty")
    with pytest.raises(ValueError, match="'cat'"):
        load_data(image_folder(tmp_path / "one", ["cat"]))
    image_folder(tmp_path / "half/train")
    with pytest.raises(FileNotFoundError, match="half .*val/.*test/"):
        load_data(tmp_path / "half")
    image_folder(tmp_path / "odd/train")
    image_folder(tmp_path / "odd/val", ["cat", "cow"])
    with pytest.raises(ValueError, match="cow, dog"):
        load_data(tmp_path / "odd")
    (tmp_path / "odd/train/bird").mkdir()
    with pytest.raises(FileNotFoundError, match="bird"):
        load_data(tmp_path / "odd")


def cifar10(root, count):
    """The files of CIFAR-10's archive, with random images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (count, 3072), np.uint8)
        content = {"data": data, "labels": list(range(count))}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return folder


def test_cifar10_under_a_root(tmp_path, monkeypatch):
    import torchvision.datasets as sets

    cifar10(tmp_path, 10)
    with pytest.raises(OSError, match=f"cifar10 .*{tmp_path}.*--root.*--download"):
        load_data("cifar10", root=tmp_path)  # the checksums are not those of the real files
    monkeypatch.setattr(sets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(sets.CIFAR10, "meta", sets.CIFAR10.meta | {"md5": None})
    data = load_data("cifar10", root=tmp_path)
    assert (len(data.train), len(data.val), data.classes) == (50, 10, tuple("abcdefghij"))


def test_an_interrupted_download_says_so(tmp_path, monkeypatch):
    asked = []

    def interrupted(*args, **kwargs):
        asked.append(args)
        raise urllib.error.URLError("connection reset")

    monkeypatch.setattr("urllib.request.urlopen", interrupted)
    with pytest.raises(OSError, match=f"fashion-mnist .*{tmp_path}.*connection reset"):
        load_data("fashion-mnist", root=tmp_path, download=True)
    assert asked


def test_what_is_hidden_or_no_file_is_left_out_with_a_word(tmp_path):
    root = image_folder(tmp_path / "pets", count=2)
    (root / ".ipynb_checkpoints").mkdir()
    (root / "cat/.ipynb_checkpoints").mkdir()
    picture().save(root / "cat/.ipynb_checkpoints/0.png")
    picture().save(root / "dog/._0.png")
    os.mkfifo(root / "dog/pipe.png")
    (root / "cat/loop").symlink_to(root / "cat")
    with pytest.warns(UserWarning, match="ipynb_checkpoints.* and 1 more"):
        folder = Folder(root)
    assert folder.classes == ["cat", "dog"] and len(folder) == 4
    with pytest.warns(UserWarning, match="pipe.png"):
        assert len(list_images(root / "dog")) == 2


# Order


def test_processes_share_an_epoch_and_their_batches_are_those_of_one():
    alone = list(ShardedSampler(103, epoch=2, seed=5))
    assert sorted(index for _, index, _ in alone) == list(range(103))
    for world in (2, 3):
        shards = [
            list(ShardedSampler(103, epoch=2, seed=5, rank=r, world=world)) for r in range(world)
        ]
        assert sorted(sum(shards, [])) == sorted(alone)
        batch = 12
        for step in range(103 // batch):
            part = slice(step * batch // world, (step + 1) * batch // world)
            together = {key for shard in shards for key in shard[part]}
            assert together == set(alone[step * batch : (step + 1) * batch])
    assert alone != list(ShardedSampler(103, epoch=3, seed=5))
    assert [key[1] for key in alone] != [key[1] for key in ShardedSampler(103, epoch=3, seed=5)]


def test_an_interrupted_epoch_goes_on_where_it_was():
    whole = list(ShardedSampler(50, rank=1, world=2))
    assert list(ShardedSampler(50, rank=1, world=2, start=7)) == whole[7:]


def test_repeated_augmentation():
    keys = list(ShardedSampler(90, repeats=3))
    assert len(keys) == 90 and len({index for _, index, _ in keys}) == 30
    assert len(set(keys)) == 90, "the copies are told apart, for each is augmented in its own way"
    shards = [ShardedSampler(90, repeats=3, rank=r, world=3).keys for r in range(3)]
    for copies in zip(*shards, strict=True):
        assert len({index for _, index, _ in copies}) == 1, "a copy on every process"


# Preparation


def test_augmentation_follows_from_the_key_alone():
    images = Images(torch.arange(4 * 3 * 64).reshape(4, 3, 8, 8).to(torch.uint8), torch.arange(4))
    prepared = Prepared(images, training_transform(32, rand_augment=9, erasing=0.5, **HALF), seed=1)
    torch.manual_seed(0)
    first, label, unreadable = prepared[(0, 2, 0)]
    after = torch.rand(1)
    torch.manual_seed(99)
    assert torch.equal(prepared[(0, 2, 0)][0], first) and (label, unreadable) == (2, "")
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1)), "the global generator is left alone"
    others = [prepared[key][0] for key in [(1, 2, 0), (0, 2, 1), (0, 3, 0)]]
    others.append(Prepared(images, prepared.transform, seed=2)[(0, 2, 0)][0])
    assert not any(torch.equal(first, other) for other in others)


def test_images_are_read_once_while_there_is_room(tmp_path):
    folder = Folder(image_folder(tmp_path, count=2))  # four images of 30 x 40 x 3 bytes
    expected, reads = [folder[i] for i in range(4)], []
    read = folder.read
    folder.read = lambda path: reads.append(path) or read(path)
    kept = Kept(folder, megabytes=0.0075)
    assert len(kept) == 4
    for _ in range(2):
        for index, (image, label) in enumerate(expected):
            found, its_label = kept[index]
            assert torch.equal(found, image) and its_label == label
    assert reads == [path for path, _ in folder.samples] + [path for path, _ in folder.samples[2:]]


def test_a_cut_off_image_is_named_and_replaced(tmp_path):
    folder = Folder(image_folder(tmp_path / "pets", count=3))
    damaged = tmp_path / "pets/cat/1.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    (tmp_path / "pets/cat/2.png").write_text("no image")
    with pytest.raises(UnreadableImage, match="cat/1.png"):
        folder[1]
    prepared = Prepared(
        folder, validation_transform(32, crop=None, interpolation="bilinear", **HALF)
    )
    image, label, unreadable = prepared[(0, 1, 0)]
    assert label == 1 and torch.equal(image, prepared[(0, 3, 0)][0])
    assert [Path(name.partition(":")[0]).name for name in unreadable.split("\n")] == [
        "1.png",
        "2.png",
    ]
    for path in (tmp_path / "pets").rglob("*.png"):
        path.write_text("")
    with pytest.raises(UnreadableImage, match="6 images"):
        prepared[(0, 0, 0)]


# Transforms


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_crop_of_a_tensor_is_torchvisions(mode):
    """The same pixels as torchvision's crop of the tensor; two grey levels from that of PIL."""
    smooth = picture(width=20, height=15).resize((300, 220), Image.Resampling.BICUBIC)
    tensor = v2.functional.pil_to_tensor(smooth)
    theirs = v2.RandomResizedCrop(96, interpolation=InterpolationMode(mode))
    ours = RandomResizedCrop(96, interpolation=InterpolationMode(mode))
    for seed in range(10):
        crops = []
        for crop, image in ((theirs, smooth), (theirs, tensor), (ours, tensor)):
            torch.manual_seed(seed)
            crops.append(to_pixels(crop(image)).int())
        assert torch.equal(crops[1], crops[2])
        assert (crops[0] - crops[2]).abs().max() <= 2


def test_pixels_are_normalised_later_to_the_same():
    image = read_image(encoded(picture(width=64, height=64)))
    settings = {"rand_augment": 9, "auto_augment": 1.0} | HALF
    pixels, normalised = (
        Prepared(Images(image[None], torch.zeros(1)), training_transform(32, pixels=p, **settings))
        for p in (True, False)
    )
    normalise = Normalise(**HALF)
    for copy in range(5):
        later, now = pixels[(0, 0, copy)][0], normalised[(0, 0, copy)][0]
        assert later.dtype == torch.uint8
        theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(**HALF)])
        assert torch.equal(normalise(later), theirs(later))
        assert torch.equal(normalise(later), now) and normalise(now) is now


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_any_picture_becomes_three_normalised_channels(mode):
    transform = training_transform(48, rand_augment=9, auto_augment=1.0, erasing=0.25, **HALF)
    image = transform(picture().convert(mode).convert("RGB" if mode == "CMYK" else mode))
    assert image.shape == (3, 48, 48) and image.dtype == torch.float32


@pytest.mark.parametrize("name", ["mobileone_s0", "fasternet_s", "replknet_31l", "replknet_xl"])
def test_validation_is_the_released_evaluation(name):
    from paperrepro.models import input_of

    expected = input_of(name)
    ours = validation_transform(
        expected.size,
        crop=expected.crop,
        interpolation=expected.interpolation,
        mean=expected.mean,
        std=expected.std,
    )
    image = picture(width=300, height=260)
    assert torch.equal(ours(image), evaluation_transform(name)(image))


def test_rand_augment_magnitudes_are_drawn_around_the_mean():
    augment, image = RandAugment(9), torch.zeros(3, 8, 8, dtype=torch.uint8)
    magnitudes, operations = [], []
    for _ in range(300):
        augment(image)
        magnitudes.append(augment.magnitude / 10)
        operations.append(augment.num_ops)
    assert abs(np.mean(magnitudes) - 9) < 0.1 and 0.35 < np.std(magnitudes) < 0.6
    assert max(magnitudes) <= 10 and abs(np.mean(operations) - 1) < 0.15
    rotation, _ = augment._AUGMENTATION_SPACE["Rotate"]
    assert rotation(augment.num_magnitude_bins, 8, 8)[90] == pytest.approx(27)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_auto_augment_multiplies_its_magnitudes(strength):
    plain = v2.AutoAugment()._AUGMENTATION_SPACE
    weaker = AutoAugment(strength)._AUGMENTATION_SPACE
    assert set(plain) == set(weaker)
    for name in ("ShearX", "Rotate", "Color"):
        full, ours = plain[name][0](10, 8, 8), weaker[name][0](10, 8, 8)
        torch.testing.assert_close(ours[:10], strength * full)
    full, ours = plain["Solarize"][0](10, 8, 8), weaker["Solarize"][0](10, 8, 8)
    torch.testing.assert_close(1 - ours[:10], strength * (1 - full))
    assert weaker["Posterize"][0](10, 8, 8)[9] == round(8 - 4 * strength)
    assert weaker["Equalize"][0](10, 8, 8) is None


def test_auto_augment_still_takes_its_magnitudes_from_there():
    """A rotation at a tenth of the strength: torchvision must look where we put it."""
    augment, seen = AutoAugment(0.1), []
    augment._apply_image_or_video_transform = lambda image, name, value, **_: (
        seen.append((name, abs(value))) or image
    )
    for _ in range(200):
        augment(torch.zeros(3, 8, 8, dtype=torch.uint8))
    rotations = [value for name, value in seen if name == "Rotate"]
    assert rotations and max(rotations) == pytest.approx(3)


def test_mixing():
    assert mixing(4) is None
    images, labels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8), torch.arange(4)
    for settings in ({"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}):
        mixed, soft = mixing(4, **settings)(images, labels)
        torch.testing.assert_close(soft.sum(1), torch.ones(4))
        # The images are constant: their mean tells the same share as the label.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), soft @ torch.arange(4.0))


def test_data_says_what_it_is():
    data = load_data("shapes", size=32)
    assert isinstance(data, Data) and data.classes == tuple(SHAPES) and data.mirror
    assert json.dumps(data.classes)
    (train_image, _), (val_image, _) = data.train[0], data.val[0]
    assert train_image.shape == (3, 32, 32) and not torch.equal(train_image, val_image)
