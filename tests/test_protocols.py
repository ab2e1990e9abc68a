"""The papers' two timing protocols: the cases that Swift is held to as well, and the package."""

import json
import re
from pathlib import Path

import pytest
import torch
from scipy.stats import trim_mean

from paperrepro.claims import load_claims
from paperrepro.export import protocols
from paperrepro.export.protocols import PROTOCOLS, TimingProtocol, latency, time_inferences

IOS = Path(protocols.__file__).with_name("ios")
FIXTURE = IOS / "Tests/LatencyProtocolTests/cases.json"
CASES = json.loads(FIXTURE.read_text())["cases"]
SOURCES = {path.relative_to(IOS).as_posix(): path.read_text() for path in IOS.rglob("*.swift")}
PURE = "Sources/LatencyProtocol/LatencyProtocol.swift"


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


def test_swift_has_the_same_protocols():
    constant = r"static let (\w+) = TimingProtocol\(rounds: (\d+), inferences: (\d+), trim: (\w+)\)"
    found = re.findall(constant, SOURCES[PURE])
    assert {
        re.sub("([A-Z])", lambda m: "_" + m[0].lower(), name): TimingProtocol(
            int(rounds), int(inferences), None if trim == "nil" else int(trim)
        )
        for name, rounds, inferences, trim in found
    } == PROTOCOLS


def targets():
    """Of each target of the package: where its folder is, and which other targets it uses."""
    target = r"\.(\w*[tT]arget)\(\s*name: \"(\w+)\"(?:,\s*dependencies: \[(.*)\])?"
    return {
        name: ("Tests" if kind == "testTarget" else "Sources", set(re.findall(r"\w+", used)))
        for kind, name, used in re.findall(target, SOURCES["Package.swift"])
    }


def test_package_names_folders_that_exist():
    folders = {f"{top}/{name}" for name, (top, _) in targets().items()}
    assert folders == {path.rsplit("/", 1)[0] for path in SOURCES if "/" in path}
    assert re.findall(r"\.copy\(\"(.*)\"\)", SOURCES["Package.swift"]) == [FIXTURE.name]


def test_swift_imports_the_targets_that_the_package_declares():
    for name, (top, used) in targets().items():
        sources = [text for path, text in SOURCES.items() if path.startswith(f"{top}/{name}/")]
        imported = set(re.findall(r"^import (\w+)", "".join(sources), re.M))
        assert imported & targets().keys() == used, name


def test_swift_without_core_ml_is_left():
    assert not re.search(r"^import", SOURCES[PURE], re.M)
    for path, source in SOURCES.items():
        if re.search("^import CoreML$", source, re.M):
            assert source.startswith("#if canImport(CoreML)\n"), path
            assert source.count("#endif") == 1 and source.endswith("#endif\n"), path
