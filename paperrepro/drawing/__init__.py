"""Drawings of networks and their blocks, made from the modules themselves.

One grammar for all: a box is a layer, with its kernel on the left and the wiring of its channels
on the right; a strip below it normalises or activates; a frame with a line at its side is a
residual; columns that meet in a plus are branches. Colours say what a layer mixes: pixels
(depthwise), channels (1 × 1), or both (dense).
"""

import html
import os
from dataclasses import dataclass
from pathlib import Path

import svg
from torch import nn

from ..files import write_atomically
from ..models import Backbone
from ..models.describe import count_parameters
from ..reparam import reparameterize
from .layout import GAP, Elements, first_and_last, place, shape_text
from .network import network_words, place_network
from .reading import Group, Layer, Reader, Shape, Shapes, find_shapes, leaves, run_shapes
from .style import FONT, arrow, css, escape, label, wrap
from .words import describe

__all__ = ["Drawing", "Group", "Layer", "draw"]

WIDTH = 346
MARGIN = 14


@dataclass(frozen=True)
class Panel:
    """One form of a module: its title, its size, its drawing, and the same in words."""

    title: str
    size: str
    words: str
    elements: Elements
    height: float


class Drawing:
    """What `draw` returns; a notebook shows it.

    Attributes:
        title: what is drawn.
        alt: the drawing in words, from the same data.
        caption: what stands below it in HTML.
        layers: the layers that are drawn; of whole networks none.
    """

    def __init__(self, panels: list[Panel], layers: list[Layer], caption: str = "") -> None:
        self.panels, self.layers, self.caption = panels, layers, caption
        self.title = panels[0].title
        self.alt = alt_of(panels)

    def svg(self) -> str:
        """The drawing as one SVG, its forms side by side."""
        return str(picture(self.panels))

    def html(self) -> str:
        """The drawing as HTML: its forms side by side, or one below the other on a phone."""
        pictures = "".join(str(picture([panel])) for panel in self.panels)
        drawn = f'<div class="pr-figure pr-panels">{pictures}</div>'
        if not self.caption:
            return drawn
        words = f'<figcaption style="text-align:left">{html.escape(self.caption)}</figcaption>'
        return f'<figure class="pr-plot" style="margin:0">{drawn}{words}</figure>'

    def save(self, path: str | os.PathLike) -> None:
        """Writes the SVG, whole or not at all.

        Raises:
            ValueError: the name does not end in .svg.
            OSError: naming the file, which is then as it was.
        """
        if Path(path).suffix != ".svg":
            raise ValueError(
                f"{os.fspath(path)}: a drawing is an SVG; give a name that ends in .svg"
            )
        write_atomically(path, self.svg())

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        return self.html()


def draw(
    module: nn.Module,
    size: int | Shape | None = None,
    *,
    block: str | None = None,
    fused: bool = False,
    title: str | None = None,
    caption: str = "",
) -> Drawing:
    """A diagram of a block or a whole network, made from the module.

    Of this library's networks a drawing folds the stages: a row each, with its map and its blocks.
    Anything else is drawn layer by layer: `Chain`, `Residual`, `Branches` and `nn.Sequential` as
    what they are; a module of another class as its children in the order in which they ran, those
    with children of their own as a box with their name.

    >>> drawing = draw(create_model("fasternet_t0"), block="stages.2.blocks.0", fused=True)
    >>> drawing.save("block.svg")

    Args:
        module: stays as it is; nothing is computed, and its parameters may be on the meta device.
        size: the side of a square input in pixels, or its shape `(C, H, W)`. 56 when None, and 224
            for a network. The channels are those that the module's first layers take; a module
            whose first layer sees only some of them (a `PConv` alone) needs the whole shape.
        block: only this part, by its name in the module, with the map that it sees there.
        fused: beside it the re-parameterized form, as it runs.
        title: what stands above; the name of the network or of the class when None.
        caption: below it, what to look at; the book numbers figures that have one.

    Raises:
        ValueError: the module does not take such an input, or has no such part.
    """
    if block:
        module, size = part_of(module, block, size)
    name = title or getattr(module, "variant", None) or block or type(module).__name__
    forms = [("", module)]
    if fused:
        forms = [("as trained, ", module), ("re-parameterized, ", reparameterize(module))]
    panels, layers = [], []
    for form, part in forms:
        panel, found = make_panel(name, form, part, size)
        panels.append(panel)
        layers += found
    return Drawing(panels, layers, caption)


def shapes_of(module: nn.Module, size: int | Shape | None) -> Shapes:
    """The shapes that the module's parts see, of an input as `draw` takes it."""
    if isinstance(size, tuple):
        return run_shapes(module, size)
    classifier = any(isinstance(part, nn.Linear) for part in module.children())
    whole = isinstance(module, Backbone) or classifier
    return find_shapes(module, size or (224 if whole else 56))


def part_of(module: nn.Module, name: str, size: int | Shape | None) -> tuple[nn.Module, Shape]:
    """A part of a module, and the shape of what it sees."""
    parts = dict(module.named_modules())
    if name not in parts:
        children = ", ".join(child for child, _ in module.named_children()) or "none"
        raise ValueError(f"{type(module).__name__} has no part {name!r}; its parts are: {children}")
    shapes = shapes_of(module, size)
    if name not in shapes:
        raise ValueError(f"{type(module).__name__} does not run its part {name!r}")
    return parts[name], shapes[name][0]


def make_panel(
    title: str, form: str, module: nn.Module, size: int | Shape | None
) -> tuple[Panel, list[Layer]]:
    shapes = shapes_of(module, size)
    count = f"{form}{count_parameters(module):,} parameters"
    if isinstance(module, Backbone):
        elements, bottom = place_network(module, shapes, MARGIN, 0, WIDTH - 2 * MARGIN)
        return Panel(title, count, network_words(module, shapes), elements, bottom), []
    tree = Reader(module, shapes).read()
    before, after = shapes.get("", first_and_last(tree))
    centre, y = WIDTH / 2, 0.0
    elements = [label(centre, y + 12, shape_text(before), "pr-muted"), *arrow(centre, 18, 18 + GAP)]
    found, y = place(tree, MARGIN, 18 + GAP, WIDTH - 2 * MARGIN)
    elements += [*found, *arrow(centre, y, y + GAP)]
    elements.append(label(centre, y + GAP + 13, shape_text(after), "pr-muted"))
    words = f"{shape_text(before)} in; {describe(tree)}; {shape_text(after)} out."
    layers = [layer for layer in leaves(tree) if layer.paths]
    return Panel(title, count, words, elements, y + GAP + 20), layers


def alt_of(panels: list[Panel]) -> str:
    forms = " ".join(f"{panel.size}: {panel.words}" for panel in panels)
    return f"{panels[0].title}, {forms}".replace("\u00a0", " ")


def picture(panels: list[Panel]) -> svg.SVG:
    """Panels side by side under their titles."""
    heads = [wrap(panel.title, WIDTH - 2 * MARGIN, FONT, bold=True) for panel in panels]
    top = 26 + 17 * max(map(len, heads))
    elements: Elements = [
        svg.Title(text=escape(panels[0].title)),
        svg.Desc(text=escape(alt_of(panels))),
        svg.Style(text=css()),
    ]
    for i, (panel, head) in enumerate(zip(panels, heads, strict=True)):
        left = i * WIDTH + MARGIN
        elements += [
            label(left, 15 + 17 * j, text, "pr-title", "start") for j, text in enumerate(head)
        ]
        elements.append(label(left, 15 + 17 * len(head), panel.size, "pr-muted", "start"))
        elements.append(svg.G(transform=[svg.Translate(i * WIDTH, top)], elements=panel.elements))
    width, height = WIDTH * len(panels), round(top + 4 + max(panel.height for panel in panels))
    return svg.SVG(
        width=width,
        height=height,
        viewBox=svg.ViewBoxSpec(0, 0, width, height),
        class_=["pr-svg"],
        extra={"role": "img", "aria-label": escape(alt_of(panels))},
        elements=elements,
    )
