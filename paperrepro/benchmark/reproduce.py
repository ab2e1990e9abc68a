"""Our value of each exact claim, read off the networks themselves.

`recompute` maps a row of data/claims to its value; the command line, the tests and
`update_claims`, the only writer of the column `ours`, share it. Networks are built on the meta
device: shapes and counts without memory.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fnmatch import filter as matching
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from ..claims import COLUMNS, claims_folder, parse_claim, read_rows
from ..models import Backbone, build_model, family_of, list_models
from ..models.fasternet import PConv
from ..models.layers import Branches, Residual
from ..models.replknet import LargeKernel
from ..reparam import reparameterize
from .complexity import count_macs, paper_parameters

UNITS = {"M": 10**6, "G": 10**9}

COUNTED_FUSED = ("mobileone", "replknet")
"""The families whose papers give the multiply-adds of the re-parameterized network."""

CONFIGURATION = {
    "mobileone": (
        "stem_channels channels width_multiplier depths reduction stem_strides k se_blocks "
        "head_channels"
    ),
    "fasternet": (
        "channels depths reduction stem_strides stem_layers kernels partial_ratio expansion "
        "activation head_channels classes"
    ),
    "replknet": "channels depths kernels dw_ratio reduction",
    "mobilevig": "channels irb_blocks graph_blocks reduction stem_strides",
    "mobilevigv2": "channels irb_blocks graph_blocks reduction stem_strides",
    "rapidnet": "channels irb_blocks dcb_blocks reduction stem_strides",
}
"""The quantities that describe a family's networks; each is a function of this module."""


@cache
def network(name: str, config: str = "") -> Backbone:
    """A registered network on the meta device, in eval mode.

    Args:
        config: options of create_model as a JSON object, or empty.

    Raises:
        ValueError: unknown name or option.
    """
    with torch.device("meta"):
        return build_model(name, **json.loads(config or "{}")).eval()


def recompute(row: Mapping[str, str]) -> str:
    """Our value for one exact claim, in the form in which the file holds it.

    Counts are in the row's unit, with two digits more than the paper prints; configurations are
    the network's own.

    Args:
        row: the texts of one row, as `claims.read_rows` yields them.

    Raises:
        ValueError: no network of that name, networks of a pattern that do not agree, a quantity
            that cannot be computed, or multiply-adds without an input size.
    """
    names = matching(list_models(), row["model"]) or [row["model"]]
    value = only(
        (_compute(name, row["config"], row["quantity"], row["size"]) for name in names),
        row["quantity"],
    )
    if isinstance(value, str):
        return value
    digits = -Decimal(row["paper_value"]).as_tuple().exponent + 2
    return f"{Decimal(value) / UNITS[row['unit']]:.{digits}f}"


@cache
def _compute(name: str, config: str, quantity: str, size: str) -> int | str:
    model = network(name, config)
    if quantity == "params":
        return paper_parameters(model)
    if quantity == "macs":
        if not size:
            raise ValueError("multiply-adds need an input size; fill in size")
        return paper_macs(model, int(size))
    if quantity not in COMPUTED:
        raise ValueError(
            f"{quantity!r} cannot be computed from a network; the exact quantities are "
            f"params, macs, {', '.join(COMPUTED)}"
        )
    return COMPUTED[quantity](model)


def paper_macs(model: Backbone, size: int = 224) -> int:
    """Multiply-adds for one image, of the form of the network that its paper counts."""
    if family_of(model.variant) in COUNTED_FUSED:
        model = reparameterize(model)
    return count_macs(model, size)


def update_claims(folder: str | Path | None = None) -> list[str]:
    """Recompute `ours` of every exact claim and rewrite the files in which one changed.

    A file is replaced as a whole, after all its rows passed the checks of `claims.parse_claim`.

    Returns:
        The ids of the claims whose value changed.

    Raises:
        ValueError: a bad row, such as a new value outside the tolerance without a reason.
        FileNotFoundError: there is no folder, or no CSV file in it.
    """
    folder = claims_folder() if folder is None else Path(folder)
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"no claims (*.csv) in {folder}")
    changed = []
    for path in paths:
        rows, stale = [], []
        for where, row in read_rows(path):
            if row["mode"] == "exact":
                try:
                    value = recompute(row)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if value != row["ours"]:
                    stale.append(row["id"])
                    row["ours"] = value
            parse_claim(row, where)
            rows.append(row)
        if stale:
            _replace(path, rows)
            changed += stale
    return changed


def _replace(path: Path, rows: list[dict[str, str]]) -> None:
    draft = path.with_suffix(".csv.part")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, path)


def only(values: Iterable, what: str):
    """The one value of a set, or a ValueError that shows them all."""
    values = set(values)
    if len(values) != 1:
        raise ValueError(f"{what} has not one value but {sorted(values, key=str)}")
    return values.pop()


# What a network is, read off its modules: each function returns the text of one claim.


def commas(values: Iterable) -> str:
    return ",".join(map(str, values))


def modules(module: nn.Module, kind: type) -> list:
    return [child for child in module.modules() if isinstance(child, kind)]


def children(module: nn.Module, name: str) -> list[nn.Module]:
    """Every module of that name, at any depth."""
    return [child for path, child in module.named_modules() if path.split(".")[-1] == name]


def last_linear(model: Backbone) -> nn.Linear:
    return modules(model.head, nn.Linear)[-1]


def stage_maps(model: Backbone) -> list[torch.Size]:
    return [x.shape for x in model.features(torch.zeros(1, 3, 224, 224, device="meta"))]


def channels(model: Backbone) -> str:
    return commas(shape[1] for shape in stage_maps(model))


def reduction(model: Backbone) -> str:
    return commas(224 // shape[2] for shape in stage_maps(model))


def stage_depths(model: Backbone) -> list[int]:
    """Blocks per stage: MobileOne's are two convolutions, RepLKNet's a RepLK block and its FFN."""
    modules_per_block = 2 if family_of(model.variant) in ("mobileone", "replknet") else 1
    return [len(stage.blocks) // modules_per_block for stage in model.stages]


def depths(model: Backbone) -> str:
    stem = [1] if family_of(model.variant) == "mobileone" else []
    return commas(stem + stage_depths(model))


def irb_blocks(model: Backbone) -> str:
    return commas(sum(isinstance(b, Residual) for b in stage.blocks) for stage in model.stages)


def mixer_blocks(model: Backbone) -> str:
    return commas(sum(hasattr(b, "mixer") for b in stage.blocks) for stage in model.stages)


def se_blocks(model: Backbone) -> str:
    """Squeeze-and-excitation stands in both halves of a block."""
    return commas(len(modules(stage, SqueezeExcitation)) // 2 for stage in model.stages)


def kernels(model: Backbone) -> str:
    """The kernel of each stage's PConv or large depthwise convolution."""
    spatial = PConv if family_of(model.variant) == "fasternet" else LargeKernel
    return commas(
        only(
            (
                max(conv.kernel_size[0] for conv in modules(layer, nn.Conv2d))
                for layer in modules(stage, spatial)
            ),
            "the kernel size",
        )
        for stage in model.stages
    )


def stem_convs(model: Backbone) -> list[nn.Conv2d]:
    return modules(reparameterize(model).stem, nn.Conv2d)


def stem_strides(model: Backbone) -> str:
    return commas(conv.stride[0] for conv in stem_convs(model))


def stem_channels(model: Backbone) -> str:
    return str(stem_convs(model)[-1].out_channels)


def stem_layers(model: Backbone) -> str:
    kinds = {nn.Conv2d: "Conv", nn.BatchNorm2d: "BN", nn.GELU: "Acti", nn.ReLU: "Acti"}
    return commas(kinds[type(layer)] for layer in model.stem.modules() if type(layer) in kinds)


def head_channels(model: Backbone) -> str:
    return str(last_linear(model).in_features)


def classes(model: Backbone) -> str:
    return str(last_linear(model).out_features)


def width_multiplier(model: Backbone) -> str:
    bases = (64, 128, 256, 512)
    widths = (shape[1] for shape in stage_maps(model))
    return commas(f"{width / base:g}" for width, base in zip(widths, bases, strict=True))


def k(model: Backbone) -> str:
    """The branches of full kernel size in the stem and in each stage's blocks."""
    return commas(
        only(
            (
                sum(name.startswith("conv") for name in branches)
                for branches in modules(part, Branches)
            ),
            "k",
        )
        for part in (model.stem, *model.stages)
    )


def partial_ratio(model: Backbone) -> str:
    blocks = [block for stage in model.stages for block in stage.blocks]
    return only(
        (f"{block.pconv.convolved / block.project.out_channels:g}" for block in blocks),
        "the partial ratio",
    )


def expansion(model: Backbone) -> str:
    return only(
        (f"{conv.in_channels / conv.out_channels:g}" for conv in children(model.stages, "project")),
        "the expansion",
    )


def dw_ratio(model: Backbone) -> str:
    pairs = zip(modules(model, LargeKernel), children(model.stages, "pw2")[::2], strict=True)
    return only(
        (f"{large.large.conv.out_channels / pw2.conv.out_channels:g}" for large, pw2 in pairs),
        "the depthwise ratio",
    )


def activation(model: Backbone) -> str:
    kinds = (
        type(layer).__name__ for layer in model.modules() if isinstance(layer, nn.GELU | nn.ReLU)
    )
    return only(kinds, "the activation")


COMPUTED: dict[str, Callable[[Backbone], str]] = {
    function.__name__: function
    for function in (
        channels,
        depths,
        kernels,
        reduction,
        irb_blocks,
        se_blocks,
        stem_channels,
        stem_strides,
        stem_layers,
        width_multiplier,
        k,
        partial_ratio,
        expansion,
        dw_ratio,
        activation,
        head_channels,
        classes,
    )
} | {"dcb_blocks": mixer_blocks, "graph_blocks": mixer_blocks}
