"""A module as the tree that is drawn: its layers, in a row, with a skip beside them, in branches.

Everything is read off the module: kernels and channels from its layers, the shapes of the maps from
one run without numbers, on PyTorch's meta device.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torchvision.ops import DeformConv2d, SqueezeExcitation, StochasticDepth

from ..models.describe import count_parameters
from ..models.fasternet import PConv
from ..models.layers import Branches, LayerScale, Residual, TwoHeads
from ..models.local_global import MaxRelative

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = dict[str, tuple[Shape, Shape]]

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid)
POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d)
DROPS = (StochasticDepth, nn.Dropout)
STRIPS = {"norm", "act", "scale", "drop"}
"""The kinds of layer that are drawn as a strip below the one before."""


@dataclass(frozen=True)
class Layer:
    """One layer, or so many equal ones.

    Attributes:
        kind: "dense", "pointwise" or "depthwise" for a convolution, "pass" for channels that
            nothing touches, "graph", "norm", "act", "scale", "drop", "identity", "other", or
            "unknown" for a module of which only the name and the shapes are known.
        facts: what is particular to it, in words: channels, stride, dilation, groups.
        kernel: the sides of a convolution's kernel, and its dilation.
        groups: how many groups of channels do not see each other; 0 where there are no channels.
        before, after: the shapes of its input and output without the batch.
        paths: its names in the drawn module.
    """

    kind: str
    title: str
    facts: tuple[str, ...] = ()
    short: str = ""
    kernel: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 0
    channels: int = 0
    before: Shape = ()
    after: Shape = ()
    times: int = 1
    paths: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """What it is called in the code: the last name that says more than `conv`."""
        words = self.paths[0].split(".") if self.paths else []
        telling = [word for word in words if word != "conv" and not word.isdigit()]
        return telling[-1] if telling else ""


@dataclass(frozen=True)
class Group:
    """Several parts, or so many equal groups.

    Attributes:
        kind: "series" (one after another), "residual" (a series whose input is added), "sum" or
            "mean" (parallel branches), "partial" (some channels each) or "unknown" (in the order in
            which they ran; what connects them is not known).
    """

    kind: str
    parts: tuple["Part", ...]
    name: str = field(default="", compare=False)
    times: int = 1


Part: TypeAlias = Layer | Group


def leaves(part: Part) -> Iterator[Layer]:
    """Every layer of a tree."""
    if isinstance(part, Layer):
        yield part
    else:
        for child in part.parts:
            yield from leaves(child)


class Reader:
    """Reads one module, given the shapes that its parts saw, without layers of some kinds."""

    def __init__(
        self,
        module: nn.Module,
        shapes: Shapes,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        self.module, self.shapes = module, shapes
        self.leave_out = {"identity", *leave_out}

    def read(self) -> Group:
        """The whole module: of a class that is not known the children, as they ran."""
        part = self.part(self.module, "")
        if isinstance(part, Group):
            return part
        children = [(name, child) for name, child in self.module.named_children()]
        if part.kind != "unknown" or not children:
            return Group("series", (part,))
        order = list(self.shapes)
        ran = [(name, child) for name, child in children if name in self.shapes]
        ran.sort(key=lambda entry: order.index(entry[0]))
        return Group("unknown", self.several(ran, ""), type(self.module).__name__)

    def several(self, children: Iterable[tuple[str, nn.Module]], path: str) -> tuple[Part, ...]:
        parts = [self.part(child, f"{path}.{name}".strip(".")) for name, child in children]
        return tuple(
            fold_repeats(
                [p for p in parts if not (isinstance(p, Layer) and p.kind in self.leave_out)]
            )
        )

    def part(self, module: nn.Module, path: str) -> Part:
        name = path.rpartition(".")[2]
        children = list(module.named_children())
        if isinstance(module, PConv):
            return self.partial(module, path)
        if isinstance(module, Branches):
            branches = [self.part(child, f"{path}.{n}".strip(".")) for n, child in children]
            return Group("sum", tuple(fold_repeats(branches, periods=1)), name)
        if isinstance(module, TwoHeads):
            return Group("mean", self.several(children, path), name)
        if isinstance(module, nn.Sequential) and children:
            forward = type(module).forward
            if isinstance(module, Residual):
                return Group("residual", self.several(children, path), name)
            if forward is nn.Sequential.forward:
                return Group("series", self.several(children, path), name)
        before, after = self.shapes.get(path, ((), ()))
        return replace(read_layer(module), before=before, after=after, paths=(path,))

    def partial(self, module: PConv, path: str) -> Group:
        conv = self.part(module.conv, f"{path}.conv".strip("."))
        before, _ = self.shapes.get(path, ((), ()))
        untouched = before[0] - module.convolved if before else 0
        passing = Layer("pass", "pass through", (f"{untouched} channels",), "", channels=untouched)
        parts = (conv, passing) if untouched else (conv,)
        return Group("partial", parts, path.rpartition(".")[2])


def read_layer(module: nn.Module) -> Layer:
    """A layer by itself, without its place."""
    kind = type(module).__name__
    if isinstance(module, _ConvNd | DeformConv2d):
        return read_conv(module)
    if isinstance(module, nn.Linear):
        width = f"{module.in_features} → {module.out_features}"
        return Layer("other", "linear", (width,), "linear")
    if isinstance(module, MaxRelative):
        links = f"{module.graph.upper()}, K = {module.distance}"
        return Layer("graph", "max-relative graph", (links, "C → 2C channels"), "graph")
    if isinstance(module, SqueezeExcitation):
        wide, narrow = module.fc1.in_channels, module.fc1.out_channels
        squeezed = f"{wide} → {narrow} → {wide} channels"
        return Layer("other", "squeeze-and-excite", (squeezed,), "SE")
    if isinstance(module, NORMS):
        return Layer("norm", kind.removesuffix("2d"), short="BN" if "Batch" in kind else "LN")
    if isinstance(module, ACTIVATIONS):
        return Layer("act", kind, short=kind)
    if isinstance(module, LayerScale):
        return Layer("scale", "layer scale", short="scale")
    if isinstance(module, DROPS):
        return Layer("drop", "drop path" if kind == "StochasticDepth" else "dropout", short="drop")
    if type(module) is nn.Identity:
        return Layer("identity", "identity")
    if isinstance(module, POOLS):
        average = "average" if "Avg" in kind else "maximum"
        side = getattr(module, "kernel_size", None)
        window = "" if side is None else f"{side} × {side}, stride {module.stride}"
        return Layer("other", f"{average} pooling", (window,) if window else (), "pool")
    if isinstance(module, nn.Flatten):
        return Layer("other", "flatten")
    return Layer("unknown", kind, (f"{count_parameters(module):,} parameters",), kind)


def read_conv(conv: _ConvNd | DeformConv2d) -> Layer:
    rows, columns = (*conv.kernel_size, *conv.kernel_size)[:2]
    into, out, groups = conv.in_channels, conv.out_channels, conv.groups
    depthwise = groups == into > 1
    size = f"{rows} × {columns}".replace(" ", "\u00a0")
    facts = [f"{into} channels" if into == out else f"{into} → {out} channels"]
    facts += [f"stride {conv.stride[0]}"] if conv.stride[0] > 1 else []
    facts += [f"dilation {conv.dilation[0]}"] if conv.dilation[0] > 1 else []
    facts += [f"{groups} groups"] if groups > 1 and not depthwise else []
    kind = "depthwise" if depthwise else "pointwise" if rows == columns == 1 else "dense"
    word = "deformable" if isinstance(conv, DeformConv2d) else kind if depthwise else "conv"
    return Layer(
        kind,
        f"{size} {word}",
        tuple(facts),
        f"{rows}×{columns}" + (" dw" if depthwise else ""),
        (rows, columns),
        conv.dilation[0],
        groups,
        into,
    )


def fold_repeats(parts: Sequence[Part], periods: int = 3) -> list[Part]:
    """Equal parts in a row, or equal pairs and triples, as one with its number of times."""
    folded: list[Part] = []
    i = 0
    while i < len(parts):
        best, times = 1, 1
        for period in range(1, periods + 1):
            one, count = parts[i : i + period], 1
            while one == parts[i + count * period : i + (count + 1) * period]:
                count += 1
            if count > 1 and count * period > best * times:
                best, times = period, count
        one = [
            with_paths_of(parts[i + k], [parts[i + k + best * n] for n in range(times)])
            for k in range(best)
        ]
        if times == 1:
            folded += one
        elif best == 1:
            folded.append(replace(one[0], times=times * one[0].times))
        else:
            folded.append(Group("series", tuple(one), times=times))
        i += best * times
    return folded


def with_paths_of(part: Part, equals: Sequence[Part]) -> Part:
    """The part with the names of all its equals."""
    if isinstance(part, Layer):
        return replace(part, paths=tuple(path for e in equals for path in next(leaves(e)).paths))
    children = [
        with_paths_of(child, [e.parts[i] for e in equals if isinstance(e, Group)])
        for i, child in enumerate(part.parts)
    ]
    return replace(part, parts=tuple(children))


def run_shapes(module: nn.Module, shape: Shape) -> Shapes:
    """By the name of each part that runs, in that order, the shapes of its input and output.

    Nothing is computed: the module's parameters are replaced by their shapes for one run.

    Args:
        shape: of the input, `(C, H, W)`.

    Raises:
        ValueError: the module does not take such an input.
    """
    found: Shapes = {}
    names = {part: path for path, part in module.named_modules()}

    def note(part: nn.Module, inputs: tuple, output: object) -> None:
        first = inputs[0] if inputs else None
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            found.setdefault(names[part], (tuple(first.shape[1:]), tuple(output.shape[1:])))

    modes = {part: part.training for part in module.modules()}
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    empty = {name: value.detach().to("meta") for name, value in state.items()}
    hooks = [part.register_forward_hook(note) for part in names]
    try:
        module.eval()
        with torch.no_grad():
            torch.func.functional_call(module, empty, (torch.empty(1, *shape, device="meta"),))
    except (RuntimeError, IndexError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{type(module).__name__} does not take an input of shape {shape} (channels, height, "
            f"width): {first}; give its shape as size=(C, H, W)"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes.items():
            part.training = training
    return found


def find_shapes(module: nn.Module, side: int) -> Shapes:
    """`run_shapes` of a square input of that side, with the channels that the first layers take.

    Raises:
        ValueError: none of their numbers of channels fits.
    """
    candidates = []
    for part in module.modules():
        if isinstance(part, _ConvNd | DeformConv2d):
            candidates.append(part.in_channels)
        elif isinstance(part, _BatchNorm):
            candidates.append(part.num_features)
    failure: ValueError | None = None
    for channels in dict.fromkeys(candidates[:8] or [64]):
        try:
            return run_shapes(module, (channels, side, side))
        except ValueError as error:
            failure = failure or error
    assert failure is not None
    raise failure
