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

import pandas as pd

from ..claims import load_claims
from ..results import load_result
from .models import PEERS

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
