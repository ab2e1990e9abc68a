"""What users of timm and torchvision expect of every network, and tools that walk through it."""

import pytest
import timm
import torch
from conftest import randomize, relative_difference
from shallow import SHALLOW
from torch import nn
from torch.export import Dim
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import StochasticDepth

import paperrepro
from paperrepro import create_model, list_models, reparameterize
from paperrepro.models import FeatureExtractor, downloadable
from paperrepro.models.backbone import set_output_stride
from paperrepro.models.mobileone import OverParameterized
from paperrepro.weights import WeightsError

FAMILIES = list(SHALLOW)
IN_TIMM = {
    **{f"mobileone_s{i}": f"mobileone_s{i}.apple_in1k" for i in range(5)},
    **{f"fasternet_{v}": f"fasternet_{v}.in1k" for v in ("t0", "t1", "t2", "s", "m", "l")},
}


def shallow(name, **options):
    return randomize(create_model(name, **SHALLOW[name], **options))


def images(count=2, height=96, width=64, channels=3):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, channels, height, width, generator=generator)


@pytest.mark.parametrize("name", list_models())
def test_all_thirty_have_the_names_of_timm(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=7).eval()
    x = images(1, 64, 96).to("meta")
    maps = model.features(x)
    info = model.feature_info
    assert info.channels() == [m.shape[1] for m in maps] and info.reduction() == [4, 8, 16, 32]
    assert [model.get_submodule(module) for module in info.module_name()] == list(model.stages)
    last = model.forward_features(x)
    assert last.shape == maps[-1].shape and model.num_features == last.shape[1]
    assert model.forward_head(last).shape == (1, 7)
    assert model.forward_head(last, pre_logits=True).shape == (1, model.head_hidden_size)
    assert not isinstance(model.get_classifier(), nn.Identity)

    two = FeatureExtractor(model, (1, -1))
    assert [m.shape for m in two(x)] == [maps[1].shape, maps[3].shape]
    assert two.feature_info.reduction() == [8, 32]

    model.reset_classifier(0)
    assert model(x).shape == (1, model.head_hidden_size)
    model.reset_classifier(3)
    assert model(x).shape == (1, 3) and model.num_classes == 3

    set_output_stride(model, 8)
    assert model.feature_info.reduction() == [4, 8, 8, 8]
    assert [tuple(m.shape[2:]) for m in model.features(x)] == [(16, 24), *[(8, 12)] * 3]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_map_holds_the_map_itself(name, output_stride):
    """Every second pixel of every second row: dilation leaves nothing out, it adds."""
    torch.manual_seed(1)
    model = shallow(name)
    dilated = create_model(name, **SHALLOW[name], output_stride=output_stride).eval()
    dilated.load_state_dict(model.state_dict())
    with torch.no_grad():
        maps, dense = model.features(images(1, 128, 96)), dilated.features(images(1, 128, 96))
    for i, (one, other) in enumerate(zip(maps, dense, strict=True)):
        step = other.shape[2] // one.shape[2]
        assert step == max(1, 4 * 2**i // output_stride)
        torch.testing.assert_close(other[:, :, ::step, ::step], one, rtol=1e-3, atol=1e-4)
    fused = reparameterize(dilated)
    with torch.no_grad():
        assert relative_difference(dilated(images()), fused(images())) < 1e-4


def test_pooled_features_are_what_enters_the_classifier():
    for name in FAMILIES:
        model = shallow(name, num_classes=5)
        logits, last = model(images()), model.forward_features(images())
        pooled = model.forward_head(last, pre_logits=True)
        assert torch.equal(model.forward_head(last), logits)
        model.reset_classifier(0)
        assert torch.equal(model(images()), pooled)
        torch.testing.assert_close(reparameterize(model)(images()), pooled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_without_their_classifier(name, tmp_path):
    model = shallow(name, num_classes=5)
    paperrepro.save_model(model, tmp_path / "model.safetensors")
    options = dict(weights=tmp_path / "model.safetensors", **SHALLOW[name])
    headless = create_model(name, num_classes=0, **options).eval()
    pooled = model.forward_head(model.forward_features(images()), pre_logits=True)
    assert torch.equal(headless(images()), pooled)
    maps = create_model(name, features_only=True, **options).eval()(images())
    assert all(map(torch.equal, maps, model.features(images())))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_grey_image_is_answered_as_its_three_equal_channels(name, tmp_path):
    model = shallow(name, num_classes=5)
    paperrepro.save_model(model, tmp_path / "model.safetensors")
    options = dict(num_classes=5, weights=tmp_path / "model.safetensors", **SHALLOW[name])
    grey = images(channels=1)
    for channels in (1, 6):
        other = create_model(name, in_chans=channels, **options).eval()
        expected = model(grey.expand(-1, 3, -1, -1))
        answer = other(grey.expand(-1, channels, -1, -1))
        torch.testing.assert_close(answer, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"\(N, 6, H, W\)"):
        other(images())


@pytest.mark.parametrize("name", FAMILIES)
def test_drop_path_rate(name):
    model = create_model(name, **SHALLOW[name], drop_path_rate=0.5)
    rates = [m.p for m in model.modules() if isinstance(m, StochasticDepth)]
    rates += [m.drop_path_rate for m in model.modules() if isinstance(m, OverParameterized)]
    assert 0.1 < max(rates) <= 0.5
    model.train()
    torch.manual_seed(0)
    once = model(images(8))
    assert not torch.equal(once, model(images(8)))


def test_drop_path_of_mobileone_leaves_the_skip():
    branches = OverParameterized(
        skip=nn.BatchNorm2d(8), conv0=nn.Conv2d(8, 8, 3, padding=1), drop_path_rate=1.0
    )
    x = torch.randn(2, 8, 4, 4)
    branches["skip"].eval()
    assert torch.equal(branches(x), branches["skip"](x))
    assert not torch.equal(branches.eval()(x), branches["skip"](x))
    assert OverParameterized(conv0=nn.Conv2d(8, 8, 1), drop_path_rate=1.0).drop_path_rate == 0


def test_names_by_pattern_and_by_weights():
    assert (
        list_models("fast*")
        == list_models("fasternet")
        == [n for n in list_models() if n[0] == "f"]
    )
    released = list_models(weights="released")
    assert len(released) == 18 and all(map(downloadable, released))
    assert list_models("*_ti", weights="released") == ["rapidnet_ti"]
    for pattern in ("resnet*", "FASTERNET"):
        with pytest.raises(ValueError, match=f"{pattern[:3]}.*fasternet"):
            list_models(pattern)
    with pytest.raises(ValueError, match="'imagenet'"):
        list_models(weights="imagenet")


@pytest.mark.parametrize(
    "options, value",
    [
        (dict(num_classes=-1), "-1"),
        (dict(output_stride=12), "12"),
        (dict(features_only=True, out_indices=(0, 4)), r"\(0, 4\)"),
        (dict(features_only=True, out_indices=()), r"\(\)"),
        (dict(in_channels=1), "'in_channels'.*in_chans"),
    ],
)
def test_bad_options(options, value):
    with pytest.raises(ValueError, match=value):
        create_model("fasternet_t0", **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointed_gradients_are_the_same(name):
    model = shallow(name, num_classes=5).train()
    twin = create_model(name, num_classes=5, **SHALLOW[name])
    twin.load_state_dict(model.state_dict())
    twin.set_grad_checkpointing()
    for network in (model, twin):
        torch.manual_seed(2)
        network(images()).square().sum().backward()
    for (key, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=key)
    for (key, one), other in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=key)


# torchvision's tools, on the networks as they are.


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvisions_tools(name):
    model = shallow(name, num_classes=5)
    maps = model.features(images())
    nodes = {f"stages.{i}": str(i) for i in range(3)} | {"head": "logits"}
    extracted = create_feature_extractor(model, return_nodes=nodes)(images())
    assert all(torch.equal(extracted[str(i)], maps[i]) for i in range(3))
    assert torch.equal(extracted["logits"], model(images()))
    last = IntermediateLayerGetter(model, {"stem": "low", "stages": "out"})(images())
    assert torch.equal(last["out"], maps[3])

    body = create_model(name, **SHALLOW[name], features_only=True, out_indices=(1, 2, 3))
    info = body.feature_info
    layers = {module: str(i) for i, module in enumerate(info.module_name())}
    fpn = BackboneWithFPN(body, layers, info.channels(), 16).eval()
    sizes = [tuple(m.shape) for m in fpn(images()).values()]
    assert sizes[:3] == [(2, 16, 96 // r, 64 // r) for r in (8, 16, 32)]
    folded = reparameterize(fpn)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for one, other in zip(fpn(images()).values(), folded(images()).values(), strict=True):
        assert relative_difference(one, other) < 1e-4


# Tracing.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("fused", [False, True])
def test_symbolic_trace_knows_no_size(name, fused):
    model = shallow(name, num_classes=5)
    model = reparameterize(model) if fused else model
    traced = torch.fx.symbolic_trace(model)
    for size in ((2, 96, 64), (1, 160, 128)):
        torch.testing.assert_close(traced(images(*size)), model(images(*size)))
    with pytest.raises(ValueError, match="too small"):
        traced(images(1, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_export_with_dynamic_batch_and_size(name):
    model = shallow(name, num_classes=5)
    sides = {2: 32 * Dim("height", min=4, max=16), 3: 32 * Dim("width", min=4, max=16)}
    dynamic = {0: Dim("batch", min=1, max=64)} | sides
    example = (images(2, 160, 128),)
    program = torch.export.export(model, example, dynamic_shapes=(dynamic,), strict=False).module()
    for size in ((2, 160, 128), (3, 128, 160)):
        if name == "mobilevig_ti" and size != (2, 160, 128):
            # How many connections there are depends on the size, which is held fast.
            with pytest.raises(AssertionError, match="Guard failed"):
                program(images(*size))
            continue
        torch.testing.assert_close(
            program(images(*size)), model(images(*size)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasternet_t0", "mobilevigv2_ti"])
def test_compiled(name):
    model = shallow(name, num_classes=5)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)


# timm's files.


@pytest.mark.parametrize("name", ["mobileone_s0", "fasternet_t0"])
def test_weights_of_timm_by_tag(name, monkeypatch):
    twin = randomize(timm.create_model(name))
    tags = []

    def offline(tag, pretrained):
        tags.append((tag, pretrained))
        return twin

    monkeypatch.setattr(timm, "create_model", offline)
    model = create_model(name, weights=f"timm:{IN_TIMM[name]}").eval()
    assert tags == [(IN_TIMM[name], True)]
    assert relative_difference(twin(images()), model(images())) <= 1e-5


def test_timms_tags_are_real():
    for name, tag in IN_TIMM.items():
        assert tag.partition(".")[0] == name and tag in timm.list_pretrained(f"{name}*")


def test_a_tag_that_timm_does_not_have():
    with pytest.raises(WeightsError, match="mobileone_s9.apple"):
        create_model("mobileone_s0", weights="timm:mobileone_s9.apple")
