"""Where each part of a module stands: from the top down, branches side by side."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import svg

from .reading import STRIPS, Group, Layer, Part, Shape, leaves
from .style import FONT, arrow, box, label, line, text_width, wrap

Elements = list[svg.Element]
GAP = 24
LINE = 16
STRIP = 22
INSET = 30
NARROW = 190


def shape_text(shape: Shape) -> str:
    """`(C, H, W)` as it is written in a drawing."""
    return " × ".join(map(str, shape)).replace(" ", "\u00a0")


def first_and_last(part: Part) -> tuple[Shape, Shape]:
    """The shapes that enter and leave a part, as far as they are known."""
    shapes = [s for layer in leaves(part) for s in (layer.before, layer.after) if s]
    if isinstance(part, Group) and part.kind == "partial" and shapes:
        channels = sum(layer.channels for layer in part.parts if isinstance(layer, Layer))
        shapes = [(channels, *shapes[0][1:])]
    return (shapes[0], shapes[-1]) if shapes else ((), ())


def place(part: Part, x: float, y: float, width: float) -> tuple[Elements, float]:
    """The elements of a part whose upper edge is y, and its lower edge."""
    if isinstance(part, Layer):
        return place_layer(part, x, y, width)
    if part.times > 1 and part.kind == "series":
        return place_repeat(part, x, y, width)
    return {
        "series": place_series,
        "unknown": place_unknown,
        "residual": place_residual,
        "sum": place_branches,
        "mean": place_branches,
        "partial": place_partial,
    }[part.kind](part, x, y, width)


def place_series(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """One part below the other, with an arrow between; strips lie under the layer before them."""
    elements: Elements = []
    centre, shown = x + width / 2, first_and_last(group)[0]
    parts = list(flat(group.parts))
    i = 0
    while i < len(parts):
        strips = []
        while i < len(parts) and is_strip(parts[i]):
            strips.append(parts[i])
            i += 1
        if strips:
            before = parts[i - len(strips) - 1] if i > len(strips) else None
            if not isinstance(before, Layer):
                if before is not None:
                    elements += arrow(centre, y, y + GAP)
                    y += GAP
            found, y = place_strips([s for s in strips if isinstance(s, Layer)], x, y, width)
            elements += found
            continue
        if i:
            before_shape, _ = first_and_last(parts[i])
            branches = isinstance(parts[i], Group) and parts[i].kind in ("sum", "mean")
            gap = GAP + 8 * (parts[i].times > 1)
            if branches:
                elements.append(line((centre, y), (centre, y + gap)))
            else:
                elements += arrow(centre, y, y + gap)
            if before_shape and before_shape != shown and width >= NARROW:
                text = shape_text(before_shape)
                elements.append(label(centre + 10, y + 15, text, "pr-muted", "start"))
                shown = before_shape
            y += gap
        found, y = place(parts[i], x, y, width)
        elements += found
        i += 1
    return elements, y


def flat(parts: Sequence[Part]) -> Sequence[Part]:
    """The parts with those of plain series in their places."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Group) and part.kind == "series" and part.times == 1:
            found += flat(part.parts)
        else:
            found.append(part)
    return found


def is_strip(part: Part) -> bool:
    return isinstance(part, Layer) and part.kind in STRIPS


def place_strips(
    layers: Sequence[Layer], x: float, y: float, width: float
) -> tuple[Elements, float]:
    """Normalisation, activation, scale: side by side in a strip, in two where it is narrow."""
    full = sum(text_width(layer.title) + 14 for layer in layers) <= width
    short = sum(text_width(layer.short or layer.title) + 8 for layer in layers) <= width
    if not short:
        elements, y = place_strips(layers[:1], x, y, width)
        more, y = place_strips(layers[1:], x, y, width)
        return elements + more, y
    elements, each = [], width / len(layers)
    for i, layer in enumerate(layers):
        text = layer.title if full else layer.short or layer.title
        elements.append(
            marked(
                layer,
                [
                    box(x + i * each, y, each, STRIP, f"pr-{layer.kind}", 3),
                    label(x + (i + 0.5) * each, y + 15.5, text),
                ],
            )
        )
    return elements, y + STRIP


def marked(layer: Layer, elements: Elements) -> svg.G:
    """The elements of one layer, with its names for who looks into the file."""
    return svg.G(elements=elements, data={"layer": " ".join(layer.paths)} if layer.paths else None)


def place_layer(layer: Layer, x: float, y: float, width: float) -> tuple[Elements, float]:
    """A layer as a box: its kernel, what it is, and how its channels are wired."""
    if layer.kind in STRIPS:
        return place_strips([layer], x, y, width)
    if layer.kind == "identity":
        middle = x + width / 2
        bar = svg.G(
            elements=[line((middle, y), (middle, y + 14)), label(middle, y + 29, "identity")]
        )
        return [marked(layer, [bar, line((middle, y + 36), (middle, y + 50))])], y + 50
    style = f"pr-{layer.kind}"
    facts = list(layer.facts)
    if layer.before and layer.kind in ("unknown", "other") and len(layer.after) == 3:
        change = shape_text(layer.before) + " → " + shape_text(layer.after)
        facts += [change] if layer.before != layer.after else []
    elements: Elements = []
    wide = width >= NARROW
    if wide:
        margin = 52 if layer.kernel[0] or layer.kind == "graph" else 14
        room = width - margin - (52 if layer.groups else 10)
        left = x + margin
        titles = wrap(layer.title, room, FONT, bold=True)
        details = wrap(", ".join(facts), room) if facts else []
        height = max(12 + LINE * (len(titles) + len(details)), 46 if layer.kernel[0] else 30)
        top = y + (height - LINE * (len(titles) + len(details))) / 2 + 12
        for i, text in enumerate(titles + details):
            style_of = "pr-title" if i < len(titles) else ""
            elements.append(label(left, top + i * LINE, text, style_of, "start"))
        name = text_width(layer.name, code=True) + 10
        rows = [text_width(t, FONT, bold=True) for t in titles] + [text_width(t) for t in details]
        free = [i for i, used in enumerate(rows) if used + name <= room]
        if layer.name and free:
            level = top + free[0] * LINE
            elements.append(label(left + room, level, layer.name, "pr-code", "end"))
        if layer.kernel[0]:
            elements += kernel_glyph(layer, x + 27, y + height / 2)
        elif layer.kind == "graph":
            elements += graph_glyph(x + 27, y + height / 2)
        if layer.groups:
            elements += wiring_glyph(layer, x + width - 27, y + height / 2)
    else:
        titles = wrap(layer.title, width - 8, FONT, bold=True)
        details = [text for fact in facts for text in wrap(fact, width - 8)]
        glyph = 42 if layer.kernel[0] else 0
        height = 10 + glyph + LINE * (len(titles) + len(details))
        if glyph:
            elements += kernel_glyph(layer, x + width / 2, y + 26)
        for i, text in enumerate(titles + details):
            style_of = "pr-title" if i < len(titles) else ""
            elements.append(label(x + width / 2, y + glyph + 17 + i * LINE, text, style_of))
    behind = stacked(layer.times, x, y, width, height, style)
    body = box(x, y, width, height, style)
    return [*behind, marked(layer, [body, *elements])] + badge(
        layer.times, x + width, y
    ), y + height


def stacked(times: int, x: float, y: float, width: float, height: float, style: str) -> Elements:
    """The cards behind, where a layer stands for several."""
    return [box(x + d, y - d, width, height, style) for d in (6, 3)] if times > 1 else []


def badge(times: int, right: float, y: float) -> Elements:
    """`× 4` on the upper right corner."""
    if times == 1:
        return []
    width = text_width(f"×\u00a0{times}", bold=True) + 10
    return [
        box(right - width + 8, y - 12, width, 18, "pr-badge", 9),
        label(right - width / 2 + 8, y + 1.5, f"×\u00a0{times}", "pr-badge-text"),
    ]


def kernel_glyph(layer: Layer, x: float, y: float) -> Elements:
    """The kernel's taps, one square each up to 7 x 7, and closer from there on."""
    span = layer.dilation * (max(layer.kernel) - 1) + 1
    cell = min(5.0, 36 / span)
    elements: Elements = []
    if span > 13:
        side = cell * span
        elements.append(box(x - side / 2, y - side / 2, side, side, f"pr-on-{layer.kind}", 1))
        marks = [x - side / 2 + cell * i for i in range(1, span)]
        for mark in marks:
            grid: dict[str, Any] = {"class_": [f"pr-in-{layer.kind}"]}
            elements.append(svg.Line(x1=mark, x2=mark, y1=y - side / 2, y2=y + side / 2, **grid))
            row = mark - x + y
            elements.append(svg.Line(x1=x - side / 2, x2=x + side / 2, y1=row, y2=row, **grid))
        return elements
    rows, columns = (range(0, layer.dilation * side, layer.dilation) for side in layer.kernel)
    if layer.dilation > 1:
        side = cell * span
        elements.append(box(x - side / 2, y - side / 2, side, side, "pr-span", 1))
    for row, column in product(rows, columns):
        left = x + cell * (column - (layer.dilation * (layer.kernel[1] - 1) + 1) / 2)
        top = y + cell * (row - (layer.dilation * (layer.kernel[0] - 1) + 1) / 2)
        elements.append(box(left + 0.5, top + 0.5, cell - 1, cell - 1, f"pr-on-{layer.kind}", 0.6))
    return elements


def graph_glyph(x: float, y: float) -> Elements:
    """A pixel and those that it is linked to along its row and its column."""
    ends = [(x - 15, y), (x + 15, y), (x, y - 15), (x, y + 15)]
    elements: Elements = [line((x, y), end, style="pr-graph") for end in ends]
    elements += [svg.Circle(cx=a, cy=b, r=3, class_=["pr-on-graph"]) for a, b in ends]
    return [*elements, svg.Circle(cx=x, cy=y, r=4.5, class_=["pr-on-graph"])]


def wiring_glyph(layer: Layer, x: float, y: float) -> Elements:
    """Four channels above and below: each alone (depthwise), all with all, or in groups."""
    groups = min(layer.groups, 4)
    groups = 3 if groups == 3 else groups
    count = 3 if groups == 3 else 4
    each = count // groups
    places = [x + 9 * (i - (count - 1) / 2) for i in range(count)]
    elements: Elements = []
    for g in range(groups):
        inside = places[g * each : (g + 1) * each]
        elements += [
            line((a, y - 12), (b, y + 12), style=f"pr-{layer.kind} pr-wire")
            for a, b in product(inside, inside)
        ]
    elements += [
        svg.Circle(cx=place, cy=y + d, r=2.3, class_=[f"pr-on-{layer.kind}"])
        for place, d in product(places, (-12, 12))
    ]
    return elements


def place_residual(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """A frame with a line past what is inside, and the sum of both below."""
    centre, side = x + width / 2, x + INSET / 2
    elements: Elements = [*arrow(centre, y, y + GAP + 8)]
    inside, bottom = place_series(group, x + INSET, y + GAP + 8, width - 2 * INSET)
    plus = bottom + GAP + 6
    skip = [(centre, y + 12), (side, y + 12), (side, plus), (centre - 9, plus)]
    elements += [line(*skip, style="pr-line pr-skip"), *inside, *arrow(centre, bottom, plus - 9)]
    elements += node(centre, plus, "+")
    elements.append(line((centre, plus + 9), (centre, plus + 20)))
    if group.name and not group.name.isdigit():
        elements.append(label(x + width - 9, y + 17, group.name, "pr-code", "end"))
    end = plus + 20
    frame = box(x, y, width, end - y, "pr-frame", 10)
    return [frame, *elements], end


def node(x: float, y: float, sign: str) -> Elements:
    """Where branches meet."""
    radius = 9 if len(sign) == 1 else 16
    return [
        svg.Circle(cx=x, cy=round(y, 1), r=radius, class_=["pr-node"])
        if len(sign) == 1
        else box(x - 22, y - 9, 44, 18, "pr-node", 9),
        label(x, y + 4.5, sign, "pr-title" if len(sign) == 1 else ""),
    ]


def place_branches(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """Branches side by side, from one point to their sum."""
    count, gap, centre = len(group.parts), 12, x + width / 2
    each = (width - gap * (count - 1)) / count
    starts = [x + i * (each + gap) for i in range(count)]
    middles = [start + each / 2 for start in starts]
    elements: Elements = [line((centre, y), (centre, y + 8))]
    elements.append(line((middles[0], y + 8), (middles[-1], y + 8)))
    bottoms = []
    for part, start, middle in zip(group.parts, starts, middles, strict=True):
        elements += arrow(middle, y + 8, y + GAP + 6)
        found, bottom = place(part, start, y + GAP + 6, each)
        name = branch_name(part)
        if name:
            found.append(label(middle, bottom + 15, name, "pr-code"))
            bottom += 20
        elements += found
        bottoms.append(bottom)
    low = max(bottoms) + 10
    for middle, bottom in zip(middles, bottoms, strict=True):
        elements.append(line((middle, bottom), (middle, low)))
    elements.append(line((middles[0], low), (middles[-1], low)))
    elements += arrow(centre, low, low + 16)
    elements += node(centre, low + 25, "+" if group.kind == "sum" else "mean")
    return elements, low + 34


def branch_name(part: Part) -> str:
    """What a branch is called in the code; nothing for the identity, which says so itself."""
    if isinstance(part, Group):
        return part.name
    return "" if part.kind == "identity" or not part.paths else part.paths[0].rpartition(".")[2]


def place_partial(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """The channels as a bar of which a part is convolved; the rest passes, drawn to scale."""
    conv, *rest = (part for part in group.parts if isinstance(part, Layer))
    untouched = sum(layer.channels for layer in rest)
    share = width * conv.channels / (conv.channels + untouched)
    share = min(max(share, 84), width)
    elements: Elements = []
    facts = (f"{conv.channels} channels",)
    narrow = Layer(conv.kind, conv.title, facts, "", conv.kernel, conv.dilation, paths=conv.paths)
    found, bottom = place_layer(narrow, x, y + 14, share)
    elements += found
    if rest:
        start, room = x + share + 10, width - share - 10
        elements.append(marked(rest[0], passing_lines(start, y, room, bottom + 14)))
        middle, text = start + room / 2, f"{untouched} channels"
        wide = max(text_width(text), text_width("pass untouched")) + 12
        level = (y + 14 + bottom) / 2
        elements.append(box(middle - wide / 2, level - 21, wide, 42, "pr-frame", 8))
        elements += [label(middle, level - 4, text), label(middle, level + 12, "pass untouched")]
        elements.append(box(start, y, room, 8, "pr-pass", 2))
        elements.append(box(start, bottom + 6, room, 8, "pr-pass", 2))
    elements.append(box(x, y, share, 8, f"pr-{conv.kind}", 2))
    elements.append(box(x, bottom + 6, share, 8, f"pr-{conv.kind}", 2))
    return elements, bottom + 14


def passing_lines(x: float, top: float, width: float, bottom: float) -> Elements:
    """One line for every few channels that nothing touches."""
    count = max(int(width / 9), 2)
    step = width / count
    return [
        line(
            (x + (i + 0.5) * step, top + 8),
            (x + (i + 0.5) * step, bottom - 8),
            style="pr-pass pr-wire",
        )
        for i in range(count)
    ]


def place_repeat(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """A series that comes several times: once, on a stack of cards, with the number."""
    wide = width >= NARROW
    margin = 10 if wide else 0
    inside, bottom = place_series(group, x + margin, y + margin, width - 2 * margin)
    bottom += margin
    behind = stacked(group.times, x, y, width, bottom - y, "pr-frame")
    frame = box(x, y, width, bottom - y, "pr-frame", 8 if wide else 4)
    return [*behind, frame, *inside, *badge(group.times, x + width, y)], bottom


def place_unknown(group: Group, x: float, y: float, width: float) -> tuple[Elements, float]:
    """A class that is not known: its layers in a dashed frame, as they ran."""
    note = wrap("in the order they ran; the connections inside are the class's own", width - 24)
    elements: Elements = [label(x + 12, y + 20, group.name, "pr-title", "start")]
    elements += [
        label(x + 12, y + 38 + i * LINE, text, "pr-muted", "start") for i, text in enumerate(note)
    ]
    top = y + 38 + LINE * len(note)
    inside, bottom = place_series(Group("series", group.parts), x + 12, top, width - 24)
    return [box(x, y, width, bottom + 12 - y, "pr-unknown", 10), *elements, *inside], bottom + 12
