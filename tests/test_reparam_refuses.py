"""What re-parameterization must leave alone: modules that look foldable and are not, or not so."""

import copy

import pytest
import timm
import torch
from conftest import randomize, relative_difference
from shallow import SHALLOW
from torch import nn
from torch.nn.utils import parametrizations, prune

from paperrepro import create_model, reparameterize
from paperrepro.models.layers import Branches, Chain, ConvNorm, LayerScale
from paperrepro.reparam import explain


def conv(c_in=4, c_out=4, k=1, **options):
    return nn.Conv2d(c_in, c_out, k, padding=k // 2, **options)


def shared_activation():
    act = nn.ReLU()
    return nn.Sequential(conv(), act, nn.BatchNorm2d(4), conv(), act, nn.BatchNorm2d(4))


def shared_conv():
    one = conv()
    return nn.Sequential(one, nn.BatchNorm2d(4), nn.ReLU(), one)


def shared_norm():
    one = nn.BatchNorm2d(4)
    return nn.Sequential(conv(), one, nn.ReLU(), conv(), one)


def shared_chain():
    chain = nn.Sequential(conv(), nn.BatchNorm2d(4))
    return nn.Sequential(chain, nn.ReLU(), chain)


def shared_weight():
    chain = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv())
    chain[3].weight = chain[0].weight
    return chain


def shared_scale():
    chain = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(), nn.BatchNorm2d(4))
    chain[4].weight = chain[1].weight
    return chain


def shared_branch():
    one = ConvNorm(4, 4, 3)
    return nn.Sequential(Branches(a=one, b=conv()), Branches(a=one, c=conv()))


class Outside(nn.Module):
    """Uses a layer of its chain once more."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(conv(), nn.BatchNorm2d(4))
        self.again = self.chain[0]

    def forward(self, x):
        return self.chain(x) + self.again(x)


class Sliced(nn.Module):
    """Runs a part of its chain apart."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU())
        self.first = self.chain[:1]

    def forward(self, x):
        return self.chain(x) + self.first(x)


class TakesApart(nn.Module):
    """Does something between the layers of one chain, and calls the other as a whole."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(conv(), nn.BatchNorm2d(4))
        self.whole = nn.Sequential(conv(), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.whole(self.chain[1](self.chain[0](x).tanh()))


class Listed(nn.Module):
    """Keeps a layer of its chain in a list."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(conv(), nn.BatchNorm2d(4))
        self.taps = [self.chain[0]]

    def forward(self, x):
        return self.chain(x) + self.taps[0](x)


class Squared(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) ** 2


class Doubled(nn.Sequential):
    def forward(self, x):
        for layer in self:
            x = layer(x) * 2
        return x


class NormWithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Product(Branches):
    def forward(self, x):
        first, second = self.values()
        return first(x) * second(x)


class KeepsHalf(nn.Dropout):
    def forward(self, x):
        return x / 2


class ScaleOfSquares(LayerScale):
    def forward(self, x):
        return x * self.weight**2


def normed(*layers):
    return nn.Sequential(*layers, nn.BatchNorm2d(4))


def pruned():
    chain = normed(conv(4, 4, 3))
    prune.l1_unstructured(chain[0], "weight", 0.5)
    return chain


def hooked(which, hook):
    chain = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(), nn.Identity())
    getattr(chain[which], f"register_forward_{hook}")(
        (lambda module, inputs, output: output * 3)
        if hook == "hook"
        else (lambda module, inputs: (inputs[0] * 3,))
    )
    return chain


def hooked_chain():
    inner = nn.Sequential(conv())
    inner.register_forward_hook(lambda module, inputs, output: output.relu())
    return normed(inner)


def replaced_forward():
    chain = normed(conv())
    chain[0].forward = lambda x: x * 2
    return chain


def weight_norm_by_hook():
    with pytest.warns(FutureWarning):
        return normed(nn.utils.weight_norm(conv()))


IMAGE, ROWS, SEQUENCE = (3, 4, 8, 8), (3, 4), (3, 4, 4)
MODULES = {
    "an activation used twice": (shared_activation, IMAGE),
    "a convolution used twice": (shared_conv, IMAGE),
    "a norm used twice": (shared_norm, IMAGE),
    "a chain used twice": (shared_chain, IMAGE),
    "a weight used twice": (shared_weight, IMAGE),
    "a norm's weight used twice": (shared_scale, IMAGE),
    "a branch used twice": (shared_branch, IMAGE),
    "a layer used outside its chain": (Outside, IMAGE),
    "a sliced chain": (Sliced, IMAGE),
    "a chain taken apart": (TakesApart, IMAGE),
    "a layer in a list": (Listed, IMAGE),
    "pruning": (pruned, IMAGE),
    "weight norm": (lambda: normed(parametrizations.weight_norm(conv())), IMAGE),
    "weight norm by a hook": (weight_norm_by_hook, IMAGE),
    "spectral norm": (lambda: normed(parametrizations.spectral_norm(conv())), IMAGE),
    "spectral norm by a hook": (lambda: normed(nn.utils.spectral_norm(conv())), IMAGE),
    "orthogonality": (lambda: normed(parametrizations.orthogonal(conv())), IMAGE),
    "a subclass of the convolution": (lambda: normed(Squared(4, 4, 1)), IMAGE),
    "a subclass of the chain": (lambda: Doubled(conv(), nn.BatchNorm2d(4)), IMAGE),
    "a subclass of the norm": (lambda: nn.Sequential(conv(), NormWithActivation(4)), IMAGE),
    "a subclass of the branches": (lambda: Product(a=conv(), b=conv()), IMAGE),
    "a subclass of dropout": (lambda: nn.Sequential(conv(), KeepsHalf()), IMAGE),
    "a subclass of the layer scale": (lambda: nn.Sequential(conv(), ScaleOfSquares(4)), IMAGE),
    **{
        f"a {hook} of layer {which}": (lambda w=which, h=hook: hooked(w, h), IMAGE)
        for which in range(4)
        for hook in ("hook", "pre_hook")
    },
    "a hook of a chain": (hooked_chain, IMAGE),
    "a replaced forward": (replaced_forward, IMAGE),
    "a linear layer and a norm over rows": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        SEQUENCE,
    ),
    "a norm over rows and a linear layer": (
        lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)),
        SEQUENCE,
    ),
    "a norm of maps before a linear layer along their rows": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Linear(8, 4)),
        IMAGE,
    ),
    "the same where the sides fit": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 4)),
        (3, 4, 4, 4),
    ),
    "a norm, part of the flattening": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(1, 2), nn.Linear(4, 4)),
        (3, 4, 1, 4),
    ),
    "reflected padding": (
        lambda: Branches(a=conv(4, 4, 3, padding_mode="reflect"), b=nn.Identity()),
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_output_stays(name):
    build, shape = MODULES[name]
    torch.manual_seed(4)
    module = away_from_defaults(build()).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    expected = module(x)
    fused = reparameterize(module)
    torch.testing.assert_close(fused(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0)


@torch.no_grad()
def away_from_defaults(module):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
        elif isinstance(norm, LayerScale):
            norm.weight.uniform_(0.5, 2)
    return module


def test_one_of_ours_pruned_stays_pruned():
    model = randomize(create_model("fasternet_t0", **SHALLOW["fasternet_t0"]))
    layer = model.stages[0].blocks[0].expand.conv
    prune.l1_unstructured(layer, "weight", 0.9)
    images = torch.randn(2, 3, 64, 64)
    assert relative_difference(model(images), reparameterize(model)(images)) < 1e-4
    steps = {step.layer: step for step in explain(model)}
    assert steps["stages.0.blocks.0.expand.conv"].outcome == "left"
    assert "pruning" in steps["stages.0.blocks.0.expand.conv"].why


@pytest.mark.parametrize("wrap", ["DataParallel", "script", "compile"])
def test_a_wrapped_network_is_refused(wrap):
    model = nn.Sequential(conv(), nn.BatchNorm2d(4)).eval()
    wrapped = {
        "DataParallel": nn.DataParallel,
        "script": lambda model: torch.jit.trace(model, torch.zeros(1, 4, 8, 8)),
        "compile": torch.compile,
    }[wrap](model)
    with pytest.raises(ValueError, match="inside"):
        reparameterize(wrapped)


@pytest.mark.parametrize("name", SHALLOW)
def test_explain_names_every_norm_of_ours_and_leaves_none(name):
    model = create_model(name, **SHALLOW[name])
    outcomes = {step.layer: step.outcome for step in explain(model)}
    names = [n for n, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    direct = [n for n in names if n in outcomes]
    assert direct and set(map(outcomes.get, direct)) == {"folded"}
    assert {outcome for outcome in outcomes.values()} <= {"folded", "merged", "removed", "left"}
    left = [layer for layer, outcome in outcomes.items() if outcome == "left"]
    assert all(layer.endswith("mldc") for layer in left), left


def test_explain_changes_nothing():
    model = Chain(conv=conv(), norm=nn.BatchNorm2d(4))
    before = copy.deepcopy(model.state_dict())
    (step,) = explain(model)
    assert step == ("norm", "folded", "into conv before it")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


TIMM = (
    "regnetx_002 regnety_002 resnet10t resnet18 resnet26d densenet121 mobilenetv2_050 "
    "mobilenetv3_small_050 efficientnet_lite0 mnasnet_small semnasnet_075 fbnetc_100 spnasnet_100 "
    "ghostnet_050 ghostnetv2_100 hardcorenas_a tinynet_e lcnet_035 repvgg_a0 repghostnet_050 "
    "mobileone_s0 mobileone_s4 fasternet_t0 repvit_m0_9 edgenext_xx_small mobilevit_xxs "
    "mobilevitv2_050 fastvit_t8 convnext_atto convnextv2_atto starnet_s1 mobilenetv4_conv_small "
    "vgg11_bn cspresnet50 cspdarknet53 darknet17 vovnet39a ese_vovnet19b_dw dla34 dla46_c "
    "hrnet_w18_small res2net50_14w_8s resnest14d seresnet18 legacy_seresnet18 skresnet18 "
    "resnext50_32x4d xception41 inception_v3 inception_v4 mixnet_s rexnet_100 selecsls42 "
    "nf_regnet_b0 dpn48b eca_resnext26ts gernet_s botnet26t_256 "
    "poolformer_s12 poolformerv2_s12 levit_128s efficientformer_l1 efficientformerv2_s0 "
    "efficientvit_b0 efficientvit_m0 crossvit_9_240 coat_lite_tiny convit_tiny tiny_vit_5m_224 "
    "nextvit_small inception_next_atto pvt_v2_b0 twins_svt_small maxvit_rmlp_pico_rw_256"
).split()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_timms_networks_keep_their_function(name):
    torch.manual_seed(0)
    try:
        model = timm.create_model(name)
    except RuntimeError:
        pytest.fail(f"timm has no {name} any more: take it off the list")
    model = away_from_defaults_gently(model).eval()
    config = model.default_cfg
    size = config["input_size"][1] if config.get("fixed_input_size") else 96
    images = torch.randn(1, 3, size, size)
    expected = model(images)
    assert relative_difference(expected, reparameterize(model)(images)) < 1e-3


@torch.no_grad()
def away_from_defaults_gently(model):
    """Statistics that keep the signal's strength through many layers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            if module.affine:
                module.bias.normal_(0, 0.1)
    return model


def test_a_chain_that_is_taken_apart_stays():
    outcomes = {step.layer: step for step in explain(TakesApart())}
    assert outcomes["chain"].outcome == "left" and "chain" in outcomes["chain"].why
    assert outcomes["whole.1"].outcome == "folded"


def test_code_that_cannot_be_read_is_not_guessed():
    scope = {"nn": nn}
    exec("class Hidden(nn.Module):\n    def forward(self, x): return self.chain(x)", scope)
    model = scope["Hidden"]()
    model.chain = nn.Sequential(conv(), nn.BatchNorm2d(4))
    (step,) = explain(model)
    assert step.outcome == "left" and "Hidden" in step.why


def test_features_behind_a_folded_norm_are_refused():
    model = create_model("replknet_31b", **SHALLOW["replknet_31b"]).eval()
    fused = reparameterize(model)
    last = torch.randn(1, model.num_features, 2, 2)
    assert model.forward_head(last, pre_logits=True).shape == (1, model.head_hidden_size)
    with pytest.raises(ValueError, match="norm"):
        fused.forward_head(last, pre_logits=True)
    with pytest.raises(ValueError, match="norm"):
        fused.reset_classifier(3)
