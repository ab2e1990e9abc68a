"""The networks: sizes to the digit, agreement with timm, shapes, ablations, bad input."""

import hashlib
import subprocess
import sys

import pytest
import timm
import torch
from conftest import randomize, relative_difference
from torch import nn
from torchvision.ops import StochasticDepth

from paperrepro.complexity import (
    complexity,
    count_macs,
    count_parameters,
    stored_complexity,
)
from paperrepro.models import build_model, list_models
from paperrepro.models.fasternet import PConv
from paperrepro.models.layers import LayerScale, StridedPointwise
from paperrepro.models.local_global import MaxRelative, roll
from paperrepro.models.mobilenetv2 import MobileNetV2
from paperrepro.models.replknet import LargeKernel
from paperrepro.reparam import reparameterize
from paperrepro.weights.layouts import layouts

# Measured on the official code: parameters in training, MACs in training and re-parameterized,
# both in millions; and the parameters after the official re-parameterization where it says more
# than `complexity` does. From the project's reference, official.md, section 1.
OFFICIAL = {
    "mobileone_s0": (5_293_272, 1051.94, 275.11),
    "mobileone_s1": (4_825_192, 830.06, 825.06),
    "mobileone_s2": (7_884_648, 1304.03, 1298.43),
    "mobileone_s3": (10_170_600, 1902.11, 1895.79),
    "mobileone_s4": (14_951_248, 2986.80, 2979.27),
    "fasternet_t0": (3_905_500, 335.42, 335.42),
    "fasternet_t1": (7_595_368, 850.51, 850.51),
    "fasternet_t2": (14_982_888, 1904.33, 1904.33),
    "fasternet_s": (31_181_032, 4549.74, 4549.74),
    "fasternet_m": (53_521_464, 8721.94, 8721.94),
    "fasternet_l": (93_465_192, 15494.38, 15494.38),
    "replknet_3": (71_906_408, 12938.65, 12938.65),
    "replknet_7": (72_712_552, 13140.86, 13063.09),
    "replknet_13": (74_156_392, 13514.17, 13436.40),
    "replknet_25": (78_709_096, 14886.99, 14809.22),
    "replknet_31b": (79_864_168, 15431.30, 15353.53),
    "replknet_31l": (172_671_016, 32780.74, 32664.08),
    "replknet_xl": (335_435_752, 63078.90, 63078.90),
    "mobilevig_ti": (5_271_074, 662.14, None),
    "mobilevig_s": (7_276_538, 983.69, None),
    "mobilevig_m": (14_075_786, 1493.43, None),
    "mobilevig_b": (26_868_506, 2792.94, None),
    "mobilevigv2_ti": (5_695_824, 629.63, None),
    "mobilevigv2_s": (7_767_632, 912.26, None),
    "mobilevigv2_m": (15_471_504, 1619.49, None),
    "mobilevigv2_b": (27_878_864, 3558.23, None),
    "rapidnet_ti": (6_627_840, 617.47, None),
    "rapidnet_s": (9_213_088, 896.62, None),
    "rapidnet_m": (17_304_496, 1596.88, None),
    "rapidnet_b": (30_556_496, 3354.37, None),
}
FUSED = {
    "mobileone_s0": 2_078_504,
    "mobileone_s1": 4_764_840,
    "mobileone_s2": 7_808_168,
    "mobileone_s3": 10_078_312,
    "mobileone_s4": 14_838_352,
    "fasternet_t0": 3_900_660,
    "fasternet_t1": 7_587_624,
    "fasternet_t2": 14_971_272,
    "fasternet_s": 31_160_424,
    "fasternet_m": 53_488_488,
    "fasternet_l": 93_421_224,
}
# RepLKNet after the first official step (large kernels merged) and after the second (BNs folded).
REPLKNET_STEPS = {
    "replknet_3": (71_894_376, 71_806_056),
    "replknet_7": (72_375_656, 72_287_336),
    "replknet_13": (73_819_496, 73_731_176),
    "replknet_25": (78_372_200, 78_283_880),
    "replknet_31b": (79_527_272, 79_438_952),
    "replknet_31l": (172_165_672, 172_033_192),
    "replknet_xl": (335_399_656, 335_210_984),
}
IN_TIMM = [name for name in OFFICIAL if name.startswith(("mobileone", "fasternet"))]
SMALLEST = ["mobileone_s0", "fasternet_t0", "mobilevig_ti", "mobilevigv2_ti", "rapidnet_ti"]


def on_meta(name: str, **config) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, **config)


def test_there_are_thirty_networks():
    assert list_models() == list(OFFICIAL)
    assert list_models("rapidnet") == ["rapidnet_ti", "rapidnet_s", "rapidnet_m", "rapidnet_b"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_sizes_are_those_of_the_official_code(name):
    params, macs, macs_fused = OFFICIAL[name]
    ours = complexity(name)
    assert ours == stored_complexity(name), "paperrepro models --update data/results/complexity.csv"
    assert ours.params == params
    assert round(ours.macs / 1e6, 2) == macs
    if macs_fused:
        assert round(ours.macs_fused / 1e6, 2) == macs_fused
    if name in FUSED:
        assert ours.params_fused == FUSED[name]


@pytest.mark.parametrize("name", REPLKNET_STEPS)
def test_replknet_sizes_after_the_official_steps(name):
    model = on_meta(name)
    kernels = [module for module in model.modules() if isinstance(module, LargeKernel)]
    merged = sum(
        kernel["large"].conv.weight.numel() + len(kernel["large"].norm.weight) for kernel in kernels
    )
    assert (
        count_parameters(model) - sum(map(count_parameters, kernels)) + merged
        == REPLKNET_STEPS[name][0]
    )
    assert complexity(name).params_paper == REPLKNET_STEPS[name][1]


def test_official_counter_of_mobilevig():
    counts = [complexity(f"mobilevigv2_{v}").params_paper / 1e6 for v in ("ti", "s", "m", "b")]
    assert [round(count, 4) for count in counts] == [5.6424, 7.6892, 15.3602, 27.7242]
    counts = [complexity(f"mobilevig_{v}").params_paper / 1e6 for v in ("ti", "s", "m", "b")]
    assert [round(count, 4) for count in counts] == [5.2297, 7.2147, 13.9960, 26.7273]


# The first 16 digits of the sha256 over the sorted lines "key shape" of the released checkpoints.
LAYOUTS = {
    "fasternet_t0": "aac910bdaa7e1af0",
    "mobileone_s0": "f813d5a2e071e846",
    "mobileone_s0 fused": "dddc31bb1aeb937c",
    "mobileone_s4": "5fa9215cea461373",
    "mobileone_s4 fused": "10f924c029b6d14f",
    "mobilevig_ti": "9e7d01c0f4357ba8",
    "mobilevigv2_ti": "fbbf766a9c554ab7",
    "rapidnet_ti": "74d1b1ffcf7568f2",
    "replknet_31b": "4b1080fcd0abf5ba",
    "replknet_xl": "65f12c4ca588c852",
}


@pytest.mark.parametrize("file", LAYOUTS)
def test_keys_and_shapes_are_those_of_the_released_checkpoints(file):
    name, _, fused = file.partition(" ")
    model = on_meta(name)
    model = reparameterize(model) if fused else model
    names = layouts(model)["released"]
    lines = [
        f"{names[key]} {'x'.join(map(str, value.shape))}"
        for key, value in model.state_dict().items()
    ]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert digest[:16] == LAYOUTS[file]


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_layout_names_every_weight_once(name):
    model = on_meta(name)
    for table in layouts(model).values():
        assert list(table) == list(model.state_dict())
        assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("name", IN_TIMM)
def test_logits_equal_timms(name):
    model = randomize(build_model(name))
    names = layouts(model)["timm"]
    twin = timm.create_model(name).eval()
    twin.load_state_dict({names[key]: value for key, value in model.state_dict().items()})
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        ours, theirs = model(images), twin(images)
    if name.startswith("fasternet"):
        assert torch.equal(ours, theirs)
    else:
        assert relative_difference(ours, theirs) <= 1e-5


@pytest.mark.parametrize("name", OFFICIAL)
def test_features_are_four_maps_of_non_square_images(name):
    model = on_meta(name, num_classes=7)
    images = torch.empty(2, 3, 96, 160, device="meta")
    maps = model.features(images)
    channels = model.stage_channels
    assert [tuple(m.shape) for m in maps] == [
        (2, channels[i], 96 // stride, 160 // stride) for i, stride in enumerate((4, 8, 16, 32))
    ]
    assert model(images).shape == (2, 7)


@pytest.mark.parametrize("name", ["rapidnet_ti", "mobilevigv2_ti", "mobilevig_ti"])
def test_a_distilled_network_answers_with_the_mean_of_its_heads(name):
    model = randomize(build_model(name, num_classes=5))
    images = torch.randn(2, 3, 64, 64)
    heads = model.head.classifier
    with torch.no_grad():
        hidden = model.head.hidden(model.head.pool(model.features(images)[-1]))
        head, dist_head = heads.both(hidden)
        assert torch.equal(model(images), ((head + dist_head) / 2).flatten(1))
        assert relative_difference(head, dist_head) > 0.1
        assert model.train()(images).shape == (2, 5)


def drop_rates(name: str) -> list[float]:
    return [m.p for m in on_meta(name).modules() if isinstance(m, StochasticDepth)]


def test_stochastic_depth_has_the_released_rates():
    assert not drop_rates("mobileone_s0") and not drop_rates("fasternet_t0")
    assert max(drop_rates("fasternet_l")) == pytest.approx(0.3)
    assert max(drop_rates("mobilevig_b")) == pytest.approx(0.1)
    replknet = drop_rates("replknet_31b")
    assert replknet[0::2] == replknet[1::2] and max(replknet) == pytest.approx(0.3)
    for name, largest in {
        "mobilevigv2_ti": 0.0294,
        "mobilevigv2_b": 0.0308,
        "rapidnet_ti": 0.0200,
        "rapidnet_b": 0.0217,
    }.items():
        assert round(max(drop_rates(name)), 4) == largest


def test_local_blocks_of_a_stage_share_the_rate_that_its_first_mixer_has():
    step = 0.1 / 17  # MobileViGv2-Ti has 18 blocks
    counts = {1: 2, 2: 6 + 2, 3: 2, 4: 2 + 2, 5: 2}  # stages 3 and 4: local blocks, mixer, FFN
    expected = [step * i for i, count in counts.items() for _ in range(count)]
    assert drop_rates("mobilevigv2_ti") == pytest.approx(expected)
    # RapidNet's first dilated block comes in stage 3, so that only stage 4 has local rates.
    step = 0.1 / 15
    expected = [step * i for i, count in {1: 2, 2: 2 + 2, 3: 2}.items() for _ in range(count)]
    assert drop_rates("rapidnet_ti") == pytest.approx(expected)


def test_initialisation_is_the_released_one():
    fasternet = build_model("fasternet_t0")
    assert fasternet.head.conv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    rapidnet = build_model("rapidnet_ti")
    conv = rapidnet.stages[3].downsample.conv
    assert conv.weight.std().item() == pytest.approx((2 / (112 * 9)) ** 0.5, rel=0.02)
    assert conv.bias.eq(0).all()
    scales = [m.weight for m in rapidnet.modules() if isinstance(m, LayerScale)]
    assert scales and all(scale.eq(torch.tensor(1e-5)).all() for scale in scales)


def test_table_2_of_mobileone_taken_literally_has_other_macs():
    literal = {"s1": (4_769_128, 846.4), "s2": (7_812_456, 1319.8), "s3": (10_088_936, 1945.0)}
    literal["s4"] = (14_867_792, 3103.3)
    for variant, (params, macs) in literal.items():
        model = on_meta(f"mobileone_{variant}")
        model = on_meta(f"mobileone_{variant}", stem_width=model.stage_channels[0])
        fused = reparameterize(model)
        assert count_parameters(fused) == params
        assert round(count_macs(fused) / 1e6, 1) == macs


RAPID = (112, 112, 224, 224)  # the channels of RapidNet-Ti's four dilated convolution blocks
GRAPH = (64, 64, 128, 128, 256, 256)  # and of MobileViGv2-Ti's six graph blocks
FASTER = (40,) + (80,) * 2 + (160,) * 8 + (320,) * 2  # and of FasterNet-T0's thirteen blocks
WIDTHS = (
    (48,) * 6 + (128,) * 16 + (256,) * 20 + (1024,)
)  # the outputs of MobileOne-S0's convolutions
SE = (896,) * 11 + (2048,)  # and of MobileOne-S4's with squeeze-and-excite
LKB = (128,) * 2 + (256,) * 2 + (512,) * 18 + (1024,) * 2  # and of RepLKNet-31B's large kernels

# network, options, the parameters that the options add to it
ABLATIONS = [
    ("rapidnet_ti", {"mixer": "dilated"}, -sum(9 * c * c + 3 * c for c in RAPID)),
    ("rapidnet_ti", {"mixer": "conv3x3"}, -sum(9 * c * c + 3 * c for c in RAPID)),
    ("rapidnet_ti", {"mixer": "pointwise"}, -sum(17 * c * c + 3 * c for c in RAPID)),
    ("rapidnet_ti", {"mixer": "svga"}, -sum(16 * c * c + 3 * c for c in RAPID)),
    ("rapidnet_ti", {"mixer": "deformable"}, sum(18 * 9 * c + 18 for c in RAPID)),
    ("rapidnet_ti", {"dilations": (3, 4)}, 0),
    ("rapidnet_ti", {"kernels": (5, 5)}, 10_641_920 - 6_627_840),
    ("rapidnet_ti", {"kernels": (3, 5)}, 8_634_880 - 6_627_840),
    ("rapidnet_ti", {"cpe": False}, -sum(50 * c for c in RAPID)),
    ("rapidnet_ti", {"lk_ffn": False}, -sum(51 * c for c in RAPID)),
    ("rapidnet_ti", {"distilled": False}, 6_114_840 - 6_627_840),
    ("rapidnet_b", {"distilled": False}, 29_787_496 - 30_556_496),
    ("mobilevigv2_ti", {"graph": "svga"}, 0),
    ("mobilevigv2_ti", {"graph": "fc"}, -sum(c * c for c in GRAPH)),
    ("mobilevigv2_ti", {"cpe": False}, -sum(50 * c for c in GRAPH)),
    ("mobilevigv2_ti", {"graphs": (0, 0, 0, 2)}, -sum(12 * c * c + 76 * c for c in GRAPH[:4])),
    ("mobilevig_ti", {"graph": "mgc"}, 0),
    ("mobilevig_ti", {"graph": "fc"}, -2 * 2 * 256 * 256),
    ("mobilevig_ti", {"cpe": True}, 2 * 50 * 256),
    ("mobilevig_ti", {"graphs": (0, 2, 2, 2)}, 2 * sum(15 * c * c + 27 * c for c in (84, 168))),
    ("fasternet_t0", {"n_div": 2}, sum(9 * ((c // 2) ** 2 - (c // 4) ** 2) for c in FASTER)),
    ("fasternet_t0", {"n_div": 8}, sum(9 * ((c // 8) ** 2 - (c // 4) ** 2) for c in FASTER)),
    ("fasternet_t0", {"norm": "layer"}, 0),
    ("fasternet_t0", {"act": "relu"}, 0),
    ("fasternet_t0", {"mode": "slicing"}, 0),
    ("mobileone_s0", {"k": 1, "branches": False}, 2_078_504 - 5_293_272 + sum(WIDTHS)),
    (
        "mobileone_s4",
        {"se_blocks": (0, 0, 0, 0)},
        -sum(2 * c * (c // 16) + c // 16 + c for c in SE),
    ),
    ("replknet_31b", {"small_kernel": None}, -sum(27 * c for c in LKB)),
    ("replknet_31b", {"shortcut": False}, 0),
    ("replknet_3", {"small_kernel": 3}, 72_038_760 - 71_906_408),
    ("replknet_31b", {"kernels": (3, 3, 3, 3), "small_kernel": 3}, 72_038_760 - 79_864_168),
]


@pytest.mark.parametrize(("name", "config", "added"), ABLATIONS)
def test_ablations_run_and_have_the_parameters_of_algebra(name, config, added):
    model = build_model(name, **config) if "replknet" not in name else on_meta(name, **config)
    assert count_parameters(model) - complexity(name).params == added
    images = torch.randn(2, 3, 64, 64, device=next(model.parameters()).device)
    assert model.eval()(images).shape == (2, 1000)


def test_macs_of_a_deformable_convolution_are_those_of_its_taps():
    offsets = sum(18 * 9 * c * side**2 for c, side in zip(RAPID, (14, 14, 7, 7), strict=True))
    deformable = build_model("rapidnet_ti", mixer="deformable")
    assert count_macs(deformable) == complexity("rapidnet_ti").macs + offsets


@pytest.mark.parametrize("graph", ["svga", "mgc", "fc"])
def test_the_graph_of_an_ablation_changes_the_function(graph):
    torch.manual_seed(0)
    model = randomize(build_model("mobilevigv2_ti", graph=graph, num_classes=4))
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        logits = model(images)
        for module in model.modules():
            if isinstance(module, MaxRelative):
                module.distance += 1
        assert torch.equal(model(images), logits) == (graph == "fc")


def test_a_shortcut_less_replknet_block_is_a_plain_chain():
    with_shortcut = build_model("replknet_3", depths=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    without = build_model("replknet_3", depths=(1, 1, 1, 1), channels=(8, 8, 8, 8), shortcut=False)
    x = torch.randn(1, 8, 4, 4)
    block, plain = with_shortcut.eval().stages[0].blocks[0], without.eval().stages[0].blocks[0]
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), x + plain(x))


def test_roll_is_torch_roll_up_to_the_side_and_the_identity_beyond():
    x = torch.randn(2, 3, 5, 7)
    for dim in (2, 3):
        side = x.shape[dim]
        for shift in [*range(-side, 0), *range(1, side + 1)]:
            assert torch.equal(roll(x, shift, dim), torch.roll(x, shift, dim))
        assert torch.equal(roll(x, side + 1, dim), x)


@pytest.mark.parametrize("graph", ["mgc", "svga"])
def test_a_traced_graph_refuses_maps_of_another_size(graph):
    """Its connections are those of the size that it was traced with."""
    layer = MaxRelative(graph, 2)
    traced = torch.jit.trace(layer, torch.randn(1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(traced(x), layer(x))
    for height, width in ((16, 16), (8, 4), (1, 8), (1, 1)):
        with pytest.raises(RuntimeError):
            traced(torch.randn(1, 3, height, width))
    single = torch.jit.trace(layer, torch.randn(1, 3, 1, 1))
    with pytest.raises(RuntimeError):
        single(x)


def test_max_relative_features_of_one_bright_pixel():
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1
    mgc = MaxRelative("mgc", 2)(x)[0, 1]
    assert {tuple(p) for p in mgc.nonzero().tolist()} == {(1, 3), (5, 3), (3, 1), (3, 5)}
    svga = MaxRelative("svga", 2)(x)[0, 1]
    # Wrapped around a side of 7, the shifts 2, 4 and 6 reach every pixel but those at 1, 3 and 5.
    assert len(svga.nonzero()) == 6
    assert MaxRelative("svga", 2, reverse=True)(x)[0, 1].nonzero().tolist() == [[3, 3]]


def test_both_forms_of_pconv_agree_and_leave_their_input_alone():
    x = torch.randn(2, 16, 5, 5, requires_grad=True)
    split_cat, slicing = PConv(16), PConv(16, mode="slicing")
    slicing.load_state_dict(split_cat.state_dict())
    before = x.detach().clone()
    assert torch.equal(split_cat(x), slicing(x))
    assert torch.equal(x.detach(), before)
    assert torch.equal(slicing(x)[:, 4:], x[:, 4:])
    gradients = [torch.autograd.grad(form(x).square().sum(), x)[0] for form in (split_cat, slicing)]
    torch.testing.assert_close(*gradients)


TABLE_11 = {  # options: parameters, MACs
    (): (3_504_872, 300_774_272),
    (("kernel_size", 9),): (4_018_664, 466_505_600),
    (("kernel_size", 13),): (4_646_632, 669_066_112),
    (("kernel_size", 3), ("dilation", 4)): (3_504_872, 300_774_272),
}


@pytest.mark.parametrize("options", TABLE_11)
def test_mobilenetv2_of_table_11(options):
    with torch.device("meta"):
        model = MobileNetV2(**dict(options))
    assert (count_parameters(model), count_macs(model)) == TABLE_11[options]


def test_a_strided_pointwise_convolution_is_the_convolution():
    ours = StridedPointwise(6, 4, 1, 2, groups=2)
    images = torch.randn(2, 6, 7, 8, requires_grad=True)
    theirs = nn.functional.conv2d(images, ours.weight, ours.bias, stride=2, groups=2)
    torch.testing.assert_close(ours(images), theirs)
    wanted = torch.autograd.grad(theirs.square().sum(), (images, *ours.parameters()))
    got = torch.autograd.grad(ours(images).square().sum(), (images, *ours.parameters()))
    torch.testing.assert_close(got, wanted)


def test_channels_last_training_of_mobileone_leaves_foreign_memory_alone():
    code = """
import torch
from paperrepro.models.layers import convolution
torch.set_num_threads(1)
scale = convolution(3, 48, 1, 2, bias=False).to(memory_format=torch.channels_last)
images = torch.randn(2, 3, 224, 224).contiguous(memory_format=torch.channels_last)
for _ in range(20):
    scale(images).sum().backward()
    others = [torch.randn(100) for _ in range(100)]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-500:]}"


def test_mobilenetv2_for_small_images():
    model = MobileNetV2(5, blocks=(1, 1, 2, 2, 1, 2, 1), strides=(1, 1, 1, 2, 1, 2, 1)).eval()
    sides = [stage.shape[-1] for stage in model.features(torch.randn(1, 3, 32, 32))]
    assert sides == [16, 16, 8, 4]
    with pytest.raises(ValueError, match=r"strides .*\(1, 2\)"):
        MobileNetV2(strides=(1, 2))


def test_mobilenetv2_variants():
    large = MobileNetV2(7, last_stage_only=True, small_kernel=3, num_classes=3)
    added = sum(c * (49 + 9 - 9 + 2) for c in (576, 960, 960, 960))
    assert count_parameters(large) == count_parameters(MobileNetV2(num_classes=3)) + added
    images = torch.randn(1, 3, 64, 96)
    plain = MobileNetV2(13, shortcut=False).eval()
    assert not any(getattr(block, "use_res_connect", False) for block in plain.modules())
    assert [tuple(m.shape[1:]) for m in plain.features(images)] == [
        (24, 16, 24),
        (32, 8, 12),
        (96, 4, 6),
        (1280, 2, 3),
    ]
    with pytest.raises(ValueError, match="kernel_size .*4"):
        MobileNetV2(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_model("fasternet-t0x"), "fasternet_t0"),
        (lambda: build_model("convnext_tiny"), "list_models"),
        (lambda: build_model("rapidnet_ti", mixr="mldc"), "'mixr'.*mixer"),
        (lambda: build_model("rapidnet_ti", mixer="conv7"), "'conv7'.*'mldc'"),
        (lambda: build_model("fasternet_t0", norm="group"), "'group'.*'batch'"),
        (lambda: build_model("fasternet_t0", mode="slice"), "'slice'.*'split_cat'"),
        (lambda: build_model("mobilevigv2_ti", graph="knn"), "'knn'.*mgc"),
        (lambda: build_model("replknet_3", small_kernel=5), "5.*3"),
        (lambda: build_model("mobileone_s0", num_classes=-1), "num_classes .*-1"),
        (lambda: list_models("vit"), "'vit'.*mobileone"),
    ],
)
def test_bad_options_are_named_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SMALLEST)
def test_bad_images_are_named_with_the_remedy(name):
    model = on_meta(name)
    with pytest.raises(ValueError, match=f"31 x 64 pixels .*{name}.*32"):
        model(torch.empty(1, 3, 31, 64, device="meta"))
    with pytest.raises(ValueError, match=r"\(3, 64, 64\)"):
        model(torch.empty(3, 64, 64, device="meta"))
    with pytest.raises(ValueError, match=r"\(1, 1, 64, 64\)"):
        model(torch.empty(1, 1, 64, 64, device="meta"))


@pytest.mark.parametrize("graph, reverse", [("mgc", False), ("svga", True)])
def test_max_relative_has_values_and_gradients_of_the_form_with_zeros(graph, reverse):
    """Flat ground included, where a pixel equals its neighbour and the gradient is a half."""
    x = torch.randn(2, 3, 9, 8).round().requires_grad_()
    layer = MaxRelative(graph, 2, reverse=reverse)
    largest = torch.zeros_like(x)
    for dim in (2, 3):
        for shift in layer.shifts(x.shape[dim]):
            difference = x.roll(shift, dim) - x
            largest = torch.maximum(largest, -difference if reverse else difference)
    expected = torch.cat([x, largest], dim=1)
    weights = torch.randn_like(expected)
    assert torch.equal(layer(x), expected)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (layer(x), expected)]
    torch.testing.assert_close(*grads)
