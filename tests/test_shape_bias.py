"""Shape bias: the published decisions' known answers, the rule, networks, intervals, errors."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from real import DATA, WEIGHTS, needs_data
from torch import nn
from typer.testing import CliRunner

from paperrepro import save_model
from paperrepro.analysis import shape_bias
from paperrepro.analysis.shape_bias import (
    CATEGORIES,
    ShapesInConflict,
    Stimuli,
    by_subject,
    category_indices,
    decide,
    draw,
    from_csv,
    from_network,
    interval,
    tally,
)
from paperrepro.benchmark.shape_bias import NETWORKS, png_copies
from paperrepro.cli.analysis import attribute
from paperrepro.cli.analysis import shape_bias as command
from paperrepro.datasets import SHAPES, Shapes
from paperrepro.files import UnreadableImage, data_folder
from paperrepro.models import build_model
from paperrepro.networks import find_network, load_public, pad_as_tensorflow
from paperrepro.results import load_result

RAW = DATA / "shape_bias/raw"

# Geirhos et al.'s published values in percent; humans, Caffe's networks, torchvision's ResNet-50.
PUBLISHED = {
    ("caffe_and_humans", "humans"): 95.9,
    ("caffe_and_humans", "alexnet"): 42.9,
    ("caffe_and_humans", "googlenet"): 31.2,
    ("caffe_and_humans", "vgg"): 17.2,
    ("torchvision", "resnet50"): 22.1,
}


# Published decisions


@needs_data
@pytest.mark.parametrize("source, subject", PUBLISHED)
def test_published_values_to_the_digit(source, subject):
    pattern = "*subject*.csv" if subject == "humans" else f"*_{subject}_session*.csv"
    bias = from_csv(sorted((RAW / source).glob(pattern)))
    assert round(100 * bias.overall, 1) == PUBLISHED[source, subject]
    assert len(bias.counts) == 1200
    assert set(bias.per_category) == set(CATEGORIES)


def test_stored_decisions_have_the_published_values():
    table = load_result("shape-bias-public").table
    overall = table[table["category"] == "all"].set_index(["source", "name"])["shape_bias"]
    assert len(overall) == 11
    for key, value in PUBLISHED.items():
        assert round(100 * overall[key], 1) == value
    each = table[table["category"] != "all"]
    sums = each.groupby(["source", "name"])[["n_shape", "n_texture", "n_neither"]].sum()
    everything = table[table["category"] == "all"].set_index(["source", "name"])
    pd.testing.assert_frame_equal(sums, everything[sums.columns], check_like=True)


@needs_data
def test_subjects_of_a_folder():
    biases = by_subject(sorted((RAW / "caffe_and_humans").glob("*.csv")))
    assert list(biases) == ["alexnet", "googlenet", "humans", "vgg"]
    assert biases["humans"].counts[shape_bias.COUNTS].sum(axis=1).unique().tolist() == [10]


def write_csv(path, rows):
    lines = ["subj,session,trial,rt,object_response,category,condition,imagename"]
    for subject, answer, name in rows:
        shape = name.rstrip("0123456789").split("-")[0].rstrip("0123456789")
        lines.append(f"{subject},1,1,NaN,{answer},{shape},0,0001_s5n_dnn_0_{shape}_00_{name}.png")
    path.write_text("\n".join(lines) + "\n")
    return path


TRIALS = [
    ("net", "cat", "cat1-dog2"),
    ("net", "dog", "cat2-dog1"),
    ("net", "cat", "cat3-car1"),
    ("net", "na", "cat4-car1"),
    ("net", "oven", "car1-knife1"),
    ("net", "knife", "car2-knife1"),
    ("net", "bear", "bear1-bear2"),
]


def test_counts_by_hand(tmp_path):
    bias = from_csv(write_csv(tmp_path / "a.csv", TRIALS))
    assert (bias.n_shape, bias.n_texture) == (2, 2)
    assert bias.overall == 0.5
    assert bias.per_category == {"car": 0.0, "cat": 2 / 3}
    table = bias.table().set_index("category")
    assert table["n_neither"].to_dict() == {"all": 2, "car": 1, "cat": 1}


def test_files_are_taken_together_and_people_are_one(tmp_path):
    first = write_csv(tmp_path / "1.csv", [("subject-01", "cat", "cat1-dog2")])
    second = write_csv(tmp_path / "2.csv", [("subject-10", "dog", "cat1-dog2")])
    bias = from_csv([first, second])
    assert (bias.n_shape, bias.n_texture, len(bias.counts)) == (1, 1, 1)
    assert list(by_subject([first, second])) == ["humans"]


def test_no_decision_for_either_cue(tmp_path):
    bias = from_csv(write_csv(tmp_path / "a.csv", [("net", "oven", "cat1-dog2")]))
    assert np.isnan(bias.overall)
    assert np.isnan(interval(bias.counts)).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("object_response", "answer"), "object_resp"),
        (lambda text: text.splitlines()[0] + "\n", "lacks rows"),
        (lambda text: text.replace(",na,", ",horse,"), "5: .*'horse'"),
        (lambda text: text.replace("cat2-dog1", "cat2dog1"), "3: .*cat2dog1"),
        (lambda text: text.replace("00_cat3-car1", "00_dog3-car1"), "4: .*dog3-car1"),
        (lambda text: "", "a.csv"),
        (lambda text: "\x00\x01\n1,2\n" + text, "a.csv"),
    ],
)
def test_a_file_of_another_format(tmp_path, change, message):
    path = write_csv(tmp_path / "a.csv", TRIALS)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as error:
        from_csv(path)
    assert str(path) in str(error.value)


def test_no_files_and_no_conflict(tmp_path):
    with pytest.raises(ValueError, match="no CSV file"):
        from_csv([])
    with pytest.raises(FileNotFoundError):
        from_csv(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match=" 1 images"):
        from_csv(write_csv(tmp_path / "a.csv", TRIALS[-1:]))


# Intervals


def decisions(for_shape, for_texture, repeats=1):
    trials = pd.DataFrame({"image": range(for_shape + for_texture)})
    trials = trials.assign(shape="cat", texture="dog", decision="cat")
    trials.loc[for_shape:, "decision"] = "dog"
    return tally(pd.concat([trials] * repeats)).counts


def test_interval_of_independent_decisions_is_the_binomials():
    low, high = interval(decisions(120, 280))
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert low == pytest.approx(0.3 - half, abs=0.006)
    assert high == pytest.approx(0.3 + half, abs=0.006)
    assert interval(decisions(120, 280)) == (low, high)
    assert interval(decisions(120, 280), seed=1) != (low, high)


def test_ten_decisions_on_an_image_are_not_ten_images():
    assert interval(decisions(30, 70, repeats=10)) == interval(decisions(30, 70))


def test_interval_of_one_kind_of_decision():
    assert interval(decisions(50, 0)) == (1.0, 1.0)


# The decision


def test_categories_are_the_published_classes():
    indices = category_indices()
    assert tuple(indices) == CATEGORIES
    assert len(set(sum(indices.values(), []))) == sum(map(len, indices.values())) == 207
    assert (len(indices["dog"]), len(indices["bird"]), len(indices["car"])) == (109, 49, 3)


@needs_data
def test_stored_mapping_is_the_published_one():
    path = DATA / "shape_bias/imagenet_16class_mapping.json"
    published = json.loads(path.read_text())
    assert category_indices() == published["indices"]
    table = pd.read_csv(data_folder("shape_bias") / "categories.csv", comment="#")
    wnids = table.groupby("category")["wnid"].apply(list).to_dict()
    assert wnids == published["wnids"]


def test_every_class_decides_for_its_category():
    for category, indices in category_indices().items():
        logits = torch.nn.functional.one_hot(torch.tensor(indices), 1000) * 20.0
        assert decide(logits) == [category] * len(indices)


def test_the_mean_decides_and_not_the_sum():
    indices = category_indices()
    probabilities = torch.full((1, 1000), 1e-9)
    probabilities[0, indices["dog"]] = 0.6 / len(indices["dog"])
    probabilities[0, indices["knife"]] = 0.02
    assert decide(probabilities.log()) == ["knife"]


def test_logits_that_cannot_decide():
    with pytest.raises(ValueError, match=r"\(2, 10\)"):
        decide(torch.zeros(2, 10))
    logits = torch.zeros(3, 1000)
    logits[1, 5] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 images"):
        decide(logits)


# Networks


class Reader(nn.Module):
    """Reads the class out of one channel of images that hold it; the blue one says which."""

    def __init__(self, channel, classes=16):
        super().__init__()
        self.channel, self.classes = channel, classes
        self.drop = nn.Dropout(0.9)

    def forward(self, images):
        red, green, blue = images.mean((2, 3)).mul(255).round().unbind(1)
        told = {"shape": red, "texture": green, "either": torch.where(blue > 0, red, green)}
        told |= {"nan": red * torch.nan}
        answer = self.drop(told[self.channel] / 10)
        return -(answer[:, None] - torch.arange(self.classes)).abs()


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


@pytest.fixture
def stimuli(tmp_path):
    """Images whose red is ten times their shape's class and whose green is their texture's."""
    for number, (shape, texture, by_shape) in enumerate(
        [("cat", "dog", 1), ("cat", "car", 1), ("dog", "cat", 0), ("oven", "bear", 1)]
    ):
        color = (10 * CATEGORIES.index(shape), 10 * CATEGORIES.index(texture), by_shape)
        (tmp_path / shape).mkdir(exist_ok=True)
        path = tmp_path / shape / f"{shape}{number}-{texture}1.png"
        Image.new("RGB", (8, 8), color).save(path)
    return tmp_path


@pytest.mark.parametrize("channel, overall", [("shape", 1), ("texture", 0), ("either", 0.75)])
def test_network_that_reads_one_cue(stimuli, channel, overall):
    model = Reader(channel).train()
    bias = from_network(model, Stimuli(stimuli, to_tensor), batch_size=3)
    assert bias.overall == overall
    assert bias.n_shape + bias.n_texture == 4
    assert model.training and model.drop.training


def test_network_that_cannot_be_asked(stimuli):
    data = Stimuli(stimuli, to_tensor)
    with pytest.raises(ValueError, match="10 classes .* 16 .*1000.*airplane"):
        from_network(Reader("shape", 10), data)
    with pytest.raises(ValueError, match="not finite"):
        from_network(Reader("nan"), data)
    shapes = ShapesInConflict(4, to_tensor_of_shapes, size=16)
    with pytest.raises(ValueError, match="1000 classes .* 16: disc"):
        from_network(Reader("shape", 1000), shapes)


def to_tensor_of_shapes(image):
    return image / 255


def test_shapes_never_agree_and_are_the_projects():
    data = ShapesInConflict(32, to_tensor_of_shapes, size=16, seed=5)
    images, shapes, textures = Shapes(32, 16, seed=5, cue="conflict").draw(range(32))
    for index in range(len(data)):
        image, shape, texture = data[index]
        assert torch.equal(image, images[index] / 255)
        assert (shape, texture) == (shapes[index], textures[index])
        assert shape != texture


def test_bias_on_the_projects_shapes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16))
    bias = from_network(model, ShapesInConflict(64, to_tensor_of_shapes, size=16))
    assert set(bias.per_category) <= set(SHAPES)
    assert 0 < bias.n_shape + bias.n_texture < 32


def test_folders_that_are_no_stimuli(stimuli, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Stimuli(tmp_path / "nowhere", to_tensor)
    (tmp_path / "horse").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "horse/horse1-cat1.png")
    with pytest.raises(ValueError, match="horse .*airplane"):
        Stimuli(tmp_path, to_tensor)
    (tmp_path / "horse/horse1-cat1.png").rename(tmp_path / "cat/dog1-cat1.png")
    with pytest.raises(ValueError, match="is not named catN-<texture>M.png"):
        Stimuli(tmp_path, to_tensor)


def test_an_unreadable_image_is_named(stimuli):
    path = stimuli / "oven/oven3-bear1.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnreadableImage, match="oven3-bear1.png"):
        from_network(Reader("shape"), Stimuli(stimuli, to_tensor))


def test_stored_stimuli():
    data = Stimuli(data_folder("images") / "cue_conflict", to_tensor)
    assert len(data) == 16
    assert {shape for _, shape, _ in data.files} == set(range(16))
    assert all(shape != texture for _, shape, texture in data.files)
    assert data[0][0].shape == (3, 224, 224)


# Real networks


def test_padding_of_tensorflow():
    model = pad_as_tensorflow(nn.Sequential(nn.Conv2d(1, 1, 3, 2, padding=1, bias=False)))
    model[0][1].weight.data = torch.tensor([1.0] + 8 * [0.0]).reshape(1, 1, 3, 3)
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert model(images).flatten().tolist() == [0, 2, 8, 10]


@needs_data
def test_real_network_decides_as_stored():
    network = find_network(f"mobilenet_v2={DATA / 'weights' / WEIGHTS['mobilenet_v2']}")
    data = Stimuli(DATA / "shape_bias/cue_conflict", network.transform)
    data.files = [file for file in data.files if CATEGORIES[file[1]] in ("car", "clock", "truck")]
    bias = from_network(network.model, data)
    stored = load_result("shape-bias-networks").table
    stored = stored[stored["name"] == "mobilenet_v2"].set_index("category")
    for row in bias.table()[1:].itertuples():
        ours = (row.n_shape, row.n_texture, row.n_neither)
        assert ours == tuple(stored.loc[row.category, ["n_shape", "n_texture", "n_neither"]])


def test_a_file_is_called_by_its_name_and_a_run_by_its_folder(tmp_path):
    model = build_model("mobileone_s0", num_classes=4, widths=(0.25,) * 4, blocks=(1, 1, 1, 1))
    (tmp_path / "k-31").mkdir()
    for path in (tmp_path / "small.safetensors", tmp_path / "k-31/model.safetensors"):
        save_model(model, path)
    assert find_network(str(tmp_path / "small.safetensors")).name == "small"
    assert find_network(str(tmp_path / "k-31/model.safetensors")).name == "k-31"


def test_networks_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="mobilenet_v2=FILE"):
        find_network("mobilenet_v2")
    with pytest.raises(ValueError, match="'mobileone_s9'"):
        find_network("mobileone_s9")
    with pytest.raises(ValueError, match="missing.pt"):
        find_network("mobileone_s0=missing.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt .*squeezenet1_1"):
        load_public("squeezenet1_1", tmp_path / "other.pt")


def test_the_network_takes_longer_than_loading():
    table = load_result("shape-bias-speed").table
    assert list(table["network"]) == list(NETWORKS)
    assert (table["network_ms"] > table["loading_ms"]).all()


def test_loading_is_measured_on_the_stored_stimuli(tmp_path):
    copies = Stimuli(png_copies(tmp_path), to_tensor)
    stored = Stimuli(data_folder("images") / "cue_conflict", to_tensor)
    assert {path.suffix for path, *_ in copies.files} == {".png"}
    assert torch.equal(copies[3][0], stored[3][0])


# Errors on the same images


def test_error_consistency_by_hand():
    """60 and 50 % right: by chance they agree on 0.3 + 0.2 of ten images, here on seven."""
    one = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    two = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
    assert shape_bias.error_consistency(one, two) == pytest.approx((0.7 - 0.5) / 0.5)
    assert shape_bias.error_consistency(one, one) == 1
    assert shape_bias.error_consistency(two, 1 - two) == -1
    assert np.isnan(shape_bias.error_consistency([True, True], [True, True]))


def test_independent_errors_have_none():
    right = np.random.default_rng(0).random((2, 100_000)) < [[0.7], [0.4]]
    assert abs(shape_bias.error_consistency(*right)) < 0.01


@pytest.mark.parametrize("answers", [([], []), ([True], [True, False])])
def test_error_consistency_needs_the_same_images(answers):
    with pytest.raises(ValueError, match="same images"):
        shape_bias.error_consistency(*answers)


# Figure and command


def test_figure_has_a_line_at_each_shape_bias(tmp_path):
    table = from_csv(write_csv(tmp_path / "a.csv", TRIALS)).table()
    both = pd.concat([table.assign(name="net", source=source) for source in ("one", "two")])
    (axes,) = draw(both).axes
    lines = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "-"]
    assert lines == [0.5, 0.5]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["net (one): 50.0 %", "net (two): 50.0 %"]


app = typer.Typer()
for each in (command, attribute):
    app.command()(each)


def run(*arguments):
    return CliRunner().invoke(app, ["shape-bias", *map(str, arguments)])


def test_command_writes_picture_json_and_table(tmp_path):
    write_csv(tmp_path / "a.csv", TRIALS)
    result = run("--decisions", tmp_path, "--out", tmp_path / "bias.png", "--format", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["category"] for row in rows] == ["all", "car", "cat"]
    told = json.loads((tmp_path / "bias.json").read_text())
    assert told["rows"] == rows
    assert told["command"] == f"paperrepro shape-bias --decisions {tmp_path}"
    assert Image.open(tmp_path / "bias.png").size > (300, 200)
    run("--decisions", tmp_path / "a.csv", "--out", tmp_path / "bias.csv")
    assert load_result(tmp_path / "bias.csv").table["shape_bias"][0] == 0.5


def test_command_asks_a_network():
    result = run("fasternet_t0", "--images", data_folder("images") / "cue_conflict", "--size", 64)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[:2] == ["cue_conflict", "fasternet_t0"]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "nothing to measure"),
        (["mobileone_s9"], 2, "mobileone_s9"),
        (["fasternet_t0", "--images", "nowhere"], 1, "nowhere"),
        (["fasternet_t0", "--count", "2"], 1, "1000 classes"),
        (["--decisions", "nowhere.csv"], 1, "nowhere.csv"),
        (["--decisions", "nowhere.csv", "--out", "a.txt"], 2, ".png"),
    ],
)
def test_command_refuses(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
