"""The effective receptive field: known answers, ratios by hand, real networks, the command."""

import json
import math
import re

import pytest
import torch
import torchvision
import typer
from conftest import randomize
from PIL import Image
from real import DATA, needs_data, real_network
from shallow import SHALLOW
from torch import nn
from typer.testing import CliRunner

from paperrepro.analysis import erf
from paperrepro.analysis.erf import (
    area_ratios,
    centre_share,
    combine,
    contribution_map,
    contribution_scores,
    distance_within,
    image_maps,
)
from paperrepro.analysis.images import load_images
from paperrepro.analysis.input_gradients import for_input_only
from paperrepro.analysis.receptive_field import receptive_field
from paperrepro.analysis.stages import stage_map
from paperrepro.benchmark.erf import released_map
from paperrepro.cli.analysis import erf as command
from paperrepro.files import UnreadableImage, list_images
from paperrepro.models import build_model
from paperrepro.ops import depthwise
from paperrepro.reparam import reparameterize
from paperrepro.transforms import validation_transform

TINY = dict(channels=(8, 8, 16, 16), depths=(1, 1, 2, 1))


def constant_conv(kernel, value=1.0, channels=1):
    conv = nn.Conv2d(channels, 1, kernel, padding=kernel // 2, bias=False)
    nn.init.constant_(conv.weight, value)
    return conv


def released_by_hand(model, images, stage=-1):
    """The released procedure step by step, image by image, on an ordinary graph."""
    total = 0
    for image in images.split(1):
        image = image.clone().requires_grad_()
        found = model.features(image)[stage]
        found[:, :, found.shape[2] // 2, found.shape[3] // 2].relu().sum().backward()
        total = total + image.grad.relu().sum((0, 1))
    return total / len(images)


# Known answers.


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_one_convolution(kernel):
    """Constant weights w: w times the three channels on K x K pixels, 0 elsewhere."""
    found = contribution_map(constant_conv(kernel, 0.5, 3), torch.rand(2, 3, 15, 21))
    expected = torch.zeros(15, 21)
    reach = kernel // 2
    expected[7 - reach : 8 + reach, 10 - reach : 11 + reach] = 3 * 0.5
    torch.testing.assert_close(found, expected)


def width_of(found):
    """The standard deviation of the contributions along the columns, in pixels."""
    weight = found.sum(0) / found.sum()
    position = torch.arange(len(weight), dtype=torch.float)
    mean = (weight * position).sum()
    return float((weight * (position - mean) ** 2).sum().sqrt())


@pytest.mark.parametrize("kernel", [3, 5, 9])
@pytest.mark.parametrize("depth", [1, 4, 16])
def test_a_stack_grows_as_kernel_times_root_of_depth(kernel, depth):
    """O(K sqrt(L)) (RepLKNet, Section 5): the L-fold convolution of a box of K taps, whose variance
    is (K^2 - 1) / 12 each."""
    stack = nn.Sequential(*[constant_conv(kernel, kernel**-2) for _ in range(depth)]).double()
    found = contribution_map(stack, torch.rand(1, 1, 9, 161))
    assert width_of(found) == pytest.approx(math.sqrt(depth * (kernel**2 - 1) / 12), rel=1e-4)


def test_a_residual_identity_puts_one_pixel_on_top():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    image = torch.rand(1, 1, 11, 11)
    conv = constant_conv(3, 1 / 9)
    difference = contribution_map(Residual(conv), image) - contribution_map(conv, image)
    expected = torch.zeros(11, 11)
    expected[5, 5] = 1
    torch.testing.assert_close(difference, expected)


def test_the_two_rules():
    """A negative centre counts by the paper's equation alone, a negative gradient by neither; and
    the paper sums over images."""
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data = torch.tensor([3.0, -2.0]).view(2, 1, 1, 1)
    ones = torch.ones(4, 1, 5, 5)
    assert contribution_map(conv, ones)[2, 2] == 3
    assert contribution_map(conv, ones, rule="paper")[2, 2] == 4 * (3 - 2)
    assert contribution_map(conv, -ones).max() == 0  # the channel of -2 is positive there


@pytest.mark.parametrize("name", SHALLOW)
def test_all_families_as_by_hand(name):
    model = randomize(build_model(name, **SHALLOW[name])).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    found = contribution_map(model, images)
    torch.testing.assert_close(found, released_by_hand(model, images).float())
    torch.testing.assert_close(contribution_map(reparameterize(model), images), found)


def test_an_earlier_stage():
    model = randomize(build_model("fasternet_t0")).double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = released_by_hand(model, images, 1).float()
    torch.testing.assert_close(contribution_map(model, images, stage=1), expected)
    torch.testing.assert_close(contribution_map(model, images, stage="stages.1"), expected)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_networks_of_others(name):
    """Their stages by name, and activations that overwrite their input."""
    model = torchvision.models.get_model(name).eval()
    stage = "layer4" if name == "resnet18" else -1
    images = torch.randn(1, 3, 64, 64).requires_grad_()
    found = stage_map(model, images, stage)
    score = found[:, :, found.shape[2] // 2, found.shape[3] // 2].relu().sum()
    expected = torch.autograd.grad(score, images)[0].relu().sum((0, 1))
    found = contribution_map(model, images.detach(), stage=stage)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.max().item())


def test_batches_are_the_images_one_by_one():
    model = randomize(build_model("fasternet_t0")).double()
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)
    one_by_one = torch.stack(list(image_maps(model, images)))
    assert one_by_one.shape == (5, 64, 64)
    torch.testing.assert_close(contribution_map(model, iter(images.split(2))), one_by_one.mean(0))


# Ratios.


def test_ratios_by_hand():
    """Ten in a log makes one: a square of 3 x 3 ones among zeros, and a row beside it."""
    values = torch.zeros(11, 11)
    values[4:7, 4:7] = 9.0
    assert area_ratios(values) == dict.fromkeys(erf.THRESHOLDS, 9 / 121)
    values[5, 1] = 9.0  # the tenth: within 9 x 9 only
    ratios = area_ratios(values, (0.89, 0.9, 0.99))
    assert ratios == {0.89: 9 / 121, 0.9: 81 / 121, 0.99: 81 / 121}  # 0.9 is not more than 0.9


def test_the_papers_square_of_103_pixels():
    """(103 / 1024)^2 = 1.0 % (RepLKNet, Section 5), of a map that holds just over 20 % in it."""
    values = torch.zeros(1024, 1024, dtype=torch.float64)
    inside, outside = slice(512 - 51, 512 + 52), slice(512 - 200, 512 + 201)
    rest = 401**2 - 103**2
    values[outside, outside] = 10 ** (0.7995 / rest) - 1
    values[inside, inside] = 10 ** (0.2005 / 103**2) - 1
    ratio = area_ratios(values, (0.2,))[0.2]
    assert ratio == (103 / 1024) ** 2
    assert f"{ratio:.1%}" == "1.0%"


def test_an_even_map_never_reaches_everything():
    assert area_ratios(torch.ones(255, 255))[0.99] is None
    assert area_ratios(torch.ones(8, 12), (0.05, 0.5, 0.6)) == {
        0.05: 9 / 96,
        0.5: 49 / 96,
        0.6: None,
    }


def test_ratios_depend_on_the_size_of_gradients_and_the_centre_share_does_not():
    distance = (torch.arange(101) - 50).float().abs()
    values = torch.exp(-torch.maximum(distance[:, None], distance) / 5)
    assert area_ratios(1000 * values)[0.5] > 2 * area_ratios(values)[0.5]
    assert centre_share(1000 * values) == pytest.approx(centre_share(values))


def test_centre_share_by_hand():
    assert centre_share(torch.ones(99, 99), 1 / 9) == pytest.approx(1 / 9)
    assert centre_share(torch.ones(100, 100)) == pytest.approx(49**2 / 100**2)
    values = torch.zeros(20, 20)
    values[10, 10], values[0, 0] = 3.0, 1.0
    assert centre_share(values, 0.1) == 0.75


def test_distance_within_by_hand():
    values = torch.zeros(3, 10)
    values[0, 5], values[2, 6], values[1, 1] = 5.0, 4.0, 1.0
    found = [distance_within(values, share) for share in (0.5, 0.51, 0.9, 0.91, 1)]
    assert found == [0, 1, 1, 4, 4]


def test_scores_lie_between_0_and_1():
    scores = contribution_scores(torch.tensor([[0.0, 9.0], [99.0, 0.0]]))
    assert scores.tolist() == [[0, 0.5], [1, 0]]


# What is left behind, and what goes wrong.


def test_the_network_stays_as_it_was():
    model = build_model("replknet_31b", **TINY).train()
    model.stem.eval()
    model.head.requires_grad_(False)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))

    def state():
        return (
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [parameter.grad is None for parameter in model.parameters()],
            [parameter.stride() for parameter in model.parameters()],
            [buffer.clone().tolist() for buffer in model.buffers()],
            [sorted(vars(module)) for module in model.modules()],
            [len(module._forward_hooks) for module in model.modules()],
        )

    before = state()
    first = contribution_map(model, torch.randn(1, 3, 64, 64))
    assert state() == before
    with pytest.raises(ValueError, match="no stage 7"):
        contribution_map(model, torch.randn(1, 3, 64, 64), stage=7)
    assert state() == before
    assert first.shape == (64, 64)
    assert not first.requires_grad


def test_nothing_is_kept_for_the_weights():
    """Of convolutions, BatchNorms and ReLUs only a byte per value of the ReLUs, in place of eight:
    each convolution keeps its input, which is a ReLU's output, and each BatchNorm its own."""
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(4)]
    model = nn.Sequential(*blocks).eval().requires_grad_(False)

    def kept():
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        weights = {p.untyped_storage().data_ptr() for p in model.state_dict().values()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(torch.randn(1, 8, 64, 64, requires_grad=True))
        assert output.requires_grad
        return sum(t.untyped_storage().nbytes() for p, t in storages.items() if p not in weights)

    ordinary = kept()
    with for_input_only(model):
        lean = kept()
    assert lean < ordinary / 7
    assert kept() == ordinary


def test_large_kernels_take_the_fast_path_both_ways(monkeypatch):
    """PyTorch's own path is slow from K = 15 on, in NCHW; see paperrepro.ops.depthwise."""
    taken = []
    original = depthwise.convolve

    def spy(x, weight, bias, method, **options):
        taken.append((method, weight.shape[-1]))
        return original(x, weight, bias, method, **options)

    monkeypatch.setattr(depthwise, "convolve", spy)
    model = build_model("replknet_31b", **TINY, kernels=(31, 21, 5, 5))
    contribution_map(reparameterize(model), torch.randn(1, 3, 128, 128))
    large = [method for method, kernel in taken if kernel > 13]
    assert len(large) == 4  # two layers, forward and backward
    assert "nchw" not in large


def broken(at):
    """A network whose gradient is NaN for one image: 0 times infinity in the square root."""

    class Root(nn.Module):
        def forward(self, x):
            return x.abs().sqrt() * x

    images = torch.rand(3, 3, 8, 8) + 0.5
    images[at, :, 4, 4] = 0
    return Root(), images


def test_images_without_finite_gradients_are_counted_and_named():
    model, images = broken(1)
    with pytest.warns(UserWarning, match="1 of 3 images left out.*: image 1$"):
        found = contribution_map(model, images)
    torch.testing.assert_close(found, contribution_map(model, images[[0, 2]]))
    maps = list(image_maps(model, images))
    with pytest.warns(UserWarning, match="cat.png"):
        assert combine(maps, ["dog.png", "cat.png", "cow.png"])[1] == ["cat.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(stage=4), "stage 4.*0 to 3"),
        (dict(stage="layer4"), "'layer4'.*stem, stages, head"),
        (dict(stage="head"), r"'head' .*\(1, 1000\)"),
        (dict(rule="mine"), "'mine'.*released, paper"),
        (dict(images=torch.randn(0, 3, 64, 64)), "no images"),
        (dict(images=[]), "no images"),
        (dict(images=torch.randn(1, 3, 16, 16)), "too small"),
        (
            dict(images=[torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 96)]),
            r"\(64, 64\).*\(64, 96\)",
        ),
        (dict(images=torch.full((2, 3, 64, 64), torch.nan)), "2 images"),
    ],
)
def test_mistakes(arguments, message):
    model = build_model("fasternet_t0")
    images = arguments.pop("images", torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match=message):
        contribution_map(model, images, **arguments)


def test_an_image_smaller_than_the_kernel():
    with pytest.raises(ValueError, match="5 x 5 pixels .*Conv"):
        contribution_map(nn.Conv2d(3, 1, 7), torch.randn(1, 3, 5, 5))


def test_a_network_without_numbered_stages():
    model = torchvision.models.resnet18()
    with pytest.raises(ValueError, match="layer4"):
        contribution_map(model, torch.randn(1, 3, 64, 64), stage=2)
    with pytest.raises(ValueError, match=r"'-1' gives|-1 gives \(1, 1000\)"):
        contribution_map(model, torch.randn(1, 3, 64, 64))


def test_a_map_of_zeros():
    with pytest.raises(ValueError, match="0 everywhere"):
        area_ratios(torch.zeros(9, 9))
    with pytest.raises(ValueError, match="less than 3 x 3 pixels"):
        centre_share(torch.ones(9, 9), 0.05)


# The released procedure of the benchmark.


@pytest.mark.parametrize("recompute", [False, True])
def test_what_the_benchmark_compares_with_is_the_same_map(recompute):
    model = randomize(build_model("replknet_31b", **TINY))
    image = torch.randn(1, 3, 64, 64)
    found = released_map(model, image, recompute=recompute)
    expected = released_by_hand(model, image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.max().item())


# Images and the command.


def save_pictures(folder, count=3):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        noise = torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{i}.png")
    return folder


def test_images_come_in_order_and_whole(tmp_path):
    folder = save_pictures(tmp_path / "photos")
    (folder / "below").mkdir()
    Image.new("L", (4, 4), 7).save(folder / "below" / "grey.bmp")
    (folder / "notes.txt").write_text("no image")
    paths = list_images(folder)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png", "grey.bmp"]

    def corner(image):
        return torch.tensor(image.getpixel((0, 0)))

    batches = list(load_images(paths, corner, batch=3))
    assert [len(batch) for batch in batches] == [3, 1]
    assert batches[1][0].tolist() == [7, 7, 7]
    assert list_images(paths[1]) == [paths[1]]


def test_images_that_cannot_be_read(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadableImage, match="cut.png"):
        list(load_images(list_images(tmp_path), None))
    with pytest.raises(FileNotFoundError, match="absent"):
        list_images(tmp_path / "absent")
    (tmp_path / "cut.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_images(tmp_path)


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_command_draws_and_tells(tmp_path):
    photos, out = save_pictures(tmp_path / "photos"), tmp_path / "erf.png"
    options = ("--images", photos, "--size", 64, "--count", 2, "--out", out, "--format", "json")
    result = invoke("fasternet_t0", "mobileone_s0", *options)
    assert result.exit_code == 0, result.output
    told = json.loads(out.with_suffix(".json").read_text())
    rows = told["rows"]
    assert [row["network"] for row in rows] == ["fasternet_t0", "mobileone_s0"]
    assert all(row["images"] == 2 and row["skipped"] == 0 for row in rows)
    assert all(0 < row["ratio_20"] <= row["ratio_50"] <= 1 for row in rows)
    assert told["command"].startswith("paperrepro erf fasternet_t0 mobileone_s0 --images ")
    assert Image.open(out).width > Image.open(out).height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["erf.json", "erf.png", "photos"]


def test_a_ratio_that_does_not_exist(tmp_path, monkeypatch):
    """No square inside the image holds 99 % of a uniform map: null, and an empty cell."""
    monkeypatch.setattr(erf, "image_maps", lambda *_, **__: [torch.ones(32, 32)])
    photos, out = save_pictures(tmp_path / "photos", 1), tmp_path / "erf.png"
    result = invoke("fasternet_t0", "--images", photos, "--size", 32, "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.with_suffix(".json").read_text())["rows"][0]["ratio_99"] is None
    assert "nan" not in result.output.lower().replace("fasternet", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet",), "'resnet'"),
        (("fasternet_t0", "--rule", "mine"), "'mine'"),
        (("fasternet_t0", "--stage", "9"), "stage 9"),
        (("fasternet_t0", "--size", "16"), "32"),
        (("fasternet_t0", "--images", "absent"), "absent"),
        (("fasternet_t0", "--out", "map.jpg"), ".png"),
    ],
)
def test_the_commands_mistakes(tmp_path, arguments, message):
    photos = save_pictures(tmp_path / "photos", 1)
    result = invoke("--images", photos, *arguments)
    assert result.exit_code in (1, 2)
    assert message in re.sub(r"\s+", " ", result.output)


# Real trained networks.


def real_map(name, size, stage=-1):
    transform = validation_transform(
        size, crop=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    paths = list_images(DATA / "coco_mini" / "images")[:2]
    return contribution_map(real_network(name), load_images(paths, transform), stage=stage)


@needs_data
@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("squeezenet1_1", "features", 227),
        ("mobilenet_v2", "features.10", 224),
        ("cifar_resnet20", "layer1", 32),
    ],
)
def test_real_networks_stay_within_their_theoretical_field(name, layer, size):
    found = real_map(name, size, layer)
    field = receptive_field(real_network(name), layer, size)
    centre = field.rows.side // 2, field.columns.side // 2
    rows, columns = field.pixels(*centre, (size, size))
    inside = found[rows, columns]
    assert inside.count_nonzero() > 0.4 * inside.numel()
    assert inside.numel() < found.numel()
    assert found.count_nonzero() == inside.count_nonzero()


@needs_data
def test_a_real_deep_network_sees_further_than_a_shallow_one():
    """Theory allows SqueezeNet 207 pixels and MobileNetV2 491."""
    near, far = (real_map(name, 224) for name in ("squeezenet1_1", "mobilenet_v2"))
    assert centre_share(near) > 0.7 > 0.5 > centre_share(far)
    assert area_ratios(near)[0.5] < 0.5 * area_ratios(far)[0.5]


# A window that follows the field.


def test_a_window_around_the_field_of_kernels_with_even_sides():
    """A 4x4 kernel of stride 4: position 4 of 8 sees pixels 16 to 19, whose middle is 18."""
    conv = nn.Conv2d(3, 2, 4, stride=4, bias=False)
    nn.init.constant_(conv.weight, 0.5)
    net = nn.Sequential(conv)
    seen = erf.centred_map(net, torch.rand(2, 3, 32, 32), 24, stage="0")
    assert seen.shape == (24, 24)
    assert seen.nonzero().unique().tolist() == [10, 11, 12, 13]
    plain = contribution_map(net, torch.rand(1, 3, 32, 32), stage="0")
    assert plain.nonzero().unique().tolist() == [16, 17, 18, 19]


def test_a_window_that_does_not_fit_names_the_size_that_would():
    net = nn.Sequential(nn.Conv2d(3, 2, 4, stride=4))
    with pytest.raises(ValueError, match=r"pixel 18 of 32.*36 pixels or more"):
        erf.centred_map(net, torch.rand(1, 3, 32, 32), 32, stage="0")


# Taps that no training used.


def test_taps_met_by_hand():
    """K = 7 on 3 pixels: the taps up to 2 from the centre; a 3 x 3 kernel with stride 2: all."""
    assert erf.taps_met(3, 3, 7, 1, 3, 1).tolist() == [False, *[True] * 5, False]
    assert erf.taps_met(3, 3, 3, 1, 3, 3).tolist() == [False, True, False]
    assert erf.taps_met(8, 4, 3, 2, 1, 1).all()


def test_without_untrained_taps_the_network_answers_the_same_where_it_was_trained():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 13, padding=6, groups=3)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), conv, nn.AdaptiveAvgPool2d(1))
    kept = erf.only_trained_taps(net, 8)
    image, larger = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(kept(image), net(image), rtol=0, atol=0)
    assert not torch.allclose(kept(larger), net(larger))
    assert (kept[1].weight != 0).sum() == 3 * 7 * 7 and (conv.weight != 0).all()


def test_a_measurement_leaves_out_what_training_never_used(tmp_path):
    """A 13 x 13 kernel of equal weights, trained on maps of 4 pixels: 7 x 7 of its taps remain."""
    net = nn.Conv2d(3, 1, 13, padding=6, bias=False)
    nn.init.constant_(net.weight, 1.0)
    photos = list_images(save_pictures(tmp_path / "photos", 1))
    networks = {"one": (net, lambda image: torch.rand(3, 32, 32))}
    for trained_at, side in ((None, 13), (4, 7)):
        maps, _ = erf.measure(networks, photos, stage="", trained_at=trained_at)
        assert (maps["one"] > 0).sum() == side**2
    assert (net.weight == 1).all()


def test_they_get_no_gradient():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 9, padding=4, groups=2)
    conv(torch.randn(1, 2, 3, 3)).square().sum().backward()
    met = erf.taps_met(3, 3, 9, 1, 4, 1)
    assert torch.equal(conv.weight.grad[0, 0] != 0, met[:, None] & met)
