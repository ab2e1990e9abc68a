"""Theoretical receptive fields: which pixels of the image a position of a map can depend on at all.

`receptive_fields` follows the field from layer to layer through the graph of torch.fx. Along one
side of the image a field is an interval of `size` pixels, the fields of two neighbouring positions
begin `jump` pixels apart, and that of position 0 begins at pixel `start`, in the padding where that
is negative. A window of k taps with dilation d, stride s and padding p makes of it

    size + (k - 1) d jump,    jump s,    start - p jump

(RapidNet's Eq. 1, Section 3.1, is the first at size = jump = 1). Where branches meet, the field is
the interval that holds both. `support` asks the gradient instead, of any network, and finds the
very pixels; the tests hold the two together. `connections` has those of the two graphs.

    >>> from torch import nn
    >>> receptive_field(nn.Conv2d(3, 8, 3, dilation=3, padding=3)).size  # RapidNet, Eq. 3
    (7, 7)
"""

import copy
import operator
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import DeformConv2d, Permute, StochasticDepth

from ..models import Backbone
from ..models.fasternet import PConv
from ..models.layers import LayerScale
from ..models.local_global import MaxRelative
from ..ops import DepthwiseConv2d
from .stages import held_still, stage_map

Side = TypeVar("Side", int, int | None)


@dataclass(frozen=True)
class Interval:
    """The fields of a map's positions along one side of the image, in pixels.

    Attributes:
        side: how many positions the map has.
        size: of each field; the padding counts, for the image does not bound it.
        jump: from one position's field to the next one's; 0 where all see the same.
        start: the first pixel of position 0's field.
    """

    side: int
    size: int = 1
    jump: int = 1
    start: int = 0

    def windowed(
        self, kernel: int, stride: int = 1, before: int = 0, after: int = 0, dilation: int = 1
    ) -> "Interval":
        """Behind a convolution or pooling, with this much padding at the two ends."""
        reach = (kernel - 1) * dilation
        return Interval(
            side=(self.side + before + after - reach - 1) // stride + 1,
            size=self.size + reach * self.jump,
            jump=self.jump * stride,
            start=self.start - before * self.jump,
        )

    def linked(self, reach: int) -> "Interval":
        """Behind a graph that links a position to others, the furthest `reach` away in both
        directions and around the border."""
        if 2 * reach + 1 >= self.side:
            return self.everywhere() if reach else self
        return self.windowed(2 * reach + 1, before=reach, after=reach)

    def everywhere(self) -> "Interval":
        """Each position sees what any of them sees."""
        return replace(self, size=self.size + (self.side - 1) * self.jump, jump=0)

    def joined(self, other: "Interval") -> "Interval":
        """The interval that holds both; a single value may be spread over a map."""
        if self.jump != other.jump:
            return self.everywhere().joined(other.everywhere())
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Interval(max(self.side, other.side), end - start, self.jump, start)

    def pixels(self, position: int, side: int) -> slice:
        """What a position sees of an image's side of that many pixels."""
        first = self.start + position * self.jump
        return slice(max(first, 0), min(first + self.size, side))


@dataclass(frozen=True)
class Field:
    """The receptive fields of a map's positions: an interval of rows and one of columns."""

    rows: Interval
    columns: Interval

    @property
    def size(self) -> tuple[int, int]:
        return self.rows.size, self.columns.size

    @property
    def jump(self) -> tuple[int, int]:
        return self.rows.jump, self.columns.jump

    @property
    def start(self) -> tuple[int, int]:
        return self.rows.start, self.columns.start

    def pixels(self, row: int, column: int, image: tuple[int, int]) -> tuple[slice, slice]:
        """The rows and columns that a position sees of an image of that height and width.

        A graph's link around the border counts as one across it: near the border `support` knows
        better.
        """
        height, width = image
        return self.rows.pixels(row, height), self.columns.pixels(column, width)

    def joined(self, other: "Field") -> "Field":
        return Field(self.rows.joined(other.rows), self.columns.joined(other.columns))


def receptive_field(model: nn.Module, layer: str = "", size: int | tuple[int, int] = 224) -> Field:
    """The theoretical receptive field of a layer's output, or of the network's.

    Args:
        layer: its name, as `model.named_modules()` has it.
        size: of the image in pixels, one side or (height, width). Only global poolings and graphs
            make the field depend on it.

    Raises:
        ValueError: no such layer; one behind an operation that no rule covers, which is named.
    """
    fields, unknown = propagate(model, size)
    if layer in fields:
        return fields[layer]
    if layer not in dict(model.named_modules()):
        raise ValueError(
            f"{type(model).__name__} has no layer {layer!r}; those with a receptive field are "
            f"{', '.join(filter(None, fields))}"
        )
    raise ValueError(
        f"the receptive field of {layer or type(model).__name__!r} does not follow from rules: "
        f"{unknown or 'the network does not use it'}; support() asks the gradient"
    )


def receptive_fields(model: nn.Module, size: int | tuple[int, int] = 224) -> dict[str, Field]:
    """The theoretical receptive field of every layer's output, by the layer's name, in order.

    Layers behind an operation that no rule covers (attention, a reshape, a deformable convolution)
    are left out; so is a `Backbone`'s head. "" is the whole network.

    Raises:
        ValueError: torch.fx cannot follow the network.
    """
    return propagate(model, size)[0]


def propagate(model: nn.Module, size: int | tuple[int, int]) -> tuple[dict[str, Field], str]:
    """The fields by the layers' names, and the first operation that no rule covers."""
    trunk = model
    if isinstance(model, Backbone):  # whose `features` looks at the image's shape
        trunk = nn.Sequential(OrderedDict(stem=model.stem, stages=nn.Sequential(*model.stages)))
    root = nn.Sequential(OrderedDict(network=trunk))
    try:
        graph = LayerTracer().trace(root)
    except Exception as error:  # whatever the network's own code raises for want of a tensor
        raise ValueError(
            f"torch.fx cannot follow {type(model).__name__} ({str(error).splitlines()[0]}); "
            "support() asks the gradient"
        ) from error
    at: dict[fx.Node, Field | None] = {}
    fields: dict[str, Field | None] = {}
    unknown = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            at[node] = Field(*map(Interval, pair(size)))
        inputs = [at[source] for source in node.all_input_nodes if source in at]
        if not inputs or node.op == "output":  # no inputs: a parameter, not a map
            continue
        at[node] = None
        known = [field for field in inputs if field is not None]
        if len(known) == len(inputs):
            at[node] = field_behind(node, root, reduce(Field.joined, known))
            if at[node] is None:
                unknown = unknown or f"there is none for {node.target}"
        for layer, _ in node.meta["nn_module_stack"].values():
            fields[layer.removeprefix("network").removeprefix(".")] = at[node]
    names = [name for name, _ in trunk.named_modules()]
    in_order = {name: field for name in names if (field := fields.get(name))}
    return in_order, unknown.replace("network.", "")


POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
GLOBAL_POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
POINTWISE = (
    nn.BatchNorm2d, nn.Dropout, nn.Identity, nn.Linear, LayerNorm2d, LayerScale, Permute,
    StochasticDepth, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
LEAVES = (nn.Conv2d, *POOLINGS, *GLOBAL_POOLINGS, *POINTWISE, MaxRelative, PConv, DeformConv2d)
GLOBAL_FUNCTIONS = {F.adaptive_avg_pool2d, torch.flatten, "flatten"}
POINTWISE_FUNCTIONS = {
    operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, torch.add, torch.mul,
    torch.cat, torch.maximum, torch.sigmoid, F.relu, F.gelu, F.silu, F.dropout,
    "add", "mul", "chunk", "split", "tensor_split", "clone", "contiguous", "relu", "sigmoid",
}  # fmt: skip


class LayerTracer(fx.Tracer):
    """Follows a network down to the layers that have a rule."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, LEAVES) or super().is_leaf_module(module, name)


def field_behind(node: fx.Node, root: nn.Module, field: Field) -> Field | None:
    """The field behind one operation; None where no rule covers it."""
    if node.op != "call_module":
        picks = node.target is operator.getitem and isinstance(node.args[1], int)
        if picks or node.target in POINTWISE_FUNCTIONS:
            return field
        if node.target in GLOBAL_FUNCTIONS:
            sides = 1 if node.target is not F.adaptive_avg_pool2d else node.args[1]
            return adaptively_pooled(field, cast("int | tuple[int | None, int | None]", sides))
        return None
    layer = root.get_submodule(str(node.target))
    pixel_norm = isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1
    if isinstance(layer, POINTWISE) or pixel_norm:
        return field
    if isinstance(layer, GLOBAL_POOLINGS):
        return adaptively_pooled(field, getattr(layer, "output_size", 1))
    if isinstance(layer, PConv):  # the channels that it leaves alone see less
        layer = layer.conv
    if isinstance(layer, MaxRelative):
        change = partial(linked, graph=layer)
    elif isinstance(layer, nn.ZeroPad2d):
        change = partial(padded, pad=layer)
    elif isinstance(layer, POOLINGS):
        change = partial(pooled, pool=layer)
    elif isinstance(layer, nn.Conv2d) and layer.padding_mode != "circular":
        change = partial(convolved, conv=layer)
    else:
        return None
    return Field(change(field.rows, side=0), change(field.columns, side=1))


def convolved(interval: Interval, conv: nn.Conv2d, side: int) -> Interval:
    kernel, dilation = conv.kernel_size[side], conv.dilation[side]
    if isinstance(conv.padding, str):
        total = (kernel - 1) * dilation if conv.padding == "same" else 0
        before, after = total // 2, total - total // 2
    else:
        before = after = conv.padding[side]
    return interval.windowed(kernel, conv.stride[side], before, after, dilation)


def padded(interval: Interval, pad: nn.ZeroPad2d, side: int) -> Interval:
    left, right, top, bottom = pad.padding
    before, after = ((top, bottom), (left, right))[side]
    return interval.windowed(1, before=before, after=after)


def pooled(interval: Interval, pool: nn.MaxPool2d | nn.AvgPool2d, side: int) -> Interval:
    kernel, stride, padding, dilation = (
        pair(option)[side]
        for option in (pool.kernel_size, pool.stride, pool.padding, getattr(pool, "dilation", 1))
    )
    after = padding
    if pool.ceil_mode:
        after += -(interval.side + 2 * padding - (kernel - 1) * dilation - 1) % stride
    return interval.windowed(kernel, stride, padding, after, dilation)


def linked(interval: Interval, graph: MaxRelative, side: int) -> Interval:
    shifts = [abs(shift) for shift in graph.shifts(interval.side)]
    return interval.linked(max([shift for shift in shifts if shift < interval.side], default=0))


def pair(sides: Side | Sequence[Side]) -> tuple[Side, Side]:
    """A number for both sides of a map, or one for each."""
    if isinstance(sides, Sequence):
        first, second = sides
        return first, second
    return sides, sides


def adaptively_pooled(field: Field, sides: int | tuple[int | None, int | None]) -> Field | None:
    """Pooled to maps of a fixed size; None where the windows would be of unequal sizes."""
    intervals = []
    for interval, side in zip((field.rows, field.columns), pair(sides), strict=True):
        step, rest = divmod(interval.side, side or interval.side)
        if rest:
            return None
        intervals.append(interval.windowed(step, step))
    return Field(*intervals)


def support(
    model: nn.Module,
    stage: int | str = -1,
    size: int | tuple[int, int] = 224,
    *,
    position: tuple[int, int] | None = None,
    samples: int = 2,
    seed: int = 0,
) -> Tensor:
    """The pixels that one position of a map depends on: where its gradient is not 0.

    Any network, in float64 and with its own weights: a weight of 0 or an activation that lets
    nothing through can only take pixels away.

    Args:
        stage: as in `paperrepro.analysis.stages.find_stage`.
        size: of the image in pixels, one side or (height, width).
        position: row and column of the map; its centre when left out.
        samples: random images, whose pixels are taken together.

    Returns:
        Boolean, `(height, width)` of the image.

    Raises:
        ValueError: no such stage, or the position lies outside its map.
    """
    model = copy.deepcopy(model).double()
    for layer in model.modules():
        if isinstance(layer, DepthwiseConv2d):
            layer.method = "nchw"  # products of spectra leave 1e-16 where a 0 belongs
    device = next(model.parameters(), torch.empty(0)).device
    generator = torch.Generator().manual_seed(seed)
    seen = torch.zeros(pair(size), dtype=torch.bool)
    for _ in range(samples):
        image = torch.randn(1, 3, *pair(size), generator=generator, dtype=torch.float64)
        image = image.to(device).requires_grad_()
        with held_still(model), torch.enable_grad():
            features = stage_map(model, image, stage)
        height, width = features.shape[2:]
        row, column = position or (height // 2, width // 2)
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"position {position} lies outside the map of {height} x {width}")
        weights = torch.randn(features.shape[1], generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(features[0, :, row, column] @ weights.to(device), image)
        seen |= gradient[0].ne(0).any(0).cpu()
    return seen


def connections(
    height: int, width: int, k: int, kind: str, token: tuple[int, int] | None = None
) -> Tensor:
    """The tokens that a graph connects to one token, itself included (MobileViGv2, Fig. 3).

    Args:
        height, width: of the map, in tokens.
        k: K, the distance or spacing of the connections.
        kind: "mgc" or "svga", as in `paperrepro.models.layers.MaxRelative`.
        token: row and column; the central token when left out.

    Returns:
        Boolean, `(height, width)`.

    Raises:
        ValueError: another graph, or a token outside the map.
    """
    row, column = token or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"token {token} lies outside the map of {height} x {width}")
    graph = MaxRelative(kind, k)
    connected = torch.zeros(height, width, dtype=torch.bool)
    connected[row, column] = True
    for shift in graph.shifts(height):
        connected[(row - shift) % height if abs(shift) < height else row, column] = True
    for shift in graph.shifts(width):
        connected[row, (column - shift) % width if abs(shift) < width else column] = True
    return connected
