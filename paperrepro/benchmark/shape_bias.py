"""Is a shape bias bound by the network or by loading the images? The smallest network per family.

Geirhos et al. (ICLR 2019) ask about 1,280 images of 224 x 224 pixels. A batch of such PNG files is
read, decoded and normalised, interleaved with the networks' answers to it.
"""

import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from ..analysis.shape_bias import Stimuli
from ..files import data_folder, list_images, open_image
from ..networks import find_network
from .latency import compare

NETWORKS = ("mobileone_s0", "fasternet_t0", "replknet_3", "mobilevigv2_ti", "rapidnet_ti")
IMAGES = 1280


def run(quick: bool = False, threads: int = 1) -> pd.DataFrame:
    """One row per network, with random weights, in the mean per image over one batch.

    Returns:
        `loading_ms`, `network_ms`, `network_share` of their sum, and `seconds` of both for 1,280
        images, one process doing both in turn; `null` as in every benchmark.
    """
    networks = {name: find_network(name) for name in NETWORKS[: 2 if quick else None]}
    with tempfile.TemporaryDirectory() as folder:
        stimuli = Stimuli(png_copies(Path(folder)), next(iter(networks.values())).transform)

        def load() -> torch.Tensor:
            return torch.stack([stimuli[i][0] for i in range(len(stimuli))])

        batch = load()
        candidates = {"loading": load} | {
            name: partial(answer, network.model, batch) for name, network in networks.items()
        }
        times = compare(
            candidates, rounds=3 if quick else 5, threads=threads, progress="Shape bias"
        )
    loading_s = times["loading"].median / len(stimuli)
    rows = []
    for name in networks:
        network_s = times[name].median / len(stimuli)
        rows.append(
            {
                "network": name,
                "loading_ms": 1000 * loading_s,
                "network_ms": 1000 * network_s,
                "network_share": network_s / (loading_s + network_s),
                "seconds": IMAGES * (loading_s + network_s),
                "spread": max(times[name].spread, times["loading"].spread),
                "null": times.null,
            }
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def answer(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch)


def png_copies(folder: Path) -> Path:
    """The stored stimuli as PNG, as they are published."""
    source = data_folder("images") / "cue_conflict"
    for path in list_images(source):
        copy = (folder / path.relative_to(source)).with_suffix(".png")
        copy.parent.mkdir(exist_ok=True)
        open_image(path).save(copy)
    return folder
