"""The command line: what it prints, in which form, and how it refuses."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import paperrepro
from paperrepro import list_models
from paperrepro.claims.judged import judged_claims
from paperrepro.claims.table import COLUMNS, LADDER, MODES, PAPERS, claims_folder
from paperrepro.cli import app


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def output(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    return result.stdout


@pytest.mark.slow
def test_models_lists_all_thirty():
    rows = list(csv.DictReader(io.StringIO(output("models", "--format", "csv"))))
    assert [row["name"] for row in rows] == list_models()
    assert len(rows) == 30


def test_models_of_a_family():
    lines = output("models", "--family", "rapidnet").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == "name params params_fused macs macs_fused paper_top1".split()
    assert (
        lines[1].split() == "rapidnet_ti 6,627,840 6,073,880 617,469,312 616,957,312 76.3".split()
    )


def test_models_as_json():
    rows = json.loads(output("models", "--family", "rapidnet", "--format", "json"))
    assert rows[0]["params"] == 6627840
    assert rows[3]["paper_top1"] == 82.8


def test_models_as_markdown():
    lines = output("models", "--family", "rapidnet", "--format", "markdown").splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- | --- |"
    assert lines[5].startswith("| rapidnet_b | 30,556,496 |")


def test_info():
    text = output("info", "replknet_31b")
    assert "training parameters             79,864,168\n" in text
    assert "Scaling Up Your Kernels to 31x31" in text
    assert "stage 3  512 x 14 x 14      18  54,475,264" in text
    assert "kernels         31,29,27,13" in text
    reasons = judged_claims("replknet").set_index("id")["why"]
    assert reasons["replknet-t5-replknet_31-params"] in " ".join(text.split())
    assert "Claims\nitem" in text


@pytest.mark.parametrize("family", ["mobileone", "fasternet", "mobilevig", "mobilevigv2"])
def test_info_of_every_family(family):
    name = list_models(family)[0]
    text = output("info", name)
    for section in ("Size", "Stages", "Layers", "Configuration", "Claims"):
        assert f"\n{section}\n" in text


def test_stages_add_up_to_the_network():
    text = output("info", "fasternet_t0")
    stages = text.split("\nStages\n")[1].split("\n\n")[0].splitlines()[1:]
    params, macs = (
        sum(int(line.split()[column].replace(",", "")) for line in stages) for column in (-2, -1)
    )
    assert (f"{params:,}", f"{macs:,}") == ("3,905,500", "335,422,720")
    assert f"training parameters             {params:,}\n" in text
    assert f"multiply-adds                   {macs:,}\n" in text


def test_info_at_another_size():
    assert "stage 4  320 x 8 x 8 " in output("info", "fasternet_t0", "--size", 256)


def test_claims_as_table():
    lines = output("claims", "--paper", "replknet", "--verdict", "differs").splitlines()
    assert len(lines) == 1 + 12
    expected = "replknet Table 5 RepLKNet-31 params M 79.3 79.439 differs".split()
    assert expected in [line.split() for line in lines[1:]]


def test_claims_as_csv_are_the_files_and_the_verdict():
    printed = list(csv.DictReader(io.StringIO(output("claims", "--format", "csv"))))
    stored = []
    for path in sorted(claims_folder().glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            stored += csv.DictReader(file)
    assert [row["verdict"] for row in printed] == list(judged_claims()["verdict"])
    assert [{column: row[column] for column in COLUMNS} for row in printed] == stored


def test_claims_as_json():
    claims = json.loads(output("claims", "--model", "rapidnet_b", "--format", "json"))
    params = next(claim for claim in claims if claim["id"] == "rapidnet-t2-rapidnet_b-params")
    assert (params["paper_value"], params["ours"], params["size"]) == (30.5, 30.556, 224)
    assert params["config"] == {}
    assert {claim["model"] for claim in claims} == {"rapidnet_b"}


def test_claims_of_a_model_include_those_of_its_family():
    claims = json.loads(output("claims", "--model", "fasternet_s", "--format", "json"))
    assert {claim["model"] for claim in claims} == {"fasternet_s", "fasternet_*"}


def test_no_claims_left_over():
    arguments = "claims", "--paper", "rapidnet", "--mode", "small", "--model", "rapidnet_s"
    assert output(*arguments).split() == (
        "paper item subject quantity unit paper_value ours verdict".split()
    )
    assert json.loads(output(*arguments, "--format", "json")) == []


def test_claims_update(tmp_path, monkeypatch):
    source = (claims_folder() / "fasternet.csv").read_text(encoding="utf-8")
    path = tmp_path / "fasternet.csv"
    path.write_text(source.replace("31.140", "31.141", 1), encoding="utf-8")
    monkeypatch.setattr("paperrepro.claims.table.claims_folder", lambda: tmp_path)
    monkeypatch.setattr("paperrepro.claims.reproduce.claims_folder", lambda: tmp_path)
    result = run("claims", "--update", "--verdict", "differs")
    assert result.exit_code == 0
    assert "fasternet-t3-fasternet_s-params" in result.stderr
    assert path.read_text(encoding="utf-8") == source


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["info", "replknet_31c"], ["'replknet_31c'", "replknet_31b"]),
        (["claims", "--model", "rapidnet-s"], ["'rapidnet-s'", "rapidnet_s"]),
        (["info", "rapidnet_ti", "--size", "16"], ["16", "32"]),
        (["models", "--family", "resnet"], ["'resnet'", "mobileone", "rapidnet"]),
        (["claims", "--paper", "resnet"], ["'resnet'", *PAPERS]),
        (["claims", "--mode", "guess"], ["'guess'", *MODES]),
        (["claims", "--verdict", "wrong"], ["'wrong'", *LADDER]),
    ],
)
def test_bad_argument_is_one_line(arguments, fragments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for fragment in fragments:
        assert fragment in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["models", "--format", "xml"], "xml"),
        (["info", "fasternet_t0", "--size", "big"], "--size"),
        (["info"], "NAME"),
        (["modles"], "modles"),
    ],
)
def test_bad_usage(arguments, fragment):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert fragment.lower() in result.stderr.lower()
    assert "Traceback" not in result.stderr


def test_bad_file_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "bad.csv").write_text("id,value\n", encoding="utf-8")
    monkeypatch.setattr("paperrepro.claims.table.claims_folder", lambda: tmp_path)
    for arguments in (["claims"], ["info", "fasternet_t0"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"paperrepro: {tmp_path / 'bad.csv'}:1: ")
        assert len(result.stderr.splitlines()) == 1


def command_paths(group=None, path=()):
    """Every command, as the words that call it: `()`, `("models",)`, `("benchmark", "blocks")`."""
    yield path
    for name, command in getattr(group or get_command(app), "commands", {}).items():
        yield from command_paths(command, (*path, name))


@pytest.mark.parametrize("path", list(command_paths()), ids=" ".join)
def test_examples_in_the_help_are_accepted(path):
    """`--help` at its end lets the command line check an example without running it."""
    for line in re.sub(r"\\\n\s*", "", output(*path, "--help")).splitlines():
        if line.strip().startswith("paperrepro "):
            example, *_ = re.split(r" {2,}| [>|] ", line.strip())
            _, *arguments = shlex.split(example)
            output(*arguments, "--help")


def test_an_example_with_an_unknown_option_would_not_be_accepted():
    assert run("models", "--famly", "rapidnet", "--help").exit_code == 2


def test_help_names_the_subcommands_modes_and_verdicts():
    for path in command_paths():
        if path:
            assert f" {path[-1]} " in output(*path[:-1], "--help")
    text = output("claims", "--help")
    assert all(word in text for word in (*MODES, *LADDER))


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "paperrepro", "claims"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("paper ")
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert error == ""


def test_help_waits_for_no_library():
    """Neither --help nor a table of claims imports PyTorch; --help not even pandas."""
    code = (
        "import sys; from typer.testing import CliRunner; from paperrepro.cli import app\n"
        "for words in (['--help'], ['train', '--help'], ['--version'], ['claims']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        "    print(*[name for name in ('torch', 'torchvision', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "", "", "pandas"]


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "paperrepro", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"paperrepro {paperrepro.__version__}\n"


def test_the_package_imports_torch_with_the_first_name_that_needs_it():
    code = (
        "import sys, paperrepro\n"
        "assert 'torch' not in sys.modules and 'create_model' in dir(paperrepro)\n"
        "assert paperrepro.create_model and 'torch' in sys.modules\n"
        "assert not hasattr(paperrepro, 'create_modle')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
