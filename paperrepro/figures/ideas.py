"""Each paper's idea as a thumbnail, for the book's home page: plain SVG in the page's own colours.

>>> from IPython.display import HTML
>>> HTML(thumbnail("fasternet"))
"""

from collections.abc import Callable, Iterator
from html import escape

import svg

from ..models import families

WIDTH, HEIGHT = 180, 96

Parts = Iterator[svg.Element]


def grid(x: float, y: float, side: int, cell: float, filled: set[tuple[int, int]]) -> Parts:
    """A square of cells; those in `filled`, (row, column), in the family's colour."""
    for row in range(side):
        for column in range(side):
            on = (row, column) in filled
            yield svg.Rect(
                x=round(x + column * cell, 1),
                y=round(y + row * cell, 1),
                width=cell - 1.5,
                height=cell - 1.5,
                rx=1.5,
                fill="var(--idea)" if on else "currentColor",
                fill_opacity=1 if on else 0.13,
            )


def word(x: float, y: float, text: str) -> svg.Text:
    return svg.Text(x=x, y=y, text=text, font_size=14, text_anchor="middle", fill="currentColor")


ALL = {(row, column) for row in range(3) for column in range(3)}


def branches() -> Parts:
    yield from grid(8, 8, 3, 10, ALL)
    yield from grid(52, 8, 3, 10, {(1, 1)})
    yield from grid(8, 56, 3, 10, {(1, 1)})
    yield from grid(52, 56, 3, 10, ALL)
    yield word(45, 52, "+")
    yield word(103, 54, "→")
    yield from grid(122, 24, 3, 16, ALL)


def partial() -> Parts:
    for top in (8, 62):
        for channel in range(16):
            on = channel < 4
            yield svg.Rect(
                x=10 + channel * 10,
                y=top,
                width=8,
                height=26,
                rx=1.5,
                fill="var(--idea)" if on else "currentColor",
                fill_opacity=1 if on else 0.13,
            )
    yield word(28, 53, "3×3")
    yield svg.Line(x1=108, x2=108, y1=37, y2=57, stroke="currentColor", stroke_opacity=0.5)


def large() -> Parts:
    yield from grid(
        48, 6, 14, 6, {(row, column) for row in range(1, 13) for column in range(1, 13)}
    )
    yield svg.Rect(
        x=80, y=38, width=18, height=18, fill="none", stroke="currentColor", stroke_width=2
    )


def graph() -> Parts:
    cell, x, y, centre = 12, 46, 5, 3
    linked = {(centre, centre), (1, centre), (5, centre), (centre, 1), (centre, 5)}
    yield from grid(x, y, 7, cell, linked)
    middle = (x + 3 * cell + 5, y + 3 * cell + 5)
    for row, column in linked - {(centre, centre)}:
        end = (x + column * cell + 5, y + row * cell + 5)
        yield svg.Line(
            x1=middle[0], y1=middle[1], x2=end[0], y2=end[1], stroke="var(--idea)", stroke_width=2
        )


def dilated() -> Parts:
    taps = {
        (3 + step * row, 3 + step * column)
        for step in (2, 3)
        for row in (-1, 0, 1)
        for column in (-1, 0, 1)
    }
    yield from grid(46, 5, 7, 12, taps)


def two_forms() -> Parts:
    for row in range(3):
        yield svg.Rect(
            x=10, y=14 + 26 * row, width=60, height=16, rx=3, fill="currentColor", fill_opacity=0.25
        )
    yield word(97, 54, "=")
    yield svg.Rect(x=120, y=40, width=50, height=16, rx=3, fill="var(--idea)")


IDEAS: dict[str, tuple[Callable[[], Parts], str]] = {
    "mobileone": (branches, "Four small kernels become one."),
    "fasternet": (partial, "Of sixteen channels four are convolved, the others pass."),
    "replknet": (
        large,
        "A large kernel covers nearly a whole map, a 3×3 one a spot in its centre.",
    ),
    "mobilevigv2": (graph, "A pixel is joined to four others in its row and its column."),
    "rapidnet": (dilated, "Two dilated kernels touch 17 of the 49 pixels of a square."),
    "reparameterization": (two_forms, "Three layers in training, one layer when it runs."),
}


def thumbnail(name: str) -> str:
    """The idea of a family, or of "reparameterization", as one SVG.

    Raises:
        ValueError: there is none of that name; those that there are are named.
    """
    if name not in IDEAS:
        raise ValueError(f"there is no idea {name!r}: choose one of {', '.join(IDEAS)}")
    parts, words = IDEAS[name]
    color = families()[name].color if name in families() else "#5b6470"
    picture = svg.SVG(
        viewBox=svg.ViewBoxSpec(0, 0, WIDTH, HEIGHT),
        class_=["pr-idea"],
        style=f"--idea:{color};max-width:{WIDTH}px;width:100%",
        extra={"role": "img", "aria-label": escape(words, quote=True)},
        elements=list(parts()),
    )
    return picture.as_str()
