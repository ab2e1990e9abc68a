"""The curves of one or more runs, drawn by one call."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_log(run: str | os.PathLike) -> pd.DataFrame:
    """The log of a run, a row per epoch.

    Raises:
        FileNotFoundError: the folder holds no run that finished an epoch.
    """
    path = Path(run) / "log.csv"
    if not path.exists():
        raise FileNotFoundError(f"{run} holds no log.csv: no training finished an epoch there")
    return pd.read_csv(path)


def draw_curves(runs: Mapping[str, str | os.PathLike]) -> "Figure":
    """Loss and accuracy over the epochs, a colour per run; needs matplotlib.

    Args:
        runs: folders of runs by the name to show.

    Returns:
        The figure: on the left the training loss (dashed) and the validation loss, on the right
        the top-1 accuracy.
    """
    import matplotlib.pyplot as plt

    figure, (losses, accuracy) = plt.subplots(1, 2, figsize=(8, 3.4))
    for name, run in runs.items():
        log = read_log(run)
        (drawn,) = losses.plot(log["epoch"], log["val_loss"])
        losses.plot(log["epoch"], log["train_loss"], "--", color=drawn.get_color())
        accuracy.plot(log["epoch"], log["top1"], color=drawn.get_color(), label=name)
    losses.set(xlabel="epoch", ylabel="loss (training dashed)", title="Loss")
    accuracy.set(xlabel="epoch", ylabel="top-1 (%)", title="Validation accuracy")
    accuracy.legend()
    return figure
