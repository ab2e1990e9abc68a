"""Shards: what a folder holds, in one order for all, damaged ones named, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import pil_to_tensor
from typer.testing import CliRunner

from paperrepro import shards
from paperrepro.cli import app
from paperrepro.datasets import Folder, Prepared, ShardedSampler, load_data
from paperrepro.files import UnreadableImage
from paperrepro.shards import ShardError, Shards, pack

COUNT = 40
SHARD = 8000  # bytes: about five images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for split, count in (("train", COUNT), ("val", 6)):
        for name in ("cat", "dog", "eel"):
            (root / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / ("cat", "dog", "eel")[i % 3] / f"{i}.png")
    return root


@pytest.fixture
def packed(folder, tmp_path):
    pack(folder, tmp_path / "packed", shard_bytes=SHARD, progress=False)
    return tmp_path / "packed"


def content(images):
    return sorted((label, pixels(image).numpy().tobytes()) for image, label in images)


def pixels(image):
    return image if isinstance(image, torch.Tensor) else pil_to_tensor(image)


def mean_of(image):
    return pixels(image).float().mean()


def flip_a_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def numbers(shards):
    return [shards[i] for i in range(len(shards))]


def test_shards_hold_what_the_folder_holds(folder, packed, tmp_path):
    data = load_data(packed)
    assert data.classes == ("cat", "dog", "eel") and len(data.train.shards) > 5
    for split, held in (("train", data.train), ("val", data.val)):
        images = Folder(folder / split)
        assert content(numbers(held)) == content(images[i] for i in range(len(images)))
    for shard in packed.glob("*.tar"):
        with tarfile.open(shard) as file:
            file.extractall(tmp_path / "unpacked", filter="data")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == COUNT + 6
    for path in files:
        copy = tmp_path / "unpacked" / path.relative_to(folder)
        assert copy.read_bytes() == path.read_bytes()


def test_packing_is_the_same_each_time(folder, packed, tmp_path):
    pack(folder, tmp_path / "again", shard_bytes=SHARD, progress=False)
    for path in packed.iterdir():
        if path.suffix != ".npz":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def order_of(packed, rank, world, workers, start=0):
    """The labels and means of what a process gets in an epoch, as the trainer asks for it."""
    train = load_data(packed).train
    sampler = ShardedSampler(
        len(train), epoch=3, seed=1, rank=rank, world=world, start=start, order=train.order
    )
    prepared = Prepared(train, mean_of, seed=1)
    loader = DataLoader(prepared, 2, sampler=sampler, num_workers=workers)
    return [
        (round(mean.item(), 4), int(label))
        for means, labels, _ in loader
        for mean, label in zip(means, labels, strict=True)
    ]


def test_one_order_for_any_number_of_processes_and_workers(packed):
    alone = order_of(packed, 0, 1, workers=0)
    assert len(set(alone)) == COUNT
    for world, workers in ((1, 2), (2, 0), (2, 1), (3, 2)):
        parts = [order_of(packed, rank, world, workers) for rank in range(world)]
        together = [None] * COUNT
        for rank, part in enumerate(parts):
            together[rank::world] = part
        assert together == alone


def test_a_resumed_epoch_gives_exactly_the_rest(packed):
    for world in (1, 2):
        whole = order_of(packed, 0, world, workers=0)
        for start in (1, 7):
            assert order_of(packed, 0, world, workers=2, start=start) == whole[start:]


def test_an_epoch_visits_every_image_a_few_shards_at_a_time(packed, monkeypatch):
    train = load_data(packed).train
    monkeypatch.setattr(shards, "WINDOW", 2)
    order = train.order(torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(COUNT))
    held = np.searchsorted(train.ends, order.numpy(), side="right")
    changes = [set(held[max(0, i - 3) : i + 3]) for i in range(COUNT)]
    assert max(map(len, changes)) <= 4, "at a window's border two windows of two shards"
    other = train.order(torch.Generator().manual_seed(1))
    assert not torch.equal(order, other)


def test_missing_and_cut_off_shards_are_named_at_once(folder, packed):
    first, second = sorted(packed.glob("train-*.tar"))[:2]
    first.unlink()
    os.truncate(second, 700)
    with pytest.raises(ShardError, match=f"{first.name} is missing, {second.name} is cut off"):
        load_data(packed)
    pack(folder, packed, shard_bytes=SHARD, progress=False)
    assert len(content(numbers(load_data(packed).train))) == COUNT


def test_a_damaged_image_is_named_and_the_others_stay(folder, packed):
    train = load_data(packed).train
    shard = packed / train.shards[2]["name"]
    number = int(train.ends[1])
    flip_a_byte(shard, int(train.offset[number]) + 60)
    with pytest.raises(UnreadableImage, match=rf"{shard.name}: image {number}, train/.*\.png"):
        train[number]
    _, _, unreadable = Prepared(train, mean_of)[(0, number, 0)]
    assert shard.name in unreadable
    assert (
        sum(
            name != ""
            for *_, name in map(
                Prepared(train, mean_of).__getitem__, [(0, i, 0) for i in range(COUNT)]
            )
        )
        == 1
    )
    pack(folder, packed, shard_bytes=SHARD, progress=False)
    assert train[number][0].shape == (3, 20, 24), "packing again mends it"


@pytest.mark.parametrize("name", ["index.json", "train.npz"])
def test_a_damaged_index_is_named(packed, name):
    for damage in (b"", b"{}", (packed / name).read_bytes()[:100]):
        (packed / name).write_bytes(damage)
        with pytest.raises(ShardError, match="packed"):
            load_data(packed)


def test_shards_of_other_images_are_not_overwritten(folder, packed):
    before = {path: path.read_bytes() for path in packed.glob("*.tar")}
    with pytest.raises(ValueError, match="other images"):
        pack(folder / "train", packed, shard_bytes=SHARD, progress=False)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_killed_packing_goes_on(folder, tmp_path):
    """Killed in the middle, twice; then what is there is whole, and stays as it is."""
    out = tmp_path / "packed"
    code = (
        "import sys, time\nfrom paperrepro import shards\nwrite = shards.write_shard\n"
        "def slow(*a):\n    write(*a)\n    time.sleep(0.2)\nshards.write_shard = slow\n"
        f"shards.pack({str(folder)!r}, {str(out)!r}, shard_bytes={SHARD}, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(list(out.glob("*.tar"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert there and not (out / "index.json").exists()
    pack(folder, out, shard_bytes=SHARD, progress=False)
    assert all(path.stat().st_mtime_ns == written for path, written in there.items())
    assert len(content(numbers(load_data(out).train))) == COUNT


# Fetched shards


@pytest.fixture
def remote(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(packed), "/bucket/pets", recursive=True)
    yield memory, "memory://bucket/pets"
    memory.rm("/bucket", recursive=True)


def test_fetched_shards_are_the_same_and_fetched_once(packed, remote, monkeypatch):
    memory, address = remote
    here, there = load_data(packed), load_data(address)
    assert content(numbers(there.train)) == content(numbers(here.train))
    memory.rm("/bucket/pets/train-00000.tar")
    assert content(numbers(load_data(address).train)) == content(numbers(here.train))


def test_a_shard_damaged_on_the_way_is_refused_and_not_kept(remote, tmp_path):
    memory, address = remote
    whole = memory.cat_file("/bucket/pets/train-00001.tar")
    train = Shards(address, "train")
    number = int(train.ends[0])
    for damage in (whole[:600], whole[:800] + b"?" + whole[801:]):
        memory.pipe_file("/bucket/pets/train-00001.tar", damage)
        with pytest.raises(ShardError, match="bucket/pets/train-00001.tar is damaged"):
            train[number]
    memory.rm("/bucket/pets/train-00001.tar")
    with pytest.raises(ShardError, match="train-00001.tar cannot be read"):
        train[number]
    memory.pipe_file("/bucket/pets/train-00001.tar", whole)
    assert train[number][0].shape == (3, 20, 24)


def test_an_address_that_nothing_opens():
    with pytest.raises(ValueError, match=r"paperrepro\[shards\]"):
        load_data("nowhere://bucket/pets")


# The command


def test_the_command_packs_and_says_what(folder, tmp_path):
    out = tmp_path / "packed"
    result = CliRunner().invoke(app, ["data", "pack", str(folder), str(out), "--shard-mb", "1"])
    assert result.exit_code == 0, result.output
    assert f"{COUNT} images" in result.stdout
    assert json.loads((out / "index.json").read_text())["classes"] == ["cat", "dog", "eel"]
    wrong = CliRunner().invoke(app, ["data", "pack", str(tmp_path / "none"), str(out)])
    assert wrong.exit_code == 1 and "none" in wrong.stderr and "Traceback" not in wrong.stderr
