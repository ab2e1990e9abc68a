"""Random trees of modules: nested, shared, sliced, hooked, tied, called by function. Before and
after `reparameterize` their outputs must agree, in float64."""

import copy
import warnings

import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.ops import StochasticDepth

from paperrepro import reparameterize
from paperrepro.models.layers import Branches, Chain, LayerScale, Residual, TwoHeads
from paperrepro.reparam import explain

from ._tally import Tally, main

CHANNELS, SIDE = 4, 7


class Unlike(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).abs()


class Alike(nn.Conv2d):
    foldable = True


class Squares(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).square()


class Calls(nn.Module):
    """Calls its parts, with functions in between."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = nn.functional.hardtanh(part(x))
        return x


class Apart(nn.Module):
    """Runs its chain in two halves."""

    def __init__(self, *parts):
        super().__init__()
        self.halves = nn.Sequential(*parts)

    def forward(self, x):
        middle = self.halves[: len(self.halves) // 2](x)
        return self.halves[len(self.halves) // 2 :](middle.tanh()) + middle.mean()


class Loops(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.looped = nn.Sequential(*parts)

    def forward(self, x):
        for part in self.looped:
            x = part(x) * 1.5
        return x


class Borrows(nn.Module):
    """Calls its chain, and its first weight by a function."""

    def __init__(self, *parts):
        super().__init__()
        assume(getattr(parts[0], "weight", None) is not None)
        self.lender = nn.Sequential(*parts)

    def forward(self, x):
        return self.lender(x) + self.lender[0].weight.sum()


class Lists(nn.Module):
    """Keeps a layer of its chain in a list, where no parameter is registered, and uses it."""

    def __init__(self, *parts):
        super().__init__()
        self.chain = nn.Sequential(*parts)
        self.kept = [parts[0]]

    def forward(self, x):
        return self.chain(x) + self.kept[0](x).mean()


class Slices(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.chain = nn.Sequential(*parts)
        self.front = self.chain[: max(1, len(parts) // 2)]

    def forward(self, x):
        return self.chain(x) + self.front(x).mean()


class Twice(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.chain = nn.Sequential(*parts)

    def forward(self, x):
        return self.chain(x) + self.chain(x.flip(-1))


def named(make):
    return lambda *parts: make(**{f"part{i}": part for i, part in enumerate(parts)})


GROUPS = {
    "Sequential": nn.Sequential,
    "Chain": named(Chain),
    "Residual": named(Residual),
    "Branches": named(Branches),
    **{kind.__name__: kind for kind in (Calls, Apart, Loops, Borrows, Lists, Slices, Twice)},
}
PLAIN = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "dropout": nn.Dropout,
    "drop path": lambda: StochasticDepth(0.5, "row"),
    "average": lambda: nn.AvgPool2d(3, 1, 1),
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "norm": lambda: nn.BatchNorm2d(CHANNELS),
    "norm of batches": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "norm without scale": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "synchronised norm": lambda: nn.SyncBatchNorm(CHANNELS),
    "squared norm": lambda: Squares(CHANNELS),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "scale": lambda: LayerScale(CHANNELS),
    "one scale": lambda: LayerScale(1),
    "two heads": lambda: TwoHeads(CHANNELS, CHANNELS),
    "linear along rows": lambda: nn.Linear(SIDE, SIDE),
    "linear of a pixel": lambda: nn.Sequential(
        nn.BatchNorm2d(CHANNELS),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(CHANNELS, CHANNELS),
        nn.BatchNorm1d(CHANNELS),
        nn.Unflatten(1, (CHANNELS, 1, 1)),
    ),
}
CHANGES = {
    "hook": lambda m: m.register_forward_hook(lambda module, inputs, output: output * 3),
    "pre-hook": lambda m: m.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,)),
    "pruning": lambda m: prune.random_unstructured(m, "weight", 0.5),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "another forward": lambda m: setattr(m, "forward", torch.tanh),
}

convolutions = st.tuples(
    st.just("conv"),
    st.sampled_from([nn.Conv2d, nn.Conv2d, nn.Conv2d, Unlike, Alike]),
    st.sampled_from([1, 1, 3, 3, 5]),  # kernel
    st.sampled_from(["half", "half", 0, 1, "same", "valid"]),
    st.sampled_from([1, 1, 2, CHANNELS]),  # groups
    st.sampled_from([1, 1, 1, 2]),  # dilation
    st.sampled_from([1, 1, 1, 2]),  # stride
    st.booleans(),  # bias
    st.sampled_from(["zeros", "zeros", "zeros", "reflect", "circular"]),
)
leaves = st.one_of(
    convolutions,
    st.tuples(st.just("plain"), st.sampled_from([*PLAIN])),
    st.tuples(st.just("plain"), st.just("norm")),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(st.just("tied"), st.integers(0, 9)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([*GROUPS]), st.lists(inner, min_size=1, max_size=4)),
        st.tuples(st.just("Sequential"), st.lists(inner, min_size=2, max_size=5)),
        st.tuples(st.just("changed"), st.sampled_from([*CHANGES]), inner),
    ),
    max_leaves=12,
)


def build(tree, made):
    """The module of a description; `made` holds those before it, for sharing."""
    kind, *rest = tree
    if kind == "conv":
        conv, kernel, padding, groups, dilation, stride, bias, mode = rest
        padding = dilation * (kernel // 2) if padding == "half" else padding
        assume(padding != "same" or stride == 1)
        options = {"groups": groups, "dilation": dilation, "stride": stride, "bias": bias}
        module = conv(CHANNELS, CHANNELS, kernel, padding=padding, padding_mode=mode, **options)
    elif kind == "plain":
        module = PLAIN[rest[0]]()
    elif kind == "again":
        assume(made)
        return made[rest[0] % len(made)]
    elif kind == "tied":
        others = [each for each in made if isinstance(each, nn.Conv2d)]
        assume(others)
        other = others[rest[0] % len(others)]
        module = nn.Conv2d(CHANNELS, CHANNELS, other.kernel_size, padding="same")
        assume(isinstance(other.weight, nn.Parameter) and module.weight.shape == other.weight.shape)
        module.weight = other.weight
    elif kind == "changed":
        module = build(rest[1], made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                CHANGES[rest[0]](module)
            except (AttributeError, ValueError, RuntimeError, TypeError, KeyError):
                assume(False)
        return module
    else:
        module = GROUPS[kind](*[build(part, made) for part in rest[0]])
    made.append(module)
    return module


@torch.no_grad()
def away_from_defaults(model):
    for module in model.modules():
        for name, value in [
            *module.named_parameters(recurse=False),
            *module.named_buffers("", False),
        ]:
            if name == "running_var" or isinstance(module, LayerScale):
                value.uniform_(0.5, 2)
            elif name == "running_mean" or name == "bias":
                value.normal_()
            elif name == "weight" and isinstance(module, nn.modules.batchnorm._BatchNorm):
                value.uniform_(0.5, 2)
    return model


def compare(tree, tally):
    torch.manual_seed(0)
    images = torch.randn(2, CHANNELS, SIDE, SIDE, dtype=torch.float64)
    try:
        with torch.no_grad():
            model = build(tree, []).double().eval()
            away_from_defaults(model)
            expected = model(images)
            stays = torch.equal(expected, model(images))
    except (RuntimeError, ValueError, IndexError, NotImplementedError, TypeError):
        assume(False)
    assume(stays and expected.isfinite().all())
    tally.tried += 1
    before = copy.deepcopy({key: value.detach() for key, value in model.state_dict().items()})
    with torch.no_grad():
        fused = reparameterize(model)
        got = fused(images)
        folded = sum(step.outcome != "left" for step in explain(model))
    tally.folded += folded
    error = (got - expected).norm() / expected.norm().clamp(min=1e-6)
    assert got.shape == expected.shape and error < 1e-9, f"off by {error:.2g}"
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items()), "the argument"


def attempt(count: int, first: int = 0) -> Tally:
    tally = Tally("modules")
    tally.folded = 0

    @seed(first)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(trees)
    def every(tree):
        compare(tree, tally)

    try:
        every()
    except AssertionError as error:
        tally.wrong.append("\n".join([str(error), *getattr(error, "__notes__", [])]))
    except Exception as error:
        tally.uncaught.append("\n".join([repr(error), *getattr(error, "__notes__", [])]))
    print(f"modules: {tally.folded} layers folded")
    return tally


if __name__ == "__main__":
    main(attempt, 6000)
