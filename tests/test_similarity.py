"""Likeness of channels and of layers: maps made by hand, invariances, and real networks."""

import pytest
import torch
import typer
from PIL import Image
from real import cifar_images, needs_data, real_network
from torch import nn
from torchvision.models import resnet18
from typer.testing import CliRunner

from paperrepro import create_model
from paperrepro.analysis.images import sample_images
from paperrepro.analysis.recording import record, stage_layers, stage_of
from paperrepro.analysis.similarity import (
    channel_similarity,
    cka_matrix,
    correlation,
    cosine,
    linear_cka,
    measure,
    off_diagonal,
    shuffled,
)
from paperrepro.cli import analysis as commands
from paperrepro.files import list_images
from paperrepro.networks import find_network
from paperrepro.results import load_result


def test_cosine_by_hand():
    maps = torch.tensor([[3.0, 4, 0, 0], [6, 8, 0, 0], [-4, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    found = cosine(maps.reshape(1, 5, 2, 2))[0]
    assert found[0].tolist() == pytest.approx([1, 1, 0, torch.nan, 0.6], abs=1e-6, nan_ok=True)
    assert found[3].isnan().all() and torch.equal(found.nan_to_num(9), found.mT.nan_to_num(9))


def test_correlation_is_numpys():
    maps = torch.rand(3, 6, 5, 7, dtype=torch.float64) + 10
    expected = torch.stack([torch.corrcoef(each.flatten(1)) for each in maps])
    torch.testing.assert_close(correlation(maps).double(), expected, rtol=0, atol=1e-4)
    maps[:, 2] = 10
    assert correlation(maps)[:, 2].isnan().all() and not cosine(maps).isnan().any()


def test_off_diagonal():
    matrix = torch.arange(9.0).reshape(1, 3, 3)
    assert off_diagonal(matrix).tolist() == [[[1, 2], [3, 5], [6, 7]]]


def test_shuffling_keeps_values_and_breaks_places():
    maps = torch.rand(4, 8, 16, 16)
    maps[:, 1] = maps[:, 0]
    other = shuffled(maps)
    assert torch.equal(other.flatten(2).sort().values, maps.flatten(2).sort().values)
    assert torch.equal(other, shuffled(maps)) and not torch.equal(other, shuffled(maps, seed=1))
    assert correlation(other)[:, 0, 1].abs().max() < 0.3


def test_channel_similarity_of_maps_made_by_hand():
    """Four channels of independent pixels; then one is another's negative, one is dead."""
    maps = torch.rand(2, 4, 64, 64)
    found = channel_similarity(maps, seed=1)  # with seed 0 the maps' own numbers would sort them
    # Uniform on 0 to 1: the cosine of independent ones is (1/2)**2 / (1/3).
    assert found["cosine"] == pytest.approx(0.75, abs=0.01)
    assert found["shuffled"] == pytest.approx(0.75, abs=0.01)
    assert found["correlation"] < 0.03 and found["twin"] == found["dead"] == 0
    maps[:, 1] = 5 - 2 * maps[:, 0]
    maps[:, 3] = 0
    found = channel_similarity(maps)
    assert found["dead"] == 0.25
    assert found["twin"] == pytest.approx(2 / 3)
    assert found["correlation"] == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 4, 3), "maps of shape"),
        ((2, 1, 3, 3), "a single channel"),
        ((2, 4, 1, 1), "maps of one pixel"),
    ],
)
def test_channel_similarity_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        channel_similarity(torch.rand(shape))


def test_cka_invariances():
    """1 under rotation, scale and shift of the features; not under another linear map."""
    a = torch.randn(50, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    for unbiased in (False, True):
        assert linear_cka(a, 3 * a @ rotation + 1, unbiased=unbiased) == pytest.approx(1, abs=1e-9)
        assert linear_cka(a, a * torch.tensor([9, 1, 1, 1, 1, 0.1]), unbiased=unbiased) < 0.9
    b = torch.randn(50, 9, dtype=torch.float64)
    assert linear_cka(a, b) == pytest.approx(linear_cka(b, a))


def test_cka_is_the_definition():
    """Kornblith et al., Eq. 4, in features instead of Gram matrices."""
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    norms = (x.mT @ x).norm() * (y.mT @ y).norm()
    assert linear_cka(x, y) == pytest.approx(((y.mT @ x).norm() ** 2 / norms).item())


def test_the_unbiased_estimate_does_not_see_dependence_in_noise():
    values = [
        [linear_cka(torch.randn(30, 2, 20, 20), torch.randn(30, 800), unbiased=unbiased)]
        for unbiased in (False, True)
        for _ in range(5)
    ]
    biased, unbiased = torch.tensor(values).split(5)
    assert biased.min() > 0.9 and unbiased.abs().mean() < 0.1


def test_unbiased_hsic_has_the_mean_that_it_should():
    """For y = x of two independent normal features E[HSIC] is 2 in the limit; the unbiased
    estimate's mean over many small samples comes out the same as one of a large sample."""
    from paperrepro.analysis.similarity import gram, unbiased_hsic

    def estimate(n):
        x = gram(torch.randn(n, 2))
        return unbiased_hsic(x, x) / (n * (n - 3))

    assert torch.stack([estimate(6) for _ in range(4000)]).mean() == pytest.approx(2, abs=0.2)
    assert estimate(2000) == pytest.approx(2, abs=0.2)


def test_cka_has_no_value_where_all_images_are_alike():
    same = torch.ones(6, 3, 4, 4)
    for unbiased in (False, True):
        assert torch.tensor(linear_cka(same, torch.randn(6, 9), unbiased=unbiased)).isnan()
        assert linear_cka(*[torch.randn(6, 9)] * 2, unbiased=unbiased) == pytest.approx(1)


def test_cka_needs_the_same_images():
    with pytest.raises(ValueError, match="3 and 4 images"):
        linear_cka(torch.rand(3, 5), torch.rand(4, 5))
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(torch.rand(3, 5), torch.rand(3, 5), unbiased=True)


def test_cka_matrix():
    maps = {"one": torch.randn(9, 4, 3, 3), "two": torch.randn(9, 2, 5, 5)}
    matrix = cka_matrix(maps, maps)
    assert list(matrix.index) == list(matrix.columns) == ["one", "two"]
    assert matrix.to_numpy().diagonal() == pytest.approx([1, 1])
    assert matrix.loc["one", "two"] == pytest.approx(matrix.loc["two", "one"])


@pytest.mark.parametrize(
    "name, stage",
    [
        ("stages.2.blocks.0.pconv.conv.weight", "stages.2"),
        ("layer3.0.conv1", "layer3"),
        ("features.11.expand3x3", "features.11"),
        ("conv1", "conv1"),
    ],
)
def test_stage_of(name, stage):
    assert stage_of(name) == stage


def test_stage_layers():
    assert stage_layers(create_model("fasternet_t0")) == [f"stages.{i}" for i in range(4)]
    assert stage_layers(resnet18()) == ["conv1", *(f"layer{i}" for i in range(1, 5))]


def test_record_is_what_the_layers_see():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.Dropout(0.5)
    )
    images = torch.randn(7, 3, 6, 6)
    first = model[0](images)
    maps = record(model, images, ["0", "2"], batch_size=3, progress=False)
    torch.testing.assert_close(maps["0"], first.detach())  # before the ReLU overwrote it
    torch.testing.assert_close(maps["2"], model[2](first.relu()).detach())
    inputs = record(model, iter(images.split(2)), ["2"], before=True, progress=False)
    torch.testing.assert_close(inputs["2"], first.relu().detach())


def test_record_leaves_the_network_as_it_was():
    model = resnet18(num_classes=3).to(memory_format=torch.channels_last)
    model.layer1.eval()
    model.conv1.requires_grad_(False)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    modes = [module.training for module in model.modules()]
    before = {name: each.clone() for name, each in model.state_dict().items()}
    needing = [each.requires_grad for each in model.parameters()]
    gradient = model.fc.weight.grad.clone()
    measure(model, torch.randn(4, 3, 64, 64), progress=False)
    assert [module.training for module in model.modules()] == modes
    assert [each.requires_grad for each in model.parameters()] == needing
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(model.fc.weight.grad, gradient)
    assert model.layer2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.unused = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x) * torch.where(x.mean((1, 2, 3)) > 5, torch.nan, 1)[:, None, None, None]


def test_record_names_what_is_wrong():
    model, images = nn.Sequential(Broken()), torch.zeros(4, 3, 2, 2)
    with pytest.raises(ValueError, match="'layer9'"):
        record(model, images, ["layer9"], progress=False)
    with pytest.raises(ValueError, match="'0.unused' .*0 times"):
        record(model, images, ["0.unused"], progress=False)
    with pytest.raises(ValueError, match="no images"):
        record(model, [], ["0"], progress=False)
    images[2] = 9
    with pytest.raises(ValueError, match="'0' .*image 2"):
        record(model, images, ["0"], progress=False)
    assert not any(module._forward_hooks for module in model.modules())


def test_measure_has_a_row_per_layer():
    model = create_model("fasternet_t0", num_classes=2)
    images = torch.randn(4, 3, 64, 64)
    table = measure(model, images, progress=False)
    assert list(table.layer) == [f"stages.{i}" for i in range(4)]
    assert list(table.channels) == [40, 80, 160, 320] and list(table.pixels) == [256, 64, 16, 4]
    torch.testing.assert_close(measure(model, images, progress=False).equals(table), True)
    maps = record(model, images, ["stages.0", "stages.1"], progress=False)
    assert table.correlation[0] == pytest.approx(
        channel_similarity(maps["stages.0"])["correlation"]
    )
    assert table.cka_before.isna().tolist() == [True, False, False, False]
    assert table.cka_before[1] == pytest.approx(linear_cka(*maps.values(), unbiased=True))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        colour = torch.randint(256, (3,))
        pixels = (colour * torch.rand(40, 48, 1)).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def run(*words):
    app = typer.Typer()
    app.command()(commands.similarity)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_pictures_are_chosen_evenly(photos):
    network = find_network("fasternet_t0", size=32)
    every = torch.stack([network.transform(Image.open(path)) for path in list_images(photos)])
    assert not torch.equal(every[0], every[1])
    assert torch.equal(sample_images(photos, network.transform, 4), every[[0, 1, 3, 4]])
    assert torch.equal(sample_images(photos, network.transform, 50), every)


def test_the_command_stores_its_table(photos, tmp_path):
    place = tmp_path / "it.csv"
    words = ["fasternet_t0", "--images", photos, "--size", 64]
    result = run(*words, "--out", place)
    assert result.exit_code == 0, result.output
    stored = load_result(place)
    assert list(stored.table.layer) == [f"stages.{i}" for i in range(4)]
    images = sample_images(photos, find_network("fasternet_t0", size=64).transform, 100)
    expected = measure(find_network("fasternet_t0").model, images, progress=False)
    assert stored.table.correlation.tolist() == pytest.approx(
        expected.correlation.tolist(), rel=1e-3
    )
    assert "--size 64" in stored.provenance["command"]
    result = run(*words, "--cka", "--out", place)
    assert result.exit_code == 0, result.output
    cka = load_result(place).table
    assert len(cka) == 16
    own = cka[cka.layer == cka.other_layer]
    assert own.cka.tolist() == pytest.approx([1] * 4)


def test_the_command_tells_mistakes_in_one_line(photos, tmp_path):
    for words, code, message in [
        (["nothing", "--images", photos], 2, "'nothing'"),
        (["fasternet_t0", "--images", tmp_path / "none"], 1, "none"),
        (["fasternet_t0", "--images", photos, "--out", "it.png"], 2, ".csv"),
    ]:
        result = run(*words)
        assert result.exit_code == code and message in result.output
        assert result.output.count("\n") == 1


def test_stored_real_networks():
    """FasterNet's redundancy, in numbers: the correlation is above what independent pixels have,
    sqrt(2 / (pi P)); but behind the first convolution few channels have a twin."""
    table = load_result("similarity-cifar").table
    chance = (2 / (torch.pi * table.pixels)) ** 0.5
    assert (table.correlation > 1.5 * chance).all()
    assert (table.twin[table.layer != "conv1"] < 0.1).all()
    cka = load_result("cka-cifar").table
    across = cka[(cka.network == "cifar_resnet20") & (cka.other_network == "cifar_resnet56")]
    matrix = across.pivot(index="layer", columns="other_layer", values="cka")
    assert (matrix.idxmax(axis=1) == matrix.index).all()
    assert len(load_result("similarity-photos").table) == 9 + 19


@needs_data
def test_real_images_are_read_rightly():
    """The published accuracy is 91.8 %; on these lossy copies it is some ten points less."""
    images, labels = cifar_images(100)
    with torch.no_grad():
        assert (real_network("cifar_resnet20")(images).argmax(1) == labels).float().mean() > 0.7


@needs_data
def test_channels_of_a_real_network_are_more_alike_than_chance_but_seldom_twins():
    """Random directions of P pixels correlate by sqrt(2 / (pi P)) on average."""
    table = measure(real_network("cifar_resnet20"), cifar_images(60)[0], progress=False)
    chance = (2 / (torch.pi * table.pixels)) ** 0.5
    assert (table.correlation > 2 * chance).all()
    assert (table.twin[1:] < 0.2).all() and (table.dead < 0.05).all()


@needs_data
def test_two_trained_networks_agree_by_depth():
    """CKA finds the stage of the one in the other (Kornblith et al., Section 6)."""
    layers = ["layer1", "layer2", "layer3"]
    maps = [
        record(real_network(name), cifar_images(60)[0], layers, progress=False)
        for name in ("cifar_resnet20", "cifar_resnet56")
    ]
    matrix = cka_matrix(*maps, unbiased=True).to_numpy()
    assert matrix.argmax(axis=1).tolist() == [0, 1, 2]


@needs_data
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2"])
def test_networks_trained_on_imagenet(name):
    images = torch.randn(4, 3, 96, 96)
    layers = stage_layers(real_network(name))[1:4]
    table = measure(real_network(name), images, layers, progress=False)
    assert list(table.layer) == layers and table.drop(columns="cka_before").notna().all(axis=None)
