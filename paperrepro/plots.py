"""The book's one look: a style, one colour per network family, figures with alt text."""

import base64
import html
import io
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .models import families

# Okabe and Ito's palette, which stays distinct under every common colour blindness.
FAMILY_COLORS = {name: family.color for name, family in families().items() if family.color}
OTHER_COLOR = "#8A8A8A"

STYLE: dict[Any, Any] = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=list(FAMILY_COLORS.values())),
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "font.size": 10,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 7,
    "savefig.dpi": 110,
}


def use_style() -> None:
    """Give every figure of this session the book's look."""
    plt.rcParams.update(STYLE)


def points(
    ax: Axes, x: Any, y: Any, family: str, *, paper: bool = False, **settings: Any
) -> list[Line2D]:
    """Mark points in the family's colour: the paper's numbers hollow, ours filled."""
    color = FAMILY_COLORS.get(family, OTHER_COLOR)
    defaults: dict[str, Any] = {
        "color": color,
        "markerfacecolor": "white" if paper else color,
        "markeredgecolor": color,
        "markeredgewidth": 1.6,
        "marker": "o",
        "linestyle": "none",
    }
    return ax.plot(x, y, **(defaults | settings))


def label(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **settings: Any
) -> None:
    """Write beside a point.

    Args:
        at: the point, in the axes' data.
        offset: from the point to the text, in points (1/72 inch): to the left of it where the first
            number is negative, centred where it is 0.
        settings: of `Axes.annotate`; the type has 9 points.
    """
    side = "right" if offset[0] < 0 else "left" if offset[0] else "center"
    defaults: dict[str, Any] = {"fontsize": 9, "ha": side}
    ax.annotate(text, at, offset, textcoords="offset points", **(defaults | settings))


def show(fig: Figure, alt: str, caption: str = "") -> None:
    """Display a figure once.

    Args:
        alt: the words that stand in for it where it cannot be seen.
        caption: below it, what to look at; the book numbers figures that have one.

    Raises:
        ValueError: no alt text.
    """
    if not alt.strip():
        raise ValueError("A figure needs alt text: say what it shows.")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="webp", pil_kwargs={"lossless": True})
    plt.close(fig)
    width = round(fig.get_figwidth() * 100)
    image = base64.b64encode(buffer.getvalue()).decode()
    tag = (
        f'<img alt="{html.escape(alt)}" width="{width}" style="max-width: 100%; height: auto" '
        f'src="data:image/webp;base64,{image}">'
    )
    if caption:
        words = f'<figcaption style="text-align:left">{html.escape(caption)}</figcaption>'
        tag = f'<figure class="pr-plot" style="margin:0">{tag}{words}</figure>'
    display({"text/html": tag, "text/plain": alt}, raw=True)
