"""The checks of the exercises: right answers pass, usual mistakes and nonsense do not."""

import copy

import pandas as pd
import pytest
import torch
from exercises import cells, make_tests, run_check, solved
from test_exercise_checks import conv, with_zero_bias
from torch import nn


def in_place(conv, scale):
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        conv.bias.mul_(scale)
    return conv


def bias_unscaled(conv, scale):
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(conv.weight * scale.view(-1, 1, 1, 1))
    return folded


def bad_pair(first, second):
    """The product without the way of the first bias."""
    folded = nn.Conv2d(6, 8, 1)
    kernel = second.weight[:, :, 0, 0] @ first.weight[:, :, 0, 0]
    folded.weight = nn.Parameter(kernel[:, :, None, None])
    folded.bias = nn.Parameter(second.bias)
    return folded


def padded_wrongly(bn, conv):
    return solved("reparameterization", 5)["fold_bn_before"](bn, conv)


def written_over(conv, x):
    x[:, -conv.in_channels :] = conv(x[:, -conv.in_channels :])
    return x


def first_channels(conv, x):
    return torch.cat([conv(x[:, : conv.in_channels]), x[:, conv.in_channels :]], 1)


def inputs_only(net, size=224):
    return 3 * size**2 + 4 * (size // 2) ** 2


def hooks_left(net, size=224):
    """Counts into a list that it keeps on the network."""
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            layer.moved = []
            layer.register_forward_hook(
                lambda layer, given, out: layer.moved.append(given[0].numel() + out.numel())
            )
    net(torch.zeros(1, 3, size, size))
    return sum(sum(layer.moved) for layer in net if isinstance(layer, nn.Conv2d))


def table_of(value):
    return pd.DataFrame(value, index=["without", "k = 4"], columns=[0.01, 0.05])


WRONG = {
    ("rapidnet", 1): [
        {"dilation_for": lambda side, kernel: (side - 1) // (kernel - 1)},
        {"dilation_for": lambda side, kernel: -(-side // (kernel - 1))},
        {"dilation_for": lambda side, kernel: (side - 1) / (kernel - 1)},
        *({"dilation_for": lambda side, kernel, d=d: d} for d in (0, 3, 6)),
    ],
    ("rapidnet", 2): [
        {"depthwise_parameters": a, "dense_parameters": b}
        for a, b in (
            (904512, 5376),
            (2688, 452256),
            (4032, 903168),
            (0, 0),
            (224, 224),
            (5376, 904511),
        )
    ],
    ("rapidnet", 3): [
        {"reach": lambda dilations: {s * d for d in dilations for s in (-1, 0, 1)}},
        {"reach": lambda dilations: set(range(-sum(dilations), sum(dilations) + 1))},
        {"reach": lambda dilations: set()},
        {"reach": lambda dilations: {-2, 0, 2}},
        {"reach": lambda dilations: [-2, 0, 2]},
    ],
    ("rapidnet", 4): [
        {"inside": lambda side, d: (side + 2 * max(side - d, 0)) / (3 * side)},
        {"inside": lambda side, d: ((3 * side - 2 * d) / (3 * side)) ** 2},
        {"inside": lambda side, d: 0.0},
        {"inside": lambda side, d: 1.0},
        {"nine_tenths_from": 38},
        {"nine_tenths_from": 60},
    ],
    ("rapidnet", 5): [
        {"fuse_sum": lambda first, second: conv(6, 6, 7, padding=3)},
        {"fuse_sum": lambda first, second: conv(6, 6, 7, 1.0, padding=3)},
        {"fuse_sum": lambda first, second: copy.deepcopy(first[0])},
        {"fuse_sum": with_zero_bias("rapidnet", 5, "fuse_sum")},
    ],
    ("mobileone", 1): [
        {"lighter": a, "heavier": b}
        for a, b in (
            ("MobileOne-S0", "MobileOne-S4"),
            ("MobileOne-S4", "MobileOne-S0"),
            ("MobileOne-S0", "MobileOne-S0"),
            ("Mobileformer-96", "MobileNetV3-L"),
            (0, 0),
        )
    ],
    ("mobileone", 2): [
        {"in_training": a, "at_inference": b}
        for a, b in ((0, 0), (48, 128), (27568, 6576), (27568, 6752), (6752, 27568))
    ],
    ("mobileone", 3): [
        {"block_parameters": lambda *case: 0},
        {"block_parameters": lambda *case: 128},
        {
            "block_parameters": lambda i, o, kernel, s, depthwise, k: (
                k * (kernel**2 * (1 if depthwise else i) * o + 2 * o)
            )
        },
    ],
    ("mobileone", 4): [
        {"implied_stem": lambda name: 64},
        {"implied_stem": lambda name: 64.5},
        {"implied_stem": lambda name: 96},
        {"implied_stem": lambda name: 0.0},
    ],
    ("mobileone", 5): [
        {"values_moved": lambda net, size=224: 0},
        {"values_moved": lambda net, size=224: 384},
        {"values_moved": inputs_only},
    ],
    ("fasternet", 1): [
        {"share_quarter": a, "share_full": b}
        for a, b in ((0.25, 1), (0, 0), (9 / 64, 9 / 4), (9 / 41, 9 / 11), (1 / 4, 9 / 13))
    ],
    ("fasternet", 2): [
        {"bn_parameters": lambda embed_dim, depths: 0},
        {"bn_parameters": lambda embed_dim, depths: embed_dim},
        {"bn_parameters": lambda embed_dim, depths: 2 * embed_dim * 15},
    ],
    ("fasternet", 3): [
        {"pconv_last": written_over},
        {"pconv_last": first_channels},
        {"pconv_last": lambda conv, x: torch.zeros_like(x)},
        {"pconv_last": lambda conv, x: x},
    ],
    ("fasternet", 4): [
        {"fold_block": lambda block: conv(16, 32, 3, padding=1)},
        {"fold_block": lambda block: copy.deepcopy(block.expand.conv)},
        {"fold_block": with_zero_bias("fasternet", 4, "fold_block")},
    ],
    ("fasternet", 5): [
        {"explained": lambda maps, part, value=value: value} for value in (0.0, 0.5, 1.0)
    ],
    ("reparameterization", 1): [
        {"fold_scale": in_place},
        {"fold_scale": bias_unscaled},
        {"fold_scale": lambda layer, scale: copy.deepcopy(layer)},
        {"fold_scale": lambda layer, scale: conv(6, 6, 3)},
    ],
    ("reparameterization", 2): [
        {"in_training": a, "at_inference": b}
        for a, b in ((0, 0), (3136, 576), (3008, 640), (2944, 640), (2368, 640), (64, 64))
    ],
    ("reparameterization", 3): [
        {"fold_pair": bad_pair},
        {"fold_pair": lambda first, second: conv(6, 8, 1)},
        {"fold_pair": lambda first, second: first},
        {"fold_pair": with_zero_bias("reparameterization", 3, "fold_pair")},
    ],
    ("reparameterization", 4): [
        {"pooling_as_conv": lambda c: conv(c, c, 3, 1.0, padding=1, groups=c, bias=False)},
        {"pooling_as_conv": lambda c: conv(c, c, 3, 1 / 9, padding=1, groups=c)},
        {"pooling_as_conv": lambda c: conv(c, c, 3, 1 / 9, groups=c, bias=False)},
        {"pooling_as_conv": lambda c: conv(c, c, 3, 1 / 9, padding=1, bias=False)},
        {"pooling_as_conv": lambda c: conv(c, c, 3, 0.0, padding=1, groups=c, bias=False)},
    ],
    ("reparameterization", 5): [
        {"fold_before_padded": padded_wrongly},
        {"fold_before_padded": lambda bn, conv: nn.Sequential(bn, conv)},
        {"fold_before_padded": lambda bn, layer: conv(6, 8, 3, padding=1)},
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)


def test_the_hooks_of_a_first_call_are_noticed():
    with pytest.raises(AssertionError, match="hooks"):
        run_check("mobileone", 5, values_moved=hooks_left)


@pytest.mark.parametrize(
    "conclusion",
    [table_of(0.0), table_of(1.0), 1.0, pd.DataFrame([[0.1, 0.2], [0.3, 0.4]])],
)
def test_a_table_of_losses_that_none_measured_fails(conclusion):
    names = {**solved("mobileone", 1), "branches": {"without": {}, "k = 4": {}}}
    with pytest.raises(AssertionError, match=r"\w"):
        exec(cells("mobileone")["check-6"], names | {"conclusion": conclusion})
