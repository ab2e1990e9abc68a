"""Stochastic depth: the rates of every network and of every recipe, read off the networks.

No count and no evaluated logit depends on a rate, so that a wrong one shows nowhere else.
"""

import pytest
import torch
from torchvision.ops import StochasticDepth

from paperrepro import list_models
from paperrepro.models import build_model
from paperrepro.training import find_recipe, list_recipes

# Network, its blocks, and the rate of its last block.
# FasterNet: Table 6, "Stoch. Depth". RepLKNet: Appendix A, 30 %. MobileViG: the released code.
RISING = {
    "fasternet_t0": (13, 0),
    "fasternet_t1": (13, 0.02),
    "fasternet_t2": (13, 0.05),
    "fasternet_s": (18, 0.1),
    "fasternet_m": (28, 0.2),
    "fasternet_l": (28, 0.3),
    "replknet_3": (24, 0.3),
    "replknet_7": (24, 0.3),
    "replknet_13": (24, 0.3),
    "replknet_25": (24, 0.3),
    "replknet_31b": (24, 0.3),
    "replknet_31l": (24, 0.3),
    "replknet_xl": (24, 0.3),
    "mobilevig_ti": (12, 0.1),
    "mobilevig_s": (18, 0.1),
    "mobilevig_m": (18, 0.1),
    "mobilevig_b": (30, 0.1),
}
# Network, its blocks, and those of them that mix globally. The released code of both families
# counts the latter only on its way through linspace(0, 0.1, blocks), and does not reach 0.1.
RELEASED = {
    "mobilevigv2_ti": (18, 6),
    "mobilevigv2_s": (27, 9),
    "mobilevigv2_m": (27, 9),
    "mobilevigv2_b": (27, 9),
    "rapidnet_ti": (16, 4),
    "rapidnet_s": (24, 6),
    "rapidnet_m": (24, 6),
    "rapidnet_b": (24, 6),
}
# MobileOne names no stochastic depth, and neither does RepLKNet for its MobileNetV2.
NONE = [*list_models("mobileone"), "mobilenetv2"]

# The recipes that set another rate than their network's.
RECIPES = {
    ("replknet_31b", "paper"): 0.5,  # Appendix A: 300 epochs
    ("replknet_31b", "384"): 0.8,  # the released command; Appendix A names none
    ("replknet_31b", "22k"): 0.1,  # Appendix A: pretraining on ImageNet-22K
    ("replknet_31b", "22k-224"): 0.2,  # Appendix A: finetuning with 224 x 224
    ("replknet_31l", "paper"): 0.1,  # Appendix A: pretraining on ImageNet-22K
}
# These set their network's own rate, all 30 %. XL's is open in Appendix A.
SAME = {
    *((f"replknet_{kernel}", "paper") for kernel in ("3", "7", "13", "25", "xl")),
    ("replknet_31b", "120"),
    ("replknet_31b", "22k-384"),
    ("replknet_31l", "384"),
}


# Detection and segmentation: the released configurations of each paper.
DOWNSTREAM = {
    ("fasternet_s", "mask_rcnn"): 0.15,
    ("fasternet_m", "mask_rcnn"): 0.2,
    ("fasternet_l", "mask_rcnn"): 0.3,
    ("replknet_31b", "upernet"): 0.5,
    ("replknet_31b", "upernet-cityscapes"): 0.5,
    ("replknet_31b", "fcos"): 0.5,
    ("replknet_31b", "cascade_mask_rcnn"): 0.6,
    ("replknet_31l", "upernet"): 0.3,
    ("replknet_31l", "cascade_mask_rcnn"): 0.7,
    ("replknet_xl", "upernet"): 0.5,
    ("replknet_xl", "cascade_mask_rcnn"): 0.5,
}
# Nominally 0.1, which these families do not reach.
NOMINAL = {
    (f"{family}_{size}", "mask_rcnn")
    for family in ("mobilevigv2", "rapidnet")
    for size in ("m", "b")
}


def drop_rates(name: str, **config) -> list[float]:
    with torch.device("meta"):
        model = build_model(name, **config)
    return [layer.p for layer in model.modules() if isinstance(layer, StochasticDepth)]


def expected_rates(name: str) -> list[float]:
    """The different rates of a network's blocks, but for 0."""
    if name in RELEASED:
        blocks, mixers = RELEASED[name]
        return [0.1 * i / (blocks - 1) for i in range(1, mixers)]
    blocks, rate = RISING.get(name, (1, 0))
    return [rate * i / (blocks - 1) for i in range(1, blocks) if rate]


def test_every_network_stands_in_one_table():
    assert {*RISING, *RELEASED, *NONE} == {*list_models(), "mobilenetv2"}
    assert len(RISING) + len(RELEASED) + len(NONE) == 31


@pytest.mark.parametrize("name", [*RISING, *RELEASED, *NONE])
def test_rates_of_the_network_rise_as_published(name):
    rates = drop_rates(name)
    assert rates == sorted(rates)
    assert sorted(set(rates)) == pytest.approx(expected_rates(name))


@pytest.mark.parametrize("name", [*RISING, *RELEASED, *NONE])
def test_recipes_have_the_published_rates(name):
    for recipe_name, recipe in list_recipes(name).items():
        key = name, recipe_name
        rates = drop_rates(name, **recipe.config)
        if recipe_name == "small":
            assert rates == [], key
        elif key in RECIPES or key in SAME:
            rate = RECIPES.get(key, RISING[name][1])
            assert recipe.config == {"drop_path_rate": rate}, key
            assert max(rates) == pytest.approx(rate), key
        elif key in DOWNSTREAM:
            assert recipe.config == {"drop_path_rate": DOWNSTREAM[key]}, key
            assert max(rates) == pytest.approx(DOWNSTREAM[key]), key
        elif key in NOMINAL:
            assert recipe.config == {"drop_path_rate": 0.1}, key
            assert rates == drop_rates(name), key
        elif key == ("mobileone_s4", "deeplabv3"):
            assert recipe.config == {"se_blocks": [0, 0, 0, 0]}, key
            assert rates == [], key
        else:
            assert recipe.config == {}, key
            assert rates == drop_rates(name), key


def test_listed_recipes_exist():
    for name, recipe in {*RECIPES, *SAME, *DOWNSTREAM, *NOMINAL}:
        assert find_recipe(name, recipe).model == name
