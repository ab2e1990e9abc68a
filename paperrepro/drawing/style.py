"""How drawings look: colours for light and dark, and what is set in which size."""

from html import escape
from typing import Any

import svg

FONT, SMALL = 13, 12
"""Sizes of text in pixels; 12 are 9 points."""

# By kind of layer: fill and edge in light, fill and edge in dark.
COLORS = {
    "depthwise": ("#d3efe8", "#0f766a", "#12403a", "#5cc9b5"),
    "pointwise": ("#dbe7fa", "#2b5fb0", "#18335e", "#8db7f5"),
    "dense": ("#e8dff8", "#6a3fb0", "#35235e", "#c0a2f2"),
    "graph": ("#fadcea", "#a8326f", "#511b3b", "#f08fbf"),
    "norm": ("#ececee", "#74777d", "#34373c", "#9aa0a6"),
    "act": ("#fff0cc", "#946700", "#493811", "#e6c15c"),
    "scale": ("#ececee", "#74777d", "#34373c", "#9aa0a6"),
    "drop": ("#f6f7f9", "#74777d", "#1c2026", "#9aa0a6"),
    "pass": ("none", "#74777d", "none", "#9aa0a6"),
    "other": ("#f4ecdf", "#7a6440", "#3c342a", "#cbb78f"),
    "unknown": ("#f6f7f9", "#57606a", "#1c2026", "#aab2bb"),
    "frame": ("#f6f7f9", "#c5cad1", "#1c2026", "#4a515b"),
}
LIGHT = {"ink": "#1b1f24", "muted": "#565e68", "line": "#3d444d", "paper": "#ffffff"}
DARK = {"ink": "#e9ecef", "muted": "#aeb6bf", "line": "#c3cad2", "paper": "#121417"}

# Where a page says which of the two it shows: this book, Jupyter, Colab, VS Code.
DARK_PAGES = (
    "html[data-theme=dark]",
    "[data-jp-theme-light=false]",
    "html[theme=dark]",
    "body.vscode-dark",
)
LIGHT_PAGES = (
    "html[data-theme=light]",
    "[data-jp-theme-light=true]",
    "html[theme=light]",
    "body.vscode-light",
)


def variables(dark: bool) -> str:
    """The colours as CSS variables."""
    values = dict(DARK if dark else LIGHT)
    for kind, (*light, dark_fill, dark_edge) in COLORS.items():
        values[kind], values[f"{kind}-edge"] = (dark_fill, dark_edge) if dark else light
    return "".join(f"--pr-{name}:{color};" for name, color in values.items())


def css() -> str:
    """The style of every drawing: colours by the page's theme, else by the system's."""
    dark = ",".join(f"{page} .pr-svg" for page in DARK_PAGES)
    light = ",".join(f"{page} .pr-svg" for page in LIGHT_PAGES)
    kinds = "".join(
        f".pr-svg .pr-{kind}{{fill:var(--pr-{kind});stroke:var(--pr-{kind}-edge)}}"
        f".pr-svg .pr-on-{kind}{{fill:var(--pr-{kind}-edge)}}"
        f".pr-svg .pr-in-{kind}{{stroke:var(--pr-{kind});stroke-width:.45}}"
        for kind in COLORS
    )
    return (
        ".pr-panels{display:flex;flex-wrap:wrap;gap:8px;align-items:flex-start}"
        ".pr-panels>svg{flex:1 1 320px;max-width:346px!important}"
        f".pr-svg{{{variables(False)}max-width:100%;height:auto}}"
        f"@media (prefers-color-scheme:dark){{.pr-svg{{{variables(True)}}}}}"
        f"{light}{{{variables(False)}}}{dark}{{{variables(True)}}}"
        ".pr-svg text{fill:var(--pr-ink);stroke:none;"
        f"font:{SMALL}px 'Helvetica Neue',Helvetica,Arial,sans-serif}}"
        f".pr-svg .pr-title{{font-size:{FONT}px;font-weight:600}}"
        ".pr-svg .pr-muted{fill:var(--pr-muted)}"
        f".pr-svg .pr-code{{font:{SMALL}px ui-monospace,Menlo,Consolas,monospace;"
        "fill:var(--pr-muted)}"
        ".pr-svg .pr-line{fill:none;stroke:var(--pr-line);stroke-width:1.4}"
        ".pr-svg .pr-skip{stroke-width:1.8}"
        ".pr-svg .pr-head{fill:var(--pr-line);stroke:none}"
        ".pr-svg .pr-node{fill:var(--pr-paper);stroke:var(--pr-line);stroke-width:1.4}"
        ".pr-svg .pr-drop,.pr-svg .pr-unknown{stroke-dasharray:4 3}"
        ".pr-svg .pr-span{fill:none;stroke:var(--pr-muted);stroke-dasharray:4 3}"
        ".pr-svg .pr-badge{fill:var(--pr-ink);stroke:none}"
        ".pr-svg .pr-badge-text{fill:var(--pr-paper);font-weight:600}" + kinds
    )


def text_width(text: str, size: float = SMALL, *, bold: bool = False, code: bool = False) -> float:
    """At most how wide a text is, for no font of the browser is known here."""
    if code:
        return 0.62 * size * len(text)
    narrow, wide = "ijl.,:;'|!()[] \u00a0", "mwMW@→×·"
    widths = (
        0.36 if c in narrow else 0.95 if c in wide else 0.7 if c.isupper() else 0.6 for c in text
    )
    return size * sum(widths) * (1.08 if bold else 1)


def wrap(text: str, width: float, size: float = SMALL, *, bold: bool = False) -> list[str]:
    """The text in lines of at most that width, broken at its plain spaces."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}", size, bold=bold) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def label(x: float, y: float, text: str, style: str = "", anchor: Any = "middle") -> svg.Text:
    """A line of text whose baseline is at y."""
    return svg.Text(
        x=round(x, 1),
        y=round(y, 1),
        text=escape(text),
        class_=style.split() or None,
        text_anchor=anchor,
    )


def line(*points: tuple[float, float], style: str = "pr-line") -> svg.Polyline:
    flat: list[Any] = [round(value, 1) for point in points for value in point]
    return svg.Polyline(points=flat, class_=style.split())


def box(x: float, y: float, width: float, height: float, style: str, radius: float = 6) -> svg.Rect:
    x, y, width, height = (round(value, 1) for value in (x, y, width, height))
    return svg.Rect(x=x, y=y, width=width, height=height, rx=radius, class_=style.split())


def arrow(x: float, top: float, bottom: float) -> list[svg.Element]:
    """A line downwards with its head."""
    head: list[Any] = [x - 4, bottom - 6, x + 4, bottom - 6, x, bottom]
    return [
        line((x, top), (x, bottom - 5)),
        svg.Polygon(points=[round(value, 1) for value in head], class_=["pr-head"]),
    ]
