"""FasterNet's Table 2: exact solutions where there are some, fits below none of them, real maps."""

import pytest
import torch
import typer
from PIL import Image
from real import cifar_images, needs_data, real_network
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from typer.testing import CliRunner

from paperrepro import create_model
from paperrepro.analysis.approximation import (
    CLOSED_FORM,
    SPATIAL,
    batches,
    build,
    error,
    first_convs,
    fit,
    measure,
    moments,
    optimum,
    split,
)
from paperrepro.analysis.recording import record
from paperrepro.cli import analysis as commands
from paperrepro.results import load_result


def maps_of(network: nn.Module, channels: int, images: int = 12, side: int = 6):
    """Correlated random maps, and what a network makes of them."""
    mix = torch.randn(channels, channels)
    inputs = torch.einsum("oc,nchw->nohw", mix, torch.randn(images, channels, side, side)).relu()
    with torch.no_grad():
        return inputs, network(inputs)


def conv(channels: int, out: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(channels, out or channels, 3, padding=1, bias=False)


@pytest.mark.parametrize("form", CLOSED_FORM)
@pytest.mark.parametrize("channels, out", [(16, 16), (12, 20), (16, 2)])
def test_the_optimum_finds_a_network_of_its_own_form(form, channels, out):
    teacher = build(form, channels, out)
    inputs, outputs = maps_of(teacher, channels)
    found = optimum(form, inputs, outputs)
    assert error(found, (inputs, outputs)) < 1e-9 * outputs.var()


def test_the_optimum_of_a_pointwise_convolution_is_a_linear_regression():
    inputs, outputs = maps_of(conv(8, 5), 8)
    x, y = (each.transpose(0, 1).flatten(1).T.double() for each in (inputs, outputs))
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    residual = (x @ torch.linalg.lstsq(x, y).solution - y).square().mean()
    assert error(optimum("PWConv", inputs, outputs), (inputs, outputs)) == pytest.approx(
        residual.item(), rel=1e-5
    )


@pytest.mark.parametrize("out", [16, 3])
def test_no_descent_leads_below_the_optimum(out):
    """LBFGS in double precision from many starts, the optimum itself among them."""
    inputs, outputs = (each.double() for each in maps_of(conv(16, out), 16, images=4))
    for form in CLOSED_FORM:
        best = optimum(form, inputs.float(), outputs.float()).double()
        lowest = error(best, (inputs, outputs))
        reached = []
        for network in [best, *(build(form, 16, out).double() for _ in range(3))]:
            optimizer = torch.optim.LBFGS(
                network.parameters(), max_iter=150, line_search_fn="strong_wolfe"
            )

            def closure(network=network, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.mse_loss(network(inputs), outputs)
                loss.backward()
                return loss

            optimizer.step(closure)
            reached.append(error(network, (inputs, outputs)))
        assert min(reached) > lowest * (1 - 1e-5)
        assert reached[0] == pytest.approx(lowest, rel=1e-5)
        assert min(reached[1:]) < 1.05 * lowest


def test_the_rank_costs_something():
    """Between the pointwise optimum and the free T-shaped kernel, which is a plain regression."""
    inputs, outputs = maps_of(conv(16), 16)
    inner, cross = moments(inputs, outputs, convolved=4)
    free = outputs.double().square().sum() - (cross * torch.linalg.lstsq(inner, cross)[0]).sum()
    ours = error(optimum("PConv+PWConv", inputs, outputs), (inputs, outputs))
    pointwise = error(optimum("PWConv", inputs, outputs), (inputs, outputs))
    assert free.item() / outputs.numel() < 0.99 * ours < 0.9 * pointwise


def test_a_dead_channel_does_no_harm():
    inputs, _ = maps_of(conv(16), 16)
    inputs[:, [1, 9]] = 0
    with torch.no_grad():
        outputs = conv(16)(inputs)
    for form in CLOSED_FORM:
        assert error(optimum(form, inputs, outputs), (inputs, outputs)) < outputs.var()


def test_the_bilinear_pairs_have_no_closed_form():
    inputs, outputs = maps_of(conv(16), 16)
    with pytest.raises(ValueError, match="DWConv.PWConv"):
        optimum("DWConv+PWConv", inputs, outputs)


@pytest.mark.parametrize("form", SPATIAL)
def test_training_learns_a_network_of_its_own_form(form):
    inputs, outputs = maps_of(build(form, 16, 16), 16, images=60)
    pairs = split(inputs, outputs)
    found = fit(form, pairs, steps=300)
    assert error(found, pairs.test) < 0.1 * pairs.variance
    short = fit(form, pairs, steps=5)
    assert error(found, pairs.val) < error(short, pairs.val)


@pytest.mark.parametrize("form", CLOSED_FORM)
def test_every_training_ends_above_the_optimum(form):
    pairs = split(*maps_of(conv(16), 16, images=40))
    lowest = error(optimum(form, *pairs.train), pairs.train)
    for seed in range(3):
        assert lowest < error(fit(form, pairs, steps=150, seed=seed), pairs.train) < 2 * lowest


def test_fit_is_seeded_and_scale_does_not_matter():
    inputs, outputs = maps_of(conv(16), 16, images=20)
    pairs = split(inputs, outputs)
    state = torch.get_rng_state()
    first, second = (fit("PConv+PWConv", pairs, steps=20) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert error(first, pairs.test) == error(second, pairs.test)
    assert error(first, pairs.test) != error(
        fit("PConv+PWConv", pairs, steps=20, seed=1), pairs.test
    )
    large = split(inputs * 100, outputs * 1000)
    relative = error(fit("PConv+PWConv", large, steps=20), large.test) / large.variance
    assert relative == pytest.approx(error(first, pairs.test) / pairs.variance, rel=1e-3)


def test_split_is_70_10_20_and_shares_no_image():
    inputs = torch.arange(50.0).reshape(50, 1, 1, 1)
    pairs = split(inputs, 2 * inputs)
    parts = [pairs.train, pairs.val, pairs.test]
    assert [len(x) for x, _ in parts] == [35, 5, 10]
    assert all(torch.equal(y, 2 * x) for x, y in parts)
    assert sorted(torch.cat([x for x, _ in parts]).flatten().tolist()) == list(range(50))
    with pytest.raises(ValueError, match="9 images"):
        split(inputs[:9], inputs[:9])


def test_batches_go_round():
    found = list(batches(20, 5, seed=0))
    assert [len(each) for each in found] == [16, 4, 16, 4, 16]
    assert sorted(torch.cat(found[:2]).tolist()) == list(range(20))
    assert not torch.equal(found[0], found[2])


def test_variance_is_the_error_of_the_best_constant():
    inputs, outputs = maps_of(conv(4), 4, images=20)
    pairs = split(inputs, outputs)
    outputs = pairs.train[1]
    best = outputs.mean((0, 2, 3), keepdim=True).expand_as(outputs)
    assert pairs.variance == pytest.approx(F.mse_loss(best, outputs).item())


def test_first_convs():
    """Of torchvision's ResNet-18 the first convolution of stages 2 to 4 has stride 2."""
    assert first_convs(resnet18()) == {
        "layer1": "layer1.0.conv1",
        "layer2": "layer2.0.conv2",
        "layer3": "layer3.0.conv2",
        "layer4": "layer4.0.conv2",
    }
    found = first_convs(create_model("fasternet_t0"))
    assert found["stages.1"] == "stages.1.blocks.0.pconv.conv" and len(found) == 4
    with pytest.raises(ValueError, match="1 x 1 in 1 groups, 7 x 7 in 8 groups"):
        first_convs(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 7, groups=8)))


def test_forms_that_cannot_be():
    with pytest.raises(ValueError, match="'Conv'"):
        build("Conv", 16, 16)
    with pytest.raises(ValueError, match="10 channels .*16 groups"):
        build("GConv+PWConv", 10, 10)


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def test_measure_by_hand():
    model = small_network()
    table = measure(model, torch.randn(20, 3, 16, 16), steps=20, seeds=2, progress=False)
    assert set(table.conv) == {"2"} and len(table) == 1 + len(CLOSED_FORM) + len(SPATIAL)
    own = table[table.form == "Conv"].iloc[0]
    assert own.relative < 1e-10 and own.params == 9 * 16 * 32 + 32
    assert own.macs == 9 * 16 * 32 * 64
    trained = table[table.found == "adam"].set_index("form")
    assert trained.params.to_dict() == {
        "DWConv+PWConv": 9 * 16 + 17 * 32,
        "GConv+PWConv": 9 * 16 + 17 * 32,
        "PConv+PWConv": 9 * 4 * 4 + 17 * 32,
        "PWConv": 17 * 32,
    }
    assert trained.macs["PConv+PWConv"] == (9 * 4 * 4 + 16 * 32) * 64
    assert (trained.mse_std > 0).all() and table.mse_std[table.found != "adam"].isna().all()
    exact = table[table.found == "closed form"].set_index("form")
    assert (exact.relative_train < trained.relative_train[exact.index]).all()
    ratios = table.mse[table.form != "Conv"] / table.relative[table.form != "Conv"]
    assert ratios.max() == pytest.approx(ratios.min())
    assert model.training and not any(each._forward_hooks for each in model.modules())
    assert all(each.requires_grad and each.grad is None for each in model.parameters())


def run(*words):
    app = typer.Typer()
    app.command()(commands.approximate)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_stores_its_table(tmp_path):
    """Of our networks FasterNet has regular 3x3 convolutions in its stages; T1's PConv have 16
    channels and more."""
    for index in range(10):
        pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    place = tmp_path / "it.csv"
    result = run(
        "fasternet_t1",
        "--images",
        tmp_path,
        "--size",
        32,
        "--steps",
        2,
        "--seeds",
        1,
        "--out",
        place,
    )
    assert result.exit_code == 0, result.output
    stored = load_result(place)
    assert len(stored.table) == 4 * (1 + len(CLOSED_FORM) + len(SPATIAL))
    assert stored.provenance["command"].endswith("--steps 2 --seeds 1 --size 32")


def test_the_command_tells_mistakes_in_one_line(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    words = ["--images", tmp_path, "--size", 32]
    for name, code, message in [
        ("nothing", 2, "unknown network 'nothing'"),
        ("mobilevigv2_ti", 1, "no regular 3 x 3 convolution of stride 1 and padding 1; there are"),
        ("fasternet_t1", 1, "1 images are too few"),
    ]:
        result = run(name, *words)
        assert result.exit_code == code and message in result.output
        assert result.output.count("\n") == 1


@pytest.mark.parametrize(("name", "layers"), [("cifar", 6), ("photos", 8)])
def test_stored_table_2(name, layers):
    """No training of a form ends below its closed form (equal to the four digits that are stored,
    some of them); and Table 2's order does not return."""
    table = load_result(f"approximation-{name}").table
    own = table[table.form == "Conv"]
    assert len(own) == layers and (own.relative < 1e-9).all()
    errors = table[table.form != "Conv"].pivot(
        index=["network", "conv", "form"], columns="found", values="relative_train"
    )
    both = errors.dropna()
    assert len(both) == 2 * layers and (both["closed form"] <= both["adam"]).all()
    assert (both["adam"] < 1.1 * both["closed form"]).all()
    adam = errors["adam"].unstack()
    bound = errors["closed form"].unstack()["PConv+PWConv"]
    wide = ~adam.index.get_level_values("conv").str.contains("layer1|features.[34]\\.")
    assert (adam["DWConv+PWConv"] < bound)[wide].all()
    assert (adam["GConv+PWConv"] < adam["DWConv+PWConv"])[wide].all()


@needs_data
@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet56"])
def test_on_cifar_depthwise_approximates_better_than_partial(name):
    """Not as in Table 2, and no fault of the training: on the same maps a trained DWConv+PWConv
    comes below the least error that any PConv+PWConv can have."""
    model, (images, _) = real_network(name), cifar_images(60)
    for stage in ("layer2.0.conv2", "layer3.0.conv2"):
        before, after = (
            record(model, images, [stage], before=each, progress=False)[stage]
            for each in (True, False)
        )
        pairs = split(before, after)
        lowest = error(optimum("PConv+PWConv", *pairs.train), pairs.train)
        assert error(fit("DWConv+PWConv", pairs, steps=200), pairs.train) < 0.97 * lowest
        pointwise = error(optimum("PWConv", *pairs.train), pairs.train)
        assert lowest < 0.8 * pointwise


@needs_data
def test_on_squeezenet_every_form_has_its_error():
    name = "features.6.expand3x3"
    model = real_network("squeezenet1_1")
    assert first_convs(model)["features.6"] == name and len(first_convs(model)) == 8
    images = torch.randn(12, 3, 64, 64) * 50
    before, after = (
        record(model, images, [name], before=each, progress=False)[name] for each in (True, False)
    )
    torch.testing.assert_close(model.get_submodule(name)(before).detach(), after)
    pairs = split(before, after)
    errors = [error(optimum(form, *pairs.train), pairs.train) for form in CLOSED_FORM]
    assert 0 < errors[0] < errors[1] < pairs.variance
