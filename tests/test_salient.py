"""FasterNet's salient positions: filters made by hand, chance, and real networks."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from real import needs_data, real_network
from torch import nn
from torchvision.models import resnet18
from typer.testing import CliRunner

from paperrepro import create_model, reparameterize, save_model
from paperrepro.analysis.salient import conv_weights, draw, histogram, histograms, measure
from paperrepro.cli import analysis as commands
from paperrepro.results import load_result


def filters(*positions: tuple[int, int], size: tuple[int, int] = (3, 3)) -> torch.Tensor:
    """Filters over four channels, each with its largest norm where it is told."""
    weight = torch.full((len(positions), 4, *size), 0.1)
    for each, (row, column) in zip(weight, positions, strict=True):
        each[:, row, column] = 1
    return weight


def test_histogram_of_filters_made_by_hand():
    weight = filters((1, 1), (1, 1), (0, 2), (2, 1))
    assert histogram(weight).tolist() == [[0, 0, 1], [0, 2, 0], [0, 1, 0]]
    wide = filters((0, 4), (1, 3), (1, 3), size=(2, 5))
    assert histogram(wide).tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 2, 0]]


def test_the_norm_is_taken_over_the_input_channels():
    """A position with the largest single weight loses to one whose weights together are larger:
    3 against sqrt(4 * 2**2) = 4, by absolute value or by a sum it would be 3 against 8 or 0."""
    weight = torch.zeros(1, 4, 3, 3)
    weight[0, :, 0, 0] = torch.tensor([2.0, -2, 2, -2])
    weight[0, 0, 1, 1] = 3.0
    assert histogram(weight)[0, 0] == 1
    weight[0, 0, 1, 1] = 5.0  # 5 against a norm of 4, but below the absolute sum of 8
    assert histogram(weight)[1, 1] == 1


def test_filters_without_a_salient_position_do_not_count():
    weight = filters((1, 1), (0, 0), (2, 2))
    weight[1], weight[2] = 0, 7
    assert histogram(weight).sum() == histogram(weight)[1, 1] == 1


def test_scales_signs_and_half_precision_change_nothing():
    weight = torch.randn(64, 8, 5, 5)
    scales = torch.randn(64, 1, 1, 1).sign() * torch.rand(64, 1, 1, 1).add(0.1)
    assert torch.equal(histogram(weight * scales), histogram(weight))
    assert histogram(weight.half()).sum() == 64


def test_chance_is_uniform():
    """Random filters: chi-square of 24 degrees of freedom, whose 0.1 % points are 8.1 and 51.2."""
    counts = histogram(torch.randn(20_000, 3, 5, 5)).float()
    assert 8.1 < ((counts - 800) ** 2 / 800).sum() < 51.2


@pytest.mark.parametrize("shape", [(3, 3), (8, 8, 3), (2, 2, 3, 3, 3)])
def test_histogram_refuses_what_is_no_convolution(shape):
    with pytest.raises(ValueError, match="weight of a convolution"):
        histogram(torch.zeros(shape))


def test_histogram_refuses_nan():
    weight = torch.ones(2, 2, 3, 3)
    weight[1, 1, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        histogram(weight)


def test_histograms_by_stage():
    model = resnet18()
    found = histograms(model)
    assert {name: int(each.sum()) for name, each in found.items()} == {
        "layer1": 4 * 64,
        "layer2": 4 * 128,
        "layer3": 4 * 256,
        "layer4": 4 * 512,
    }
    assert histograms(model, 7)["conv1"].shape == (7, 7)
    assert all(
        torch.equal(each, found[name]) for name, each in histograms(model.state_dict()).items()
    )


def test_regular_and_depthwise_are_kept_apart():
    model = create_model("mobilevigv2_ti")
    assert list(histograms(model)) == ["stem", "stages.1", "stages.2", "stages.3"]
    depthwise = histograms(model, depthwise=True)
    assert list(depthwise) == ["stages.0", "stages.1", "stages.2", "stages.3"]
    assert (measure(model, 7, depthwise=True)["filters"] > 0).all()


def test_a_network_without_such_kernels_is_told_what_it_has():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 8, 1))
    with pytest.raises(ValueError, match="3 x 3.*1 x 1.*5 x 5"):
        histograms(model)
    with pytest.raises(ValueError, match="none at all"):
        measure({"fc.weight": torch.zeros(3, 3)})
    for even in (1, 2):
        with pytest.raises(ValueError, match="no centre"):
            measure(model, even)


def test_measure_by_hand():
    """60 filters of which 20 have the centre, 30 the corners and 10 an edge: the exact interval of
    20 in 60 is 0.217 to 0.467 (Clopper and Pearson)."""
    corners = [(0, 0), (0, 2), (2, 0)] * 10
    weight = filters(*[(1, 1)] * 20, *corners, *[(1, 0)] * 10)
    (row,) = measure({"layer1.weight": weight}).to_dict("records")
    assert row["stage"] == "layer1" and row["filters"] == 60
    assert row["counts"] == "10 0 10 10 20 0 10 0 0"
    assert row["chance"] == pytest.approx(1 / 9)
    assert (row["centre"], row["corner"]) == pytest.approx((20 / 60, 30 / 4 / 60))
    assert (row["low"], row["high"]) == pytest.approx((0.2169, 0.4669), abs=1e-3)
    assert row["p_value"] < 1e-4 and row["uniform_p_value"] < 1e-6
    none = measure({"layer1.weight": torch.randn(4000, 2, 3, 3)}).iloc[0]
    assert none.low < none.chance < none.high and none.uniform_p_value > 1e-3


def test_branches_count_and_merged_kernels_have_their_centre():
    """MobileOne's identity and 1x1 branches add to the centre of the kernel that runs."""
    model = create_model("mobileone_s0")
    before, after = measure(model, depthwise=True), measure(reparameterize(model), depthwise=True)
    assert before["filters"].sum() == 4 * after["filters"].sum()
    assert (before["centre"] < 0.2).all() and (after["centre"] > 0.3).all()


def test_the_network_stays_as_it_was():
    model = resnet18()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    measure(model)
    assert model.training and all(each.requires_grad for each in model.parameters())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_the_figure_has_a_bar_per_position_and_stage():
    table = measure(resnet18())
    figure = draw({"one": table, "two": table.iloc[:2]})
    one, two = figure.axes
    assert one.get_title() == "one" and len(two.containers) == 2
    assert [len(bars) for bars in one.containers] == [9, 9, 9, 9]
    heights = np.array([[bar.get_height() for bar in bars] for bars in one.containers])
    assert heights.sum(axis=1) == pytest.approx(1)


def run(*words):
    app = typer.Typer()
    app.command()(commands.salient)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_writes_a_picture_and_its_numbers(tmp_path):
    """Of ours the merged kernels; of anybody's file the tensors."""
    model = create_model("fasternet_t0", num_classes=2)
    save_model(model, tmp_path / "ours.safetensors")
    torch.save({"state_dict": resnet18().state_dict()}, tmp_path / "theirs.pt")
    names = [tmp_path / "ours.safetensors", tmp_path / "theirs.pt"]
    result = run(*names, "--out", tmp_path / "salient.png", "--format", "csv")
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "salient.json").read_text())
    assert told["command"].startswith("paperrepro salient ")
    rows = pd.DataFrame(told["rows"])
    assert rows["network"].value_counts().to_dict() == {str(names[0]): 4, str(names[1]): 4}
    ours = rows[rows["network"] == str(names[0])].set_index("stage")
    expected = measure(reparameterize(model)).set_index("stage")
    assert ours["counts"].equals(expected["counts"])
    with Image.open(tmp_path / "salient.png") as picture:
        assert picture.size[0] > 500 and len(picture.convert("RGB").getcolors(10**6)) > 20


def test_the_command_writes_a_result(tmp_path):
    result = run("mobilevigv2_ti", "--kernel", 7, "--depthwise", "--out", tmp_path / "it.csv")
    assert result.exit_code == 0, result.output
    stored = load_result(tmp_path / "it.csv")
    assert stored.provenance["command"].endswith("salient mobilevigv2_ti --kernel 7 --depthwise")
    assert all(len(counts.split()) == 49 for counts in stored.table["counts"])
    assert "counts" not in result.output and "stages.3" in result.output


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["no-such-network"], 2, "unknown network 'no-such-network'"),
        (["replknet_3", "--kernel", "9"], 1, "no convolution of 9 x 9; there are: 100 of 1 x 1"),
        (["mobileone_s0", "--kernel", "4"], 1, "no centre"),
        (["mobileone_s0", "--out", "it.txt"], 2, "it.txt"),
        (["README.md"], 2, "README.md"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(words, code, message):
    result = run(*words)
    assert result.exit_code == code and message in result.output
    assert result.output.count("\n") == 1


def test_stored_real_networks():
    """Fig. 6 holds where maps are large; in the last stages the centre comes last."""
    table = load_result("salient-real").table.set_index(["network", "stage"])
    assert set(table.index.get_level_values(0)) == {
        "cifar_resnet20",
        "cifar_resnet56",
        "squeezenet1_1",
    }
    for network in ("cifar_resnet20", "cifar_resnet56"):
        rows = table.loc[network]
        assert (rows["low"] > rows["chance"]).tolist() == [True, True, True, False]
        assert rows.loc["layer3", "high"] < rows.loc["layer3", "corner"]
    depthwise = load_result("salient-real-depthwise").table.set_index("stage")
    assert (depthwise["low"] > 0.2).sum() == 16 and depthwise.loc["features.17", "corner"] > 0.2


@needs_data
@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet56"])
def test_on_cifar_the_centre_leads_until_the_last_stage(name):
    """FasterNet finds the centre ahead in all stages of its ResNet-18. In these networks, whose
    last stage has maps of 8x8 pixels, the corners are ahead there."""
    table = measure(real_network(name)).set_index("stage")
    early, last = table.drop(index="layer3"), table.loc["layer3"]
    assert (early["low"] > early["chance"]).all() and (early["centre"] > early["corner"]).all()
    assert last["high"] < last["chance"] < last["corner"]


@needs_data
def test_in_squeezenet_the_centre_leads_in_all_stages_but_one():
    table = measure(real_network("squeezenet1_1")).set_index("stage")
    assert len(table) == 9 and len(conv_weights(real_network("squeezenet1_1"))) == 26
    assert list(table.index[table["centre"] < table["corner"]]) == ["features.7"]


@needs_data
def test_in_mobilenet_the_last_depthwise_convolution_leaves_the_centre_out():
    table = measure(real_network("mobilenet_v2"), depthwise=True).set_index("stage")
    assert len(table) == 17
    assert (table["low"].drop("features.17") > 1 / 9).all()
    assert table.loc["features.17", "high"] < 0.03
