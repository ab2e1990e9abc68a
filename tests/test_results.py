"""Results and the protocol of timings."""

import os
import resource
import subprocess
import time
from contextlib import contextmanager

import pandas as pd
import pytest
import torch

from paperrepro.benchmark.latency import all_threads, compare
from paperrepro.files import check_writable, data_folder
from paperrepro.results import checkout, load_result, save_result, surroundings

TABLE = pd.DataFrame({"name": ["a", "b, c"], "ms": [1.5, 2.25], "runs": [3, 4]})


def test_a_result_comes_back_with_its_provenance(tmp_path):
    path = tmp_path / "new" / "result.csv"
    save_result(path, TABLE, command="paperrepro benchmark x", threads=2, note="two\nlines")
    result = load_result(path)
    pd.testing.assert_frame_equal(result.table, TABLE)
    assert result.provenance["command"] == "paperrepro benchmark x"
    assert result.provenance["threads"] == "2"
    assert result.provenance["note"] == "two lines"
    assert {"date", "processor", "torch"} <= result.provenance.keys()
    assert result.provenance["torch"] == torch.__version__
    spent = sum(os.times()[:4]) / 60
    assert float(result.provenance["processor_minutes"]) == pytest.approx(spent, abs=0.06)
    assert [each.name for each in path.parent.iterdir()] == ["result.csv"]


def test_a_result_names_the_commit_of_the_checkout_it_was_measured_with(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    code = tmp_path / "results.py"
    code.write_text("one")
    monkeypatch.setattr("paperrepro.results.__file__", str(code))
    assert checkout() == {}
    git("init")
    git("commit", "-m", "somebody's repository", "--allow-empty")
    assert checkout() == {}  # an installed library inside it
    git("add", code.name)
    git("commit", "-m", "one")
    assert checkout() == {"commit": git("rev-parse", "HEAD")}
    code.write_text("two")
    assert checkout()["commit"] == git("rev-parse", "HEAD") + "-dirty"
    save_result(tmp_path / "result.csv", TABLE, command="paperrepro benchmark x")
    assert load_result(tmp_path / "result.csv").provenance["commit"] == checkout()["commit"]


@contextmanager
def no_file_beyond(size):
    """Writing more than that many bytes to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_result_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.csv"
    save_result(path, TABLE, command="first")
    before = path.read_bytes()
    with no_file_beyond(10_000), pytest.raises(OSError, match="result.csv.*--out"):
        save_result(path, pd.concat([TABLE] * 10_000), command="second")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="--out"):
        check_writable(file / "results")
    with pytest.raises(OSError, match=f"{file}.*--out"):
        save_result(file / "result.csv", TABLE, command="x")


def test_unknown_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'speed'.*depthwise"):
        load_result("speed")
    foreign = tmp_path / "foreign.csv"
    TABLE.to_csv(foreign)
    with pytest.raises(ValueError, match=r"foreign.csv"):
        load_result(foreign)


def test_surroundings_name_the_processor():
    assert "cores" in surroundings()["processor"]


@pytest.mark.parametrize(
    "path", sorted(data_folder("results").glob("*.csv")), ids=lambda path: path.stem
)
def test_stored_results_say_how_they_were_measured(path):
    if path.stem == "chapter_costs":
        return  # written by book/execute.py, with its own columns
    result = load_result(path)
    assert result.provenance.keys() >= {"command", "date", "processor", "torch"}
    assert "--quick" not in result.provenance["command"]
    assert len(result.table)
    assert not result.table.drop(columns="note", errors="ignore").isna().all().any()


# The protocol.


def test_compare_tells_fast_from_slow_and_calls_in_turn():
    calls = []
    candidates = {
        "fast": lambda: calls.append("fast"),
        "slow": lambda: (calls.append("slow"), time.sleep(0.01)),
    }
    found = compare(candidates, rounds=6, min_seconds=0)
    assert found.speed_up("fast", over="slow") > 10
    assert [len(timing.seconds) for timing in found.timings.values()] == [6, 6]
    # Two calls of each to warm up; then rounds of fast, slow and fast again, in changing orders.
    assert calls[:6] == ["fast", "fast", "slow", "slow", "fast", "fast"]
    rounds = [tuple(calls[i : i + 3]) for i in range(6, 24, 3)]
    assert {tuple(sorted(each)) for each in rounds} == {("fast", "fast", "slow")}
    assert len(set(rounds)) > 1


def test_compare_repeats_a_fast_function_until_it_can_be_measured():
    calls = []
    compare({"f": lambda: (calls.append(0), time.sleep(0.001))}, rounds=1, min_seconds=0.02)
    assert len(calls) > 20


def test_compare_sets_threads_and_sets_them_back():
    before, seen = torch.get_num_threads(), set()
    compare({"f": lambda: seen.add(torch.get_num_threads())}, rounds=1, threads=3)
    assert seen == {3}
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        compare({"f": lambda: 1 / 0}, threads=before + 1)
    assert torch.get_num_threads() == before


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="0 candidates"):
        compare({})
    with pytest.raises(ValueError, match="0 rounds"):
        compare({"f": int}, rounds=0)
    assert all_threads() >= 1
