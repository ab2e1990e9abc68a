"""Theoretical receptive fields: by rule, by the gradient, and the papers' graphs."""

import pytest
import torch
import torchvision
from conftest import randomize
from shallow import SHALLOW, WIDTHS
from torch import nn
from torchvision.ops import DeformConv2d

from paperrepro.analysis.receptive_field import (
    connections,
    receptive_field,
    receptive_fields,
    support,
)
from paperrepro.models import build_model
from paperrepro.models.local_global import MaxRelative

LARGE = dict(kernels=(21, 5, 5, 5), channels=WIDTHS, depths=(1,) * 4)


def extent(pixels):
    """First and last row and column of what is True."""
    rows, columns = pixels.any(1).nonzero().flatten(), pixels.any(0).nonzero().flatten()
    return tuple(int(each) for each in (rows[0], rows[-1], columns[0], columns[-1]))


def ends(field, position, size):
    """The same of a field by rule."""
    rows, columns = field.pixels(*position, size)
    return rows.start, rows.stop - 1, columns.start, columns.stop - 1


@pytest.mark.parametrize(
    ("layer", "size", "jump", "start"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 3, 1, -1),
        (nn.Conv2d(3, 4, 3, dilation=2, padding=2), 5, 1, -2),  # RapidNet, Fig. 2
        (nn.Conv2d(3, 4, 3, dilation=3, padding="same"), 7, 1, -3),  # RapidNet, Eq. 3
        (nn.Conv2d(3, 4, 4, 4), 4, 4, 0),
        (nn.MaxPool2d(3, 2, 1), 3, 2, -1),
        (nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)), 3, 2, 0),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3)), 13, 4, 0),
        (nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1)] * 10), 21, 1, -10),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_layers_by_hand(layer, size, jump, start):
    field = receptive_field(layer)
    assert (field.size, field.jump, field.start) == ((size,) * 2, (jump,) * 2, (start,) * 2)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_rapidnets_equation_1(kernel, dilation):
    size = (kernel - 1) * dilation + 1
    conv = nn.Conv2d(1, 1, kernel, dilation=dilation)
    assert receptive_field(conv).size == (size, size)


def test_height_and_width_apart():
    layer = nn.Sequential(nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), nn.MaxPool2d((2, 1), (2, 1)))
    field = receptive_field(layer, size=(20, 30))
    assert (field.size, field.jump, field.start) == ((2, 7), (2, 1), (0, -3))
    assert (field.rows.side, field.columns.side) == (10, 30)


# As Araujo, Norris and Sim have them (Computing Receptive Fields of CNNs, Distill, 2019).
@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [("vgg16", "features", 212), ("alexnet", "features", 195)],
)
def test_networks_of_others(name, layer, size):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert receptive_field(model, layer).size == (size, size)


def test_resnet_by_hand():
    """7x7 s2, pool s2, then sums over bottlenecks of 2 jump, the first of a stage before its
    stride."""
    with torch.device("meta"):
        model = torchvision.models.resnet101()
    size, jump = 7 + 2 * 2, 4
    for stage, depth in enumerate((3, 4, 23, 3), start=1):
        size += 2 * jump
        jump *= 1 if stage == 1 else 2
        size += 2 * jump * (depth - 1)
        field = receptive_field(model, f"layer{stage}")
        assert (field.size[0], field.jump[0]) == (size, jump)
    assert field.rows.side == 7


@pytest.mark.parametrize("name", SHALLOW)
def test_the_gradient_finds_the_same_field(name):
    model = randomize(build_model(name, **SHALLOW[name]))
    image = (224, 256)
    fields = receptive_fields(model, image)
    smaller = 0
    for stage in range(4):
        field = fields[f"stages.{stage}"]
        centre = field.rows.side // 2, field.columns.side // 2
        seen = support(model, stage, image, samples=4 if "mobile" in name else 1)
        if name != "mobilevig_ti" or stage < 3:  # its links by twos leave rows out, see below
            assert extent(seen) == ends(field, centre, image)
        smaller += not bool(seen.all())
    assert smaller >= 2


def test_the_gradient_finds_the_same_field_in_a_corner():
    model = randomize(build_model("fasternet_t0", **SHALLOW["fasternet_t0"]))
    fields = receptive_fields(model, 256)
    for stage in range(4):
        seen = support(model, stage, 256, position=(0, 1))
        assert extent(seen) == ends(fields[f"stages.{stage}"], (0, 1), (256, 256))


def test_torchvisions_squeezenet_too():
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1().features[:5].eval()
    field = receptive_field(model, size=96)
    seen = support(model, "4", 96, samples=4)
    assert extent(seen) == ends(field, (field.rows.side // 2,) * 2, (96, 96))


def test_a_large_kernel_leaves_no_noise_outside():
    """Products of spectra would: the support is exact to the pixel, and full inside."""
    model = randomize(build_model("replknet_31b", **LARGE))
    seen = support(model, 0, 128)
    rows, columns = receptive_field(model, "stages.0", 128).pixels(16, 16, (128, 128))
    assert seen[rows, columns].float().mean() > 0.95
    assert seen.sum() == seen[rows, columns].sum() < seen.numel()


def test_a_squeeze_sees_everything():
    field = receptive_field(build_model("mobileone_s4"), "stages.2")
    assert field.jump == (0, 0)
    assert ends(field, (0, 0), (224, 224)) == ends(field, (13, 13), (224, 224)) == (0, 223, 0, 223)


# MobileOne-S0: 3x3 convolutions, 2 jump each; the one that halves stands at the jump before it.
# FasterNet-T0: 4x4 s4 and 2x2 s2 between 1, 2, 8, 2 blocks of one 3x3 PConv each.
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mobileone_s0", (1 + 2 + 4 + 8, 15 + 8 + 7 * 16, 135 + 16 + 9 * 32, 439 + 32)),
        ("fasternet_t0", (4 + 8, 12 + 4 + 2 * 16, 48 + 8 + 8 * 32, 312 + 16 + 2 * 64)),
    ],
)
def test_two_networks_by_hand(name, sizes):
    fields = receptive_fields(build_model(name))
    assert tuple(fields[f"stages.{stage}"].size[0] for stage in range(4)) == sizes


@pytest.mark.parametrize(
    ("kind", "side", "k", "number"),
    [("mgc", 7, 2, 5), ("svga", 7, 2, 7), ("mgc", 14, 4, 5), ("svga", 14, 2, 13)],
)
def test_connections_are_those_of_the_layer(kind, side, k, number):
    """Five against seven at 7x7 (MobileViGv2, Section 4.1), and the layer's own gradient."""
    layer = MaxRelative(kind, k)
    for token in ((side // 2, side // 2), (0, side - 1)):
        connected = connections(side, side, k, kind, token)
        assert connected.sum() == number
        x = torch.randn(64, 64, side, side, requires_grad=True)
        layer(x)[:, :, token[0], token[1]].square().sum().backward()
        assert torch.equal(x.grad.ne(0).any(0).any(0), connected)


def test_connections_grow_with_resolution_or_not():
    """O((N + M) / K) of SVGA, five of MGC."""
    for side in (16, 32, 64):
        assert connections(side, 2 * side, 2, "svga").sum() == 1 + (side // 2 - 1) + (side - 1)
        assert connections(side, 2 * side, 2, "mgc").sum() == 5
    assert connections(6, 6, 8, "mgc").sum() == 1  # on a map smaller than K each token has itself


def test_rapidnets_equations_2_and_3():
    """MobileViG's graph sees 7x7 of its last map, as a 3x3 convolution of dilation 3 does."""
    graph = receptive_field(MaxRelative("svga", 2), size=7)
    dilated = receptive_field(nn.Conv2d(1, 1, 3, dilation=3, padding=3), size=7)
    assert graph.size == dilated.size == (7, 7)
    assert receptive_field(MaxRelative("mgc", 2), size=7).size == (5, 5)


def test_what_has_no_rule_is_left_out_and_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
    assert list(receptive_fields(model)) == ["0"]
    with pytest.raises(ValueError, match=r"'2'.* 1.*support\(\)"):
        receptive_field(model, "2")
    with pytest.raises(ValueError, match="'3'.* 0"):
        receptive_field(model, "3")


def test_a_deformable_convolution_has_no_rule():
    model = build_model("rapidnet_ti", mixer="deformable")
    fields = receptive_fields(model)
    assert "stages.1" in fields
    assert "stages.2" not in fields
    assert not any(isinstance(model.get_submodule(name), DeformConv2d) for name in fields)


def test_a_network_that_cannot_be_followed():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"Branching .*support\(\)"):
        receptive_fields(Branching())
    seen = support(nn.Sequential(nn.Conv2d(3, 2, 5), Branching()), size=9)
    assert extent(seen) == (2, 6, 2, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: support(model, 4), "stage 4.*0 to 3"),
        (lambda model: support(model, "stage1"), "'stage1'.*stem, stages"),
        (lambda model: support(model, 0, 64, position=(16, 0)), "16 x 16"),
        (lambda model: connections(7, 7, 2, "vig"), "'vig'"),
        (lambda model: connections(7, 7, 2, "mgc", (7, 0)), "7 x 7"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call(build_model("fasternet_t0"))
