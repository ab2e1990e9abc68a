"""Rank correlation: known answers, MobileOne's own data, and what Table 1a can and cannot be."""

import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, t

from paperrepro.benchmark import correlation
from paperrepro.benchmark.correlation import TABLE_1A, correlate, quoted
from paperrepro.results import Result, load_result


def measured(**columns):
    count = len(columns["ms"])
    table = {"model": [f"m{i}" for i in range(count)], "form": "fused", "memory_format": "nchw"}
    return Result(pd.DataFrame(table | {"batch": 1} | columns), {})


@pytest.fixture
def stored(monkeypatch):
    """What takes the place of the measured result."""

    def store(result):
        monkeypatch.setattr(correlation, "load_result", lambda name: {"models": result}[name])

    return store


@pytest.mark.parametrize(
    "latency, rho",
    [
        ([1, 2, 3, 4], 1),
        ([4, 30, 200, 1000], 1),  # ranks only
        ([4, 3, 2, 1], -1),
        ([9, 2, 4, 5], -0.2),  # rank differences 3, 1, 1, 1: 1 - 6 * 12 / (4 * 15)
        ([1, 1, 2, 2], 4 / 20**0.5),  # ties share the mean of their ranks
    ],
)
def test_known_coefficients(latency, rho):
    table = pd.DataFrame({"latency_cpu": latency, "macs": [50, 100, 300, 900]})
    assert correlate(table, "latency_cpu", "macs")["rho"] == pytest.approx(rho)


def test_p_value_is_that_of_students_t():
    table = pd.DataFrame({"latency_cpu": [9, 2, 4, 5], "macs": [50, 100, 300, 900]})
    statistic = 0.2 * (2 / (1 - 0.2**2)) ** 0.5
    assert correlate(table, "latency_cpu", "macs")["p_value"] == pytest.approx(
        2 * t.sf(statistic, df=2)
    )


def test_networks_without_a_latency_are_left_out():
    table = pd.DataFrame({"latency_arm": [3, None, 1, 2], "macs": [30, 1, 10, 20]})
    assert correlate(table, "latency_arm", "macs") == {"n": 3, "rho": 1, "p_value": 0}
    assert quoted("fasternet", "Table 3")["latency_arm"].isna().sum() == 4  # out of memory


def test_the_papers_own_data_exactly(stored):
    stored(measured(ms=[1.0, 2, 3], macs=[1, 2, 3], params=[3, 2, 1]))
    table = correlation.run().set_index(["networks", "device", "count"])
    peers = table.loc["MobileOne's Table 8, its peers"].round(4)
    assert set(peers["n"]) == {21}
    assert peers[["rho", "p_value"]].to_dict("index") == {
        ("phone", "macs"): {"rho": 0.4532, "p_value": 0.0391},
        ("phone", "params"): {"rho": 0.3951, "p_value": 0.0763},
        ("cpu", "macs"): {"rho": 0.0714, "p_value": 0.7583},
        ("cpu", "params"): {"rho": 0.0884, "p_value": 0.7033},
    }
    for key, (rho, p_value) in TABLE_1A.items():
        assert tuple(peers.loc[key, ["paper_rho", "paper_p_value"]]) == (rho, p_value)
        # The same verdict as the paper's at 5 %, though no number is the same.
        assert (peers.loc[key, "p_value"] < 0.05) == (p_value < 0.05)
        assert round(peers.loc[key, "rho"], 2) != rho
    assert set(table[table.index.get_level_values(0) == "MobileOne's Table 8, all"]["n"]) == {26}
    assert table["paper_rho"].notna().sum() == 4


def test_what_was_measured_is_correlated(stored):
    models = ["mobilenetv1_100", "resnet50", "mixnet_s", "deit_tiny_patch16_224"]
    result = measured(ms=[1.0, 9, 2, 3], macs=[10, 90, 20, 30], params=[9, 1, 5, 3])
    result.table["model"] = models
    other = result.table.assign(form="training", ms=[4, 3, 2, 1])
    stored(Result(pd.concat([result.table, other]), {}))
    table = correlation.run().set_index(["networks", "count"])
    theirs = table.xs("MobileOne's Table 8, peers measured here")
    assert set(theirs["n"]) == {3} and set(theirs["device"]) == {"phone", "cpu"}
    assert theirs.query("device == 'cpu'").loc["macs", "rho"] == -0.5  # 10.65, 40.09, 16.68 ms
    for networks, n in (("measured, all", 4), ("measured, MobileOne's peers", 3)):
        assert table.loc[(networks, "macs"), ["n", "rho"]].tolist() == [n, 1]
        assert table.loc[(networks, "params"), ["n", "rho"]].tolist() == [n, -1]
        assert table.loc[(networks, "macs"), "device"] == "cpu"


def test_without_scipy_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ValueError, match=r"scipy.*paperrepro\[book\]"):
        correlate(quoted("mobileone", "Table 8"), "latency_cpu", "macs")


def test_missing_measurement_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("paperrepro.results.data_folder", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match="'models'"):
        correlation.run()


def test_table_1as_p_values_belong_to_21_or_22_networks():
    def p_values(rho, n):
        """The least and the greatest p-value of a coefficient that rounds to `rho`."""
        ends = np.array([rho + 0.005, rho - 0.005])
        return 2 * t.sf(ends * np.sqrt((n - 2) / (1 - ends**2)), n - 2)

    fitting = []
    for n in range(4, 100):
        ranges = [(p_values(rho, n), p) for rho, p in TABLE_1A.values()]
        if all(low <= p + 0.005 and p - 0.005 <= high for (low, high), p in ranges):
            fitting.append(n)
    assert fitting == [21, 22]


@pytest.mark.parametrize("n", [21, 22])
def test_no_choice_of_table_8s_networks_gives_table_1a(n):
    pairs = [(f"latency_{device}", count) for device, count in TABLE_1A]
    columns = ["latency_phone", "latency_cpu", "macs", "params"]
    values = quoted("mobileone", "Table 8")[columns].to_numpy()
    chosen = np.array(list(combinations(range(len(values)), n)))
    ranks = rankdata(values[chosen], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    printed = [rho for rho, _ in TABLE_1A.values()]
    found = np.stack(
        [
            (ranks[..., columns.index(a)] * ranks[..., columns.index(b)]).sum(axis=1)
            for a, b in pairs
        ],
        axis=1,
    )
    distance = np.abs(found - printed).max(axis=1)
    assert distance.min() > 0.006  # not even the nearest rounds to all four


def test_stored_measurement_has_the_papers_networks():
    table = correlation.run().set_index(["networks", "count"])
    stored = load_result("models").table
    assert table.loc[("measured, all", "macs"), "n"] == stored["model"].nunique()
    assert table.loc[("measured, MobileOne's peers", "macs"), "n"] == 17


def test_a_power_law_misses_nothing_and_a_network_off_it_is_missed_by_its_factor():
    macs = np.array([50.0, 100, 300, 900, 2000])
    table = pd.DataFrame({"latency_cpu": 3 * macs**0.7, "macs": macs})
    assert correlation.miss(table, "latency_cpu", ["macs"]) == pytest.approx(1)
    level = pd.DataFrame({"latency_cpu": [2.0, 2, 2, 2, 8]})
    # each 2 is predicted by the mean of 2, 2, 2, 8 (a factor of sqrt 2), the 8 by 2
    logs = [np.log(2**0.5)] * 4 + [np.log(4)]
    assert correlation.miss(level, "latency_cpu", []) == pytest.approx(
        np.exp(np.sqrt(np.mean(np.square(logs))))
    )
    with pytest.raises(ValueError, match="3 networks are too few for 1 counts"):
        correlation.miss(table[:3], "latency_cpu", ["macs"])


def test_pairs_of_like_networks_that_a_count_orders_wrongly():
    table = pd.DataFrame(
        {"latency_cpu": [3, 2, 9, 1], "macs": [100, 120, 160, 900], "moved": [8, 7, 9, 1]}
    )
    found = correlation.wrong_pairs(table, "latency_cpu", ["macs", "moved"])
    assert found == {"pairs": 2, "macs": 0.5, "moved": 0}
