"""A whole network as one strip: a row for the stem, each stage and the head."""

import math
from typing import Any

import svg
from torch import nn

from ..models import Backbone
from ..models.describe import count_parameters
from .layout import Elements, shape_text
from .reading import STRIPS, Part, Reader, Shape, Shapes, leaves
from .style import arrow, box, label, wrap
from .words import blocks


def rows(model: Backbone, shapes: Shapes) -> list[tuple[str, str, Shape, list[str]]]:
    """Of each part its name in the code, its title, its map, and what is in it."""
    parts: list[tuple[str, str, nn.Module]] = [("stem", "Stem", model.stem)]
    parts += [(f"stages.{i}", f"Stage {i + 1}", stage) for i, stage in enumerate(model.stages)]
    parts.append(("head", "Head", model.head))
    found = []
    for path, title, part in parts:
        tree = Reader(model, shapes, leave_out=("drop",)).part(part, path)
        after = shapes.get(path, ((), ()))[1]
        lines = merged(blocks(tree)) if path != "head" else [", ".join(layers_of(tree))]
        lines.append(f"{count_parameters(part):,} parameters")
        found.append((path, title, after, lines))
    return found


def merged(lines: list[str]) -> list[str]:
    """Single layers in a row on one line; what is repeated on a line of its own."""
    text: list[str] = []
    for entry in lines:
        if text and "(" not in entry and "(" not in text[-1]:
            text[-1] += f", {entry}"
        else:
            text.append(entry)
    return text


def layers_of(tree: Part) -> list[str]:
    """The layers of a head that count, the pooling and the classifier among them."""
    found = [layer for layer in leaves(tree) if layer.kind not in STRIPS]
    return [layer.short for layer in found if layer.short]


def place_network(
    model: Backbone, shapes: Shapes, x: float, y: float, width: float
) -> tuple[Elements, float]:
    """The elements of the strip and its lower edge."""
    image = shapes[""][0]
    column, text = 92, x + 104
    elements: Elements = [label(text, y + 14, f"image {shape_text(image)}", "pr-muted", "start")]
    y += 22
    for path, title, shape, lines in rows(model, shapes):
        wrapped = [piece for entry in lines for piece in wrap(entry, x + width - text - 6)]
        height = max(62, 38 + 16 * len(wrapped))
        solid = cuboid(x + column / 2, y + height / 2, shape, image)
        words = [label(text, y + 20, title, "pr-title", "start")]
        words.append(label(x + width - 8, y + 20, shape_text(shape), "", "end"))
        for i, piece in enumerate(wrapped):
            last = i == len(wrapped) - 1
            words.append(label(text, y + 39 + 16 * i, piece, "pr-muted" if last else "", "start"))
        frame = box(x, y, width, height, "pr-frame", 8)
        elements.append(svg.G(elements=[frame, *solid, *words], data={"part": path}))
        elements += arrow(x + column / 2, y + height, y + height + 16)
        y += height + 16
    elements.append(label(text, y + 6, "scores of the classes", "pr-muted", "start"))
    return elements, y + 14


def cuboid(x: float, y: float, shape: Shape, image: Shape) -> Elements:
    """A map as a solid: its face as the map's side, its depth as the channels, both by the root."""
    channels = shape[0]
    side = 4 + 40 * math.sqrt(shape[1] / image[1] * 2) if len(shape) == 3 else 4
    side, depth = min(side, 44), min(4 + 1.1 * math.sqrt(channels), 40)
    dx, dy = depth * 0.8, -depth * 0.45
    left, top = x - (side + dx) / 2, y - (side + dy) / 2
    right, low = left + side, top + side

    def face(style: str, *points: tuple[float, float]) -> svg.Polygon:
        flat: list[Any] = [round(value, 1) for point in points for value in point]
        return svg.Polygon(points=flat, class_=[style])

    front = (left, top), (right, top), (right, low), (left, low)
    above = (left, top), (left + dx, top + dy), (right + dx, top + dy), (right, top)
    beside = (right, top), (right + dx, top + dy), (right + dx, low + dy), (right, low)
    return [
        face("pr-depthwise", *front),
        face("pr-on-depthwise", *above),
        face("pr-pointwise", *beside),
    ]


def network_words(model: Backbone, shapes: Shapes) -> str:
    parts = [
        f"{title}, {'; '.join(lines)}, to {shape_text(shape)}"
        for _, title, shape, lines in rows(model, shapes)
    ]
    return f"an image of {shape_text(shapes[''][0])}; " + ". ".join(parts) + "."
