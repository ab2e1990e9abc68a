"""The papers' two timing protocols, by the cases that the Swift package is held to as well."""

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import trim_mean

from paperrepro.claims import load_claims
from paperrepro.export import protocols
from paperrepro.export.protocols import PROTOCOLS, TimingProtocol, latency, time_inferences

IOS = Path(protocols.__file__).with_name("ios")
FIXTURE = IOS / "Tests/BackboneMathTests/cases.json"
CASES = json.loads(FIXTURE.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case):
    timing = TimingProtocol(**case["timing"])
    if case["latency"] is None:
        with pytest.raises(ValueError):
            latency(case["times"], timing)
    else:
        assert latency(case["times"], timing) == pytest.approx(case["latency"], rel=1e-12)


def test_cases_hold_both_kinds():
    kinds = {(case["timing"]["trim"] is None, case["latency"] is None) for case in CASES}
    assert len(kinds) == 4


def test_trimmed_mean_is_scipys_round_by_round():
    timing = PROTOCOLS["trimmed_mean"]
    times = torch.rand(timing.rounds, timing.inferences).exp().tolist()
    share = timing.trim / timing.inferences
    expected = trim_mean(times, share, axis=1).mean()
    assert latency(times, timing) == pytest.approx(expected, rel=1e-12)
    dropped_rounds = trim_mean([sum(round) / len(round) for round in times], share)
    assert latency(times, timing) != pytest.approx(dropped_rounds, rel=1e-4)


def test_protocols_are_those_of_the_papers():
    given = json.loads(FIXTURE.read_text())["protocols"]
    assert {name: TimingProtocol(**fields) for name, fields in given.items()} == PROTOCOLS
    how = load_claims("mobileone").query("quantity == 'latency_phone'").how
    assert how.str.contains(f"least of {PROTOCOLS['minimum'].inferences} runs").any()


def test_each_round_loads_and_leaves_its_first_inference_untimed():
    now, loads = [0.0], []

    def load():
        durations = iter([100.0] + [len(loads) + 1.0] * 4)
        loads.append(durations)

        def infer():
            now[0] += next(durations)

        return infer

    times = time_inferences(TimingProtocol(3, 4, trim=1), load, clock=lambda: now[0])
    assert times == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert len(loads) == 3
    assert all(next(durations, None) is None for durations in loads)


@pytest.mark.parametrize(
    ("times", "timing", "message"),
    [
        ([[1, 2], [3]], TimingProtocol(2, 2, 0), "1 inferences .*round 2.* 2"),
        ([[1, 2]], TimingProtocol(2, 2, 0), "1 rounds.* 2"),
        ([[1, 2]], TimingProtocol(1, 2, 1), "trim 1 .*2 "),
        ([[1, float("nan")]], TimingProtocol(1, 2, None), "round 1"),
    ],
)
def test_errors_name_what_is_wrong(times, timing, message):
    with pytest.raises(ValueError, match=message):
        latency(times, timing)
