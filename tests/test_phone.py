"""A table of measurements from phones: what is refused, what is remarked, what stands beside it."""

import ast
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from paperrepro import export
from paperrepro.cli import app
from paperrepro.export import beside_papers, read_report
from paperrepro.export.phone import COLUMNS

SAMPLE = Path(__file__).with_name("phone_sample.csv")
SWIFT = Path(__file__).parents[1] / "paperrepro/export/ios/Sources/BackboneMath"


def test_the_swift_package_writes_these_columns():
    source = (SWIFT / "PhoneMeasurement.swift").read_text()
    declared = re.search(r"let columns = \[(.*?)\]", source, re.S)[1]
    assert tuple(re.findall(r'"(\w+)"', declared)) == COLUMNS


def test_a_latency_stands_beside_the_paper_of_its_protocol():
    beside = beside_papers(read_report(SAMPLE))
    s0, _, ti = beside.to_dict("records")
    assert (s0["paper"], s0["protocol"], s0["paper_ms"], s0["ms"]) == (
        *("mobileone", "minimum", 0.79, 0.8),
    )
    assert (ti["paper"], ti["protocol"], ti["paper_ms"], ti["ms"]) == (
        *("rapidnet", "trimmed_mean", 0.9, 1.25),
    )
    assert ti["ratio"] == pytest.approx(1.25 / 0.9)


def test_what_a_reader_must_know_is_remarked():
    cool, _, warm, foreign = read_report(SAMPLE)["remark"]
    assert "warm" not in cool and "serious" in warm
    assert "1.5" in foreign and "papers" in foreign


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("p50_ms", value) for value in ("nan", "inf", "-1", "0", "", "fast", "2,5")),
        ("compute_units", "npu"),
        ("thermal_after", "hot"),
        ("date", "21.11.2026"),
        ("p95_ms", "0.9"),  # below p50
        ("minimum_ms", "800"),  # microseconds
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(tmp_path, column, value):
    table = pd.read_csv(SAMPLE, dtype=str)
    table.loc[1, column] = value
    if column == "p95_ms":
        table.loc[1, "p50_ms"] = "1.0"
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ValueError, match=f"bad.csv, line 3: {column if value != '0.9' else ''}"):
        read_report(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "missing columns"),
        (",".join(COLUMNS), "no measurement"),
        (",".join(COLUMNS[1:]) + "\n1", "network"),
        (",".join((*COLUMNS, "note")) + "\n1", "note"),
        (",".join(COLUMNS) + "\na,b", "line 2"),
        (",".join(COLUMNS) + "\n" + "1," * 20, "line 2"),
        ("\xff\xfe\x00", "comma-separated"),
    ],
)
def test_another_file_is_refused(tmp_path, content, named):
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=named):
        read_report(path)


def test_the_command_prints_both_tables_and_draws(tmp_path):
    out = tmp_path / "phone.svg"
    result = CliRunner().invoke(app, ["phone-report", str(SAMPLE), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "0.79" in result.stdout and "invented" in result.stdout
    assert out.stat().st_size > 1000 and out.with_suffix(".json").exists()
    # matplotlib writes a text's content as a comment beside its outlines.
    assert "INVENTED" in out.read_text()


def test_the_command_names_a_missing_file():
    result = CliRunner().invoke(app, ["phone-report", "nowhere.csv"])
    assert result.exit_code == 1
    assert "nowhere.csv" in result.stderr and "Traceback" not in result.output


def test_importing_export_needs_no_extra():
    """Who installs the extra `export` has no matplotlib: a top-level import of it stopped all."""
    installed = {*sys.stdlib_module_names, "annotated_types", "paperrepro"}
    installed |= set("numpy pandas PIL pydantic safetensors torch torchvision tqdm typer".split())
    for path in Path(export.__file__).parent.glob("*.py"):
        if path.stem in ("picture", "coreai"):  # imported where they are called
            continue
        for line in ast.parse(path.read_text()).body:
            names = [alias.name for alias in line.names] if isinstance(line, ast.Import) else []
            if isinstance(line, ast.ImportFrom) and not line.level:
                names = [line.module]
            assert {name.partition(".")[0] for name in names} <= installed, path.name
