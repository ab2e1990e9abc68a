"""A package's plan as a picture: where the work is, and which operations have a hint."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..plots import OTHER_COLOR, STYLE

HINTED = "#D55E00"
MEASURES = {
    "macs": "multiply-adds",
    "weight_bytes": "bytes of weights",
    "activation_bytes": "bytes moved",
}


def draw_plan(table: pd.DataFrame, title: str = "") -> Figure:
    """A bar per operation, in the order of the file, for each measure; those with a hint coloured.

    Args:
        table: what `plan` returns.
        title: above the picture, the package's name for example.

    Raises:
        ValueError: a table without operations.
    """
    if table.empty:
        raise ValueError("a plan without operations cannot be drawn")
    hinted = table["hint"] != ""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(MEASURES), 1, figsize=(7.2, 5), sharex=True)
        for axis, (column, name) in zip(axes, MEASURES.items(), strict=True):
            share = 100 * table[column] / max(table[column].sum(), 1)
            colors = [HINTED if each else OTHER_COLOR for each in hinted]
            axis.bar(range(len(table)), share, width=1.0, color=colors)
            axis.set_ylabel(name)
            found = f"with a hint: {share[hinted].sum():.0f} %"
            axis.text(
                0.995, 0.95, found, transform=axis.transAxes, ha="right", va="top", color=HINTED
            )
        axes[-1].set_xlabel("operation, from the image to the answer")
        reasons = table["hint"].str.replace(r" \(.*", "", regex=True)[hinted].value_counts()
        counted = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
        axes[0].set_title(f"{title}\n{counted or 'no operation has a hint'}".strip(), fontsize=10)
    return figure
