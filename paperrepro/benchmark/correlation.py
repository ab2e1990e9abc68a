"""Do parameters or multiply-adds tell the time? MobileOne's Table 1a, on its data and on ours.

Spearman's coefficient is the correlation of the ranks: 1 where one quantity orders the networks as
the other does, 0 where it says nothing. The p-value is the chance of a coefficient at least as far
from 0 if there were no relation at all.

    >>> from paperrepro.benchmark import correlation
    >>> correlation.run()

Table 1a's p-values belong to 21 or 22 networks. The paper's Table 8 lists 21 besides MobileOne, but
they give other coefficients than Table 1a prints; and so does every choice of 21 or 22 of all its
26 networks. The order and the verdicts are the same: on a phone multiply-adds tell something, on a
CPU neither count tells anything.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from ..claims import load_claims
from ..complexity import count_moved
from ..networks import find_network
from ..results import load_result
from .models import PEERS, SIZE, merged

COUNTS = ("macs", "params")

# Coefficient and p-value, as MobileOne prints them.
TABLE_1A = {
    ("phone", "macs"): (0.47, 0.03),
    ("phone", "params"): (0.30, 0.18),
    ("cpu", "macs"): (0.06, 0.80),
    ("cpu", "params"): (0.07, 0.77),
}


def run() -> pd.DataFrame:
    """Correlate the papers' data, and what `paperrepro benchmark models` measured.

    Returns:
        One row per set of networks, device and count: the number `n` of networks, Spearman's
        coefficient `rho` and its `p_value`; and Table 1a's two numbers where they belong.

    Raises:
        FileNotFoundError: there is no measured result `models`.
        ValueError: scipy is missing.
    """
    table8, measured = quoted("mobileone", "Table 8"), latencies()
    peers = {
        name: place[1]
        for name, place in PEERS.items()
        if name in measured.index and place and place[0] == "mobileone"
    }
    sets = {
        "MobileOne's Table 8, its peers": table8[~table8.index.str.startswith("MobileOne")],
        "MobileOne's Table 8, all": table8,
        "FasterNet's Table 3": quoted("fasternet", "Table 3"),
        "MobileOne's Table 8, peers measured here": table8.loc[list(peers.values())],
        "measured, MobileOne's peers": measured.loc[list(peers)],
        "measured, all": measured,
    }
    rows = []
    for networks, table in sets.items():
        for device in [name for name in ("phone", "arm", "cpu") if f"latency_{name}" in table]:
            for count in COUNTS:
                row: dict[str, object] = {
                    "networks": networks,
                    "device": device,
                    "count": count,
                }
                row |= correlate(table, f"latency_{device}", count)
                if networks == next(iter(sets)):
                    row["paper_rho"], row["paper_p_value"] = TABLE_1A[device, count]
                rows.append(row)
    return pd.DataFrame(rows)


def correlate(table: pd.DataFrame, latency: str, count: str) -> dict[str, float]:
    """Spearman's coefficient of two columns over the rows that have both.

    Raises:
        ValueError: scipy, which the library itself does without, is missing.
    """
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise ValueError('scipy not installed: pip install "paperrepro[book]"') from error
    pairs = table[[latency, count]].dropna()
    test = spearmanr(pairs[latency], pairs[count])
    return {"n": len(pairs), "rho": test.statistic, "p_value": test.pvalue}


def miss(table: pd.DataFrame, latency: str, counts: Sequence[str]) -> float:
    """The typical factor by which counts miss the time of a network that was not looked at.

    A rank correlation over networks of all sizes is high because large ones are slow. This one
    takes the size away: log(latency) = a + sum_i b_i log(count_i) by least squares, fitted without
    the network whose time it predicts, for each in turn. The factor is exp of the root mean square
    of the errors: 1 is perfect, 2 is half or double.

    Args:
        counts: columns of the table. Of no count at all, the others' mean predicts each network.

    Raises:
        ValueError: too few rows for so many counts.
    """
    rows = table[[latency, *counts]].dropna()
    if len(rows) < len(counts) + 3:
        raise ValueError(f"{len(rows)} networks are too few for {len(counts)} counts")
    logs = np.log(rows.to_numpy(float))
    known = np.column_stack([np.ones(len(rows)), logs[:, 1:]])
    hat = known @ np.linalg.pinv(known)
    left_out = (logs[:, 0] - hat @ logs[:, 0]) / (1 - np.diag(hat))
    return float(np.exp(np.sqrt((left_out**2).mean())))


def wrong_pairs(
    table: pd.DataFrame,
    latency: str,
    counts: Sequence[str],
    like: str = "macs",
    within: float = 1.5,
) -> dict[str, float]:
    """Of networks about as large, how often the one with the smaller count is the slower one.

    Args:
        counts: columns of the table that are asked.
        like: the column in which two networks are about as large.
        within: by less than this factor.

    Returns:
        The number of `pairs`, and for each count the share of them that it orders wrongly; a coin
        has one half.
    """
    columns = list(dict.fromkeys([latency, like, *counts]))
    rows = table[columns].dropna().to_dict("records")
    pairs = [
        (one, other)
        for one, other in combinations(rows, 2)
        if 1 / within < one[like] / other[like] < within
    ]
    found: dict[str, float] = {"pairs": len(pairs)}
    for count in counts:
        wrong = [(a[count] - b[count]) * (a[latency] - b[latency]) < 0 for a, b in pairs]
        found[count] = float(np.mean(wrong))
    return found


def quoted(paper: str, item: str) -> pd.DataFrame:
    """A paper's table of networks as numbers: subjects as rows, quantities as columns."""
    claims = load_claims(paper)
    table = claims[claims["item"] == item]
    return table.pivot(index="subject", columns="quantity", values="paper_value").astype(float)


def latencies() -> pd.DataFrame:
    """Of each measured network, as it is run (fused, NCHW, batch 1): milliseconds and counts."""
    table = load_result("models").table
    as_run = table[
        (table["form"] == "fused") & (table["memory_format"] == "nchw") & (table["batch"] == 1)
    ]
    return as_run.set_index("model").rename(columns={"ms": "latency_cpu"})


def numbers_moved(names: Sequence[str]) -> pd.Series:
    """Of each network, as it is run, the numbers that it reads and writes for one image.

    Counted from shapes alone (`complexity.count_moved`), with the branches merged.

    Args:
        names: of networks registered here, in timm or in torchvision.
    """
    with torch.device("meta"):
        counts = {name: count_moved(merged(find_network(name).model), SIZE) for name in names}
    return pd.Series(counts, name="moved")
