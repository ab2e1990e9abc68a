"""A long benchmark in steps: what was measured stays, and is not measured again."""

import pandas as pd
import pytest

from paperrepro.benchmark.steps import Steps
from paperrepro.results import load_result, save_result


def measuring(steps, names, calls, stop=None):
    for name in names:

        def measure(name=name):
            if name == stop:
                raise KeyboardInterrupt
            calls.append(name)
            return [{"form": form, "ms": len(name) / 3} for form in ("a", "b")]

        steps.take({"network": name}, measure)
    return steps.table


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    path, calls = tmp_path / "new" / "table.csv", []
    with pytest.raises(KeyboardInterrupt):
        measuring(Steps(path, command="a", threads=1), ("one", "three"), calls, stop="three")
    stored = load_result(path)
    assert stored.provenance["unfinished"] == "yes" and len(stored.table) == 2
    again = Steps(path, command="a", threads=1)
    assert again.before == 2
    table = measuring(again, ("one", "three"), calls)
    assert calls == ["one", "three"]
    assert list(table["network"]) == ["one"] * 2 + ["three"] * 2
    assert list(table.columns) == ["network", "form", "ms"]


@pytest.mark.parametrize("facts", [{"command": "b"}, {"threads": 2}, {"unfinished": "no"}])
def test_what_was_measured_otherwise_is_measured_anew(facts, tmp_path):
    path = tmp_path / "table.csv"
    said = {"command": "a", "threads": 1, "unfinished": "yes"} | facts
    save_result(path, pd.DataFrame([{"network": "one"}]), **said)
    assert Steps(path, command="a", threads=1).before == 0


def test_a_finished_or_foreign_file_is_no_beginning(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("", "no,provenance\n1,2\n", "# command: a\nnetwork\none\n"):
        path.write_text(text)
        assert Steps(path, command="a").before == 0
    assert measuring(Steps(), ("one",), []).shape == (2, 3)
