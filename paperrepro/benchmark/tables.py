"""The latencies of the papers' tables, measured here: each table's networks against each other.

Milliseconds of another processor cannot be compared, ratios inside one interleaved run can. What a
row of a table is, `data/claims` says: a network of ours with its options, or a peer by its twin in
timm or torchvision (`peers.TWINS`), at the row's own size: FasterNet's and MobileOne's MobileViTs
see 256 pixels. All run as they are run: branches merged, BatchNorms folded, batch 1, eager, NCHW.
"""

import re
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from ..claims import load_claims
from ..models import build_model
from ..networks import build_peer
from .latency import compare
from .models import as_run
from .peers import TWINS

# By the claim of the network that the others are held against, the claims of its table.
TABLES = {
    "fasternet-t3-fasternet_t0-latency_cpu": r"fasternet-t3-.*-latency_cpu",
    "fasternet-t5-fasternet_t0_w_bn-latency_cpu": r"fasternet-t5-fasternet_t0_w_.*-latency_cpu",
    "fasternet-t5-fasternet_t2_w_relu-latency_cpu": r"fasternet-t5-fasternet_t2_w_.*-latency_cpu",
    "fasternet-t9-fasternet_m_split_cat-latency_cpu": r"fasternet-t9-fasternet_m_.*-latency_cpu",
    "fasternet-t9-fasternet_l_split_cat-latency_cpu": r"fasternet-t9-fasternet_l_.*-latency_cpu",
    "mobileone-t8-mobileone_s0-latency_cpu": r"mobileone-t8-.*-latency_cpu",
    "mobilevigv2-t3-mobilevig_b_svga_1_stage-latency_phone": r"mobilevigv2-t3-.*-latency_phone",
}
QUICK = 2
"""How many networks of the first table a quick run times."""


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Times the networks of each of `TABLES`, interleaved.

    Args:
        quick: the first two networks of the first table alone.

    Returns:
        One row per claim: `claim`, the `reference` of its table, `subject` (the paper's name), the
        `network` here and its `size`, the `paper`'s milliseconds, `ms` here, their `spread`,
        `over_reference` (how many times as long as the reference) and the table's `null`.
    """
    claims = load_claims().set_index("id")
    rows = []
    for reference, pattern in list(TABLES.items())[: 1 if quick else None]:
        names = [name for name in claims.index if re.fullmatch(pattern, name)]
        names = [reference, *(name for name in names if name != reference)]
        rows += measure(claims.loc[names], quick=quick, threads=threads, progress=progress)
    return pd.DataFrame(rows)


def measure(claims: pd.DataFrame, *, quick: bool, threads: int, progress: bool) -> list[dict]:
    """The rows of one table; of one network at one size the first."""
    reference = str(claims.index[0])
    calls: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, object]] = {}
    seen = set()
    for name, claim in tqdm(list(claims.iterrows()), reference, disable=not progress, leave=False):
        ours = isinstance(claim["model"], str) and bool(claim["model"])
        network = claim["model"] if ours else TWINS.get(claim["subject"])
        size = 224 if pd.isna(claim["size"]) else int(claim["size"])
        key = network, repr(claim["config"]) if ours else "", size
        if network is None or key in seen or (quick and len(calls) == QUICK):
            continue
        seen.add(key)
        model = build_model(network, **(claim["config"] or {})) if ours else build_peer(network)
        calls[str(name)] = forward(model, size)
        facts[str(name)] = {
            "claim": name,
            "reference": reference,
            "subject": claim["subject"],
            "network": network,
            "size": size,
            "paper": float(claim["paper_value"]),
        }
    timed = compare(calls, rounds=5, threads=threads, progress=reference if progress else None)
    return [
        facts[name]
        | {
            "ms": timing.median * 1e3,
            "spread": timing.spread,
            "over_reference": timing.median / timed[reference].median,
            "null": timed.null,
        }
        for name, timing in timed.timings.items()
    ]


def forward(model: nn.Module, size: int) -> Callable[[], object]:
    """A call of the network, as it is run, with one image."""
    network = as_run(model.eval().requires_grad_(False))
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return torch.inference_mode()(lambda: network(image))
