"""Other people's networks: what was counted is what the libraries have."""

import re

import pytest

from paperrepro.benchmark import peers
from paperrepro.claims.judged import COUNTS
from paperrepro.results import load_result

timm = pytest.importorskip("timm")
COUNTED = load_result("peers").table


def test_every_quoted_peer_with_a_twin_is_counted():
    sizes = peers.quoted_sizes()
    expected = sizes[sizes["subject"].isin(peers.TWINS)]
    assert set(COUNTED["claim"]) == set(expected["id"])
    assert set(peers.TWINS) == set(expected["subject"]), "a twin of no subject"
    for row in COUNTED.itertuples():
        assert re.sub(r"\d+", "N", row.agrees) in COUNTS


@pytest.mark.parametrize("twin", ["repvgg_a0", "mobilenetv2_100", "deit_tiny_patch16_224"])
def test_a_count_of_today_is_the_stored_one(twin):
    of = COUNTED[(COUNTED["twin"] == twin) & (COUNTED["size"] == 224)]
    for row in of.itertuples():
        plain, as_run = peers.count(twin, 224)[row.quantity]
        unit = {"M": 1e6, "G": 1e9}[row.unit]
        assert row.ours == pytest.approx(plain / unit, rel=2e-2, abs=6e-4)
        assert row.ours_as_run == pytest.approx(as_run / unit, rel=2e-2, abs=6e-4)


def test_what_merging_explains():
    """RepVGG's authors print the network as it is run."""
    of = COUNTED[COUNTED["twin"].str.startswith("repvgg")].set_index("subject")
    assert (of["agrees"] == "as run").all()
