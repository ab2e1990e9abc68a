"""Figures that move: plain SVG and JavaScript, the same in the book, in Colab and in a file.

Each is one piece of HTML: a still picture with words, a script that draws it anew as the reader
moves it, and its numbers, which come from the networks and results of this library. The still
picture is what the script draws first, so that a page without scripts shows it;
`python -m paperrepro.figures` makes it.
"""

import json
from functools import cache
from html import escape
from pathlib import Path

from IPython.display import display

from ..drawing.style import DARK_PAGES, LIGHT_PAGES, css, variables
from .catalogue import FIGURES, Moving

__all__ = ["FIGURES", "Moving", "html", "show", "standalone"]

FOLDER = Path(__file__).parent
CONTROLS = (
    ".pr-moving{max-width:460px;margin:1rem auto;color-scheme:light}"
    "@media (prefers-color-scheme:dark){.pr-moving{color-scheme:dark}}"
    + ",".join(f"{page} .pr-moving" for page in LIGHT_PAGES)
    + "{color-scheme:light}"
    + ",".join(f"{page} .pr-moving" for page in DARK_PAGES)
    + "{color-scheme:dark}"
    ".pr-moving svg{display:block;width:100%;touch-action:pan-y}"
    ".pr-moving svg:focus-visible,.pr-moving circle:focus-visible{outline:2px solid #2b5fb0}"
    ".pr-controls{display:flex;flex-wrap:wrap;gap:6px 18px;margin:8px 0}"
    ".pr-controls label{display:inline-flex;align-items:center;gap:8px;font-size:14px}"
    ".pr-controls input{width:120px;min-height:28px}"
    ".pr-controls select,.pr-controls button{min-height:28px;font-size:14px}"
    ".pr-controls output{min-width:3.2em;font-variant-numeric:tabular-nums}"
    ".pr-readout{font-size:14px;min-height:3.2em;margin:6px 0}"
    ".pr-moving figcaption{font-size:14px}"
    ".pr-svg .pr-fine{fill:none;stroke:var(--pr-frame-edge);stroke-width:.5}"
    ".pr-svg .pr-see{fill-opacity:.7;stroke-width:1.6}"
    ".pr-svg .pr-lit{stroke:var(--pr-ink);stroke-width:2}"
    ".pr-svg .pr-trace{fill:none;stroke-width:1.2;opacity:.5}"
    ".pr-svg .pr-dot{stroke-width:1.5;cursor:pointer}"
)


@cache
def html(name: str) -> str:
    """The figure of that name as HTML that needs nothing else.

    Raises:
        ValueError: there is none of that name; those that there are are named.
    """
    find(name)
    return compose(name, (FOLDER / "stills" / f"{name}.svg").read_text(encoding="utf-8"))


def compose(name: str, picture: str) -> str:
    """The figure around a picture: style, controls, words, numbers and script."""
    moving = find(name)
    data = json.dumps(moving.numbers(), separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<figure class="pr-figure pr-moving" data-figure="{name}"><style>{css()}{CONTROLS}</style>'
        f'{picture}<div class="pr-controls"></div>'
        f'<p class="pr-readout" aria-live="polite">{escape(moving.alt())}</p>'
        f'<figcaption style="color:inherit;text-align:left">{escape(moving.caption)}</figcaption>'
        f'<script type="application/json">{data}</script>'
        f'<script data-figure-script="{name}">{script(name)}</script></figure>'
    )


def standalone(name: str) -> str:
    """The still picture of that name as an SVG file for any page: with its style, on white."""
    find(name)
    picture = (FOLDER / "stills" / f"{name}.svg").read_text(encoding="utf-8")
    style = f"<style>{css()}{CONTROLS}.pr-svg{{{variables(dark=False)}}}</style>"
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    head, rest = picture.split(">", 1)
    return f"{head}>{style}{white}{rest}"


def show(name: str) -> None:
    """Displays the figure of that name in a notebook; its words where HTML is not shown.

    Args:
        name: a key of `FIGURES`, which says what each shows.

    Raises:
        ValueError: there is none of that name.
    """
    display({"text/html": html(name), "text/plain": find(name).alt()}, raw=True)


def find(name: str) -> Moving:
    if name not in FIGURES:
        raise ValueError(f"there is no figure {name!r}: choose one of {', '.join(FIGURES)}")
    return FIGURES[name]


def script(name: str) -> str:
    """The figure's script, which leaves no name behind in the page."""
    parts = [FOLDER / "scripts" / f"{part}.js" for part in ("core", name)]
    return "(() => {" + "".join(part.read_text(encoding="utf-8") for part in parts) + "})();"


def blank(name: str) -> str:
    """The picture before anything is drawn in it."""
    moving = find(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pr-svg" role="img" '
        f'viewBox="0 0 346 {moving.height}" aria-label="{escape(moving.title)}">'
        f"<title>{escape(moving.title)}</title>"
        f"<desc>{escape(moving.alt())}</desc></svg>"
    )
