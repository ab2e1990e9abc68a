"""Fused equals unfused: for every network, every kind of branch, and what must be refused."""

import copy

import pytest
import torch
import torchvision
from conftest import randomize, relative_difference
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

import paperrepro
from paperrepro.models import build_model, list_models
from paperrepro.models.layers import Branches, Chain, ConvNorm, LayerScale, TwoHeads
from paperrepro.models.mobilenetv2 import MobileNetV2
from paperrepro.reparam import fold_before, merge, reparameterize

HEAVY = {"replknet_31l", "replknet_xl"}
NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in list_models()
]
FOLDED = (_BatchNorm, StochasticDepth, LayerScale, TwoHeads, nn.Identity, nn.Dropout)


def leftovers(model: nn.Module) -> list[str]:
    """What a re-parameterized network must not hold: RapidNet's dilated branches, which end in a
    GELU each, may stay parallel."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, FOLDED)
        or (isinstance(module, Branches) and any(isinstance(b, nn.Conv2d) for b in module.values()))
    ]


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_fused_equals_unfused(name, tmp_path, record_property):
    # Of RepLKNet's blocks one of each stage: the others are of the same kernels and widths.
    model = randomize(build_model(name, **({"depths": (1, 1, 1, 1)} if "repl" in name else {})))
    images = torch.randn(3, 3, 64, 96)
    logits = model(images)
    assert relative_difference(logits[:1], logits[1:2]) > 0.01, "the logits ignore the image"

    fused = reparameterize(model)
    assert not fused.training and fused.reparameterized and not leftovers(fused)
    single = relative_difference(logits, fused(images))
    record_property("float32", single)
    assert single <= 1e-4

    paperrepro.save_model(fused, tmp_path / "fused.safetensors")
    loaded = paperrepro.load_model(tmp_path / "fused.safetensors")
    assert torch.equal(loaded(images), fused(images))
    del fused, loaded

    model, images = model.double(), images.double()
    double = relative_difference(model(images), reparameterize(model)(images))
    record_property("float64", double)
    assert double <= 1e-9


@torch.no_grad()
@pytest.mark.parametrize("name", ["mobileone_s0", "replknet_3", "mobilevigv2_ti", "rapidnet_ti"])
def test_a_network_in_training_gives_the_same_and_stays_as_it_was(name):
    model = randomize(build_model(name))
    images = torch.randn(1, 3, 64, 64)
    logits = model(images)
    model.train()
    model.stem.eval()
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    structure = str(model)
    assert relative_difference(logits, reparameterize(model)(images)) <= 1e-4
    assert [module.training for module in model.modules()] == modes
    assert str(model) == structure and not model.reparameterized
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_reparameterizing_twice_changes_nothing():
    fused = reparameterize(randomize(build_model("mobileone_s0")))
    again = reparameterize(fused)
    images = torch.randn(1, 3, 64, 64)
    assert again is not fused and torch.equal(again(images), fused(images))


ABLATIONS = [
    ("rapidnet_ti", {"mixer": "deformable"}),
    ("rapidnet_ti", {"mixer": "svga", "cpe": False}),
    ("rapidnet_ti", {"mixer": "pointwise", "lk_ffn": False, "distilled": False}),
    ("rapidnet_ti", {"mixer": "dilated"}),
    ("mobilevigv2_ti", {"graph": "fc"}),
    ("mobilevig_ti", {"cpe": True, "graphs": (0, 1, 1, 1)}),
    ("mobileone_s0", {"branches": False}),
    ("fasternet_t0", {"mode": "slicing"}),
    ("replknet_3", {"small_kernel": 3, "shortcut": False}),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "config"), ABLATIONS)
def test_ablations_fuse(name, config):
    model = randomize(build_model(name, num_classes=10, **config))
    images = torch.randn(2, 3, 64, 64)
    fused = reparameterize(model)
    assert not leftovers(fused)
    assert relative_difference(model(images), fused(images)) <= 1e-4


@torch.no_grad()
def test_layer_norm_cannot_be_folded_and_stays():
    model = randomize(build_model("fasternet_t0", norm="layer"))
    images = torch.randn(2, 3, 64, 64)
    fused = reparameterize(model)
    assert torch.equal(model(images), fused(images))
    assert sum("LayerNorm" in type(module).__name__ for module in fused.modules()) == 17


@torch.no_grad()
@pytest.mark.parametrize("options", [{"small_kernel": 3}, {"dilation": 4, "kernel_size": 3}, {}])
def test_mobilenetv2_fuses(options):
    model = randomize(MobileNetV2(**({"kernel_size": 9} | options)))
    images = torch.randn(2, 3, 64, 96)
    fused = reparameterize(model)
    assert {type(fused.get_submodule(name)) for name in leftovers(fused)} == {nn.Identity}
    assert relative_difference(model(images), fused(images)) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvisions_networks_keep_their_function(name):
    model = randomize(torchvision.models.get_model(name))
    images = torch.randn(2, 3, 64, 64)
    assert relative_difference(model(images), reparameterize(model)(images)) <= 1e-4


# The algebra, one rule at a time, against the definition.


def assert_folds(module: nn.Module, channels: int = 6) -> nn.Module:
    """The folded copy, after comparing it with the module in float64."""
    module = randomize(module).double()
    x = torch.randn(2, channels, 9, 11, dtype=torch.float64)
    folded = reparameterize(module)
    torch.testing.assert_close(folded(x), module(x), rtol=0, atol=1e-12)
    return folded


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_batchnorm_after_a_convolution(stride, groups, bias):
    folded = assert_folds(ConvNorm(6, 6, 3, stride, groups=groups, bias=bias))
    assert isinstance(folded, nn.Conv2d)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_batchnorm_before_a_convolution_without_padding(groups):
    conv = nn.Conv2d(6, 12, 3, groups=groups)
    folded = assert_folds(Chain(norm=nn.BatchNorm2d(6), conv=conv))
    assert isinstance(folded, nn.Conv2d)


@torch.no_grad()
def test_batchnorm_before_padding_stays_because_the_shift_is_not_padded():
    folded = assert_folds(Chain(norm=nn.BatchNorm2d(6), conv=nn.Conv2d(6, 6, 3, padding=1)))
    assert isinstance(folded.norm, nn.BatchNorm2d)


@torch.no_grad()
def test_batchnorm_before_an_activation_stays():
    chain = Chain(norm=nn.BatchNorm2d(6), act=nn.ReLU(), conv=nn.Conv2d(6, 6, 1))
    assert isinstance(assert_folds(chain).norm, nn.BatchNorm2d)


@torch.no_grad()
def test_batchnorm_goes_through_pooling_into_the_classifier():
    chain = Chain(
        norm=nn.BatchNorm2d(6),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(6, 4),
    )
    assert not leftovers(assert_folds(chain))


@torch.no_grad()
def test_batchnorm_stays_where_the_classifier_sees_positions():
    chain = Chain(
        norm=nn.BatchNorm2d(6),
        pool=nn.AdaptiveAvgPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(24, 4),
    )
    assert isinstance(assert_folds(chain).norm, nn.BatchNorm2d)


@torch.no_grad()
def test_batchnorm_without_weights_folds_and_without_statistics_stays():
    plain = Chain(conv=nn.Conv2d(6, 6, 1), norm=nn.BatchNorm2d(6, affine=False)).eval()
    plain.norm.running_mean.normal_()
    x = torch.randn(2, 6, 4, 4)
    folded = reparameterize(plain)
    assert isinstance(folded, nn.Conv2d)
    torch.testing.assert_close(folded(x), plain(x))
    batch = Chain(conv=nn.Conv2d(6, 6, 1), norm=nn.BatchNorm2d(6, track_running_stats=False))
    assert torch.equal(reparameterize(batch)(x), batch.eval()(x))


@torch.no_grad()
def test_layer_scale_and_a_synchronised_batchnorm_fold():
    chain = Chain(conv=ConvNorm(6, 6, 3), scale=LayerScale(6))
    chain = nn.SyncBatchNorm.convert_sync_batchnorm(chain)
    assert isinstance(chain.conv.norm, nn.SyncBatchNorm)
    assert isinstance(reparameterize(chain), nn.Conv2d)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_parallel_branches_merge(groups):
    branches = Branches(
        identity=nn.Identity(),
        skip=nn.BatchNorm2d(6),
        point=ConvNorm(6, 6, 1, groups=groups),
        small=ConvNorm(6, 6, 3, groups=groups),
        large=nn.Conv2d(6, 6, 7, padding=3, groups=groups, bias=False),
    )
    folded = assert_folds(branches)
    assert isinstance(folded, nn.Conv2d) and folded.kernel_size == (7, 7)


@torch.no_grad()
def test_strided_branches_merge():
    branches = Branches(small=ConvNorm(6, 8, 1, 2), large=ConvNorm(6, 8, 5, 2))
    assert isinstance(assert_folds(branches), nn.Conv2d)


@torch.no_grad()
@pytest.mark.parametrize(
    "other",
    [
        ConvNorm(6, 6, 3, act="relu"),  # not linear
        nn.Conv2d(
            6, 6, 3, padding=2, dilation=2
        ),  # no place in the grid of a dense 5x5 kernel here
        nn.Conv2d(6, 6, 3, padding=1, groups=2),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
        nn.AvgPool2d(3, 1, 1),
    ],
)
def test_branches_that_cannot_merge_stay(other):
    folded = assert_folds(Branches(large=nn.Conv2d(6, 6, 5, padding=2), other=other))
    assert isinstance(folded, Branches)


def test_a_sum_without_convolutions_is_not_merged():
    assert merge([nn.Identity(), nn.BatchNorm2d(4)]) is None


def test_nothing_is_folded_into_nothing():
    assert not fold_before((torch.ones(3), torch.zeros(3)), None)


@torch.no_grad()
def test_a_chain_inside_a_residual_is_not_looked_through():
    # BN(x + conv(x)) is not x + BN(conv(x)).
    residual = nn.Sequential(
        paperrepro.models.layers.Residual(conv=nn.Conv2d(6, 6, 1)), nn.BatchNorm2d(6)
    )
    assert isinstance(assert_folds(residual)[1], nn.BatchNorm2d)
