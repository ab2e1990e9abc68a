"""`paperrepro export`, `verify`, `plan` and `verify-networks`: what they print and refuse."""

import csv
import io
import re

import pandas as pd
import pytest
import torch
from test_coreml import images, tiny
from typer.testing import CliRunner

from paperrepro import load_model, save_model
from paperrepro.cli import app
from paperrepro.export import survey
from paperrepro.export.survey import COLUMNS, load_images
from paperrepro.models import list_models
from paperrepro.results import load_result


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.mark.parametrize("command", ["export", "verify", "plan", "verify-networks"])
def test_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"paperrepro {command}" in result.stdout
    assert command in run("--help").stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of five classes, exported with labels by the command; its weights."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(5)))
    save_model(tiny("fasternet_t0", 5), folder / "net.safetensors")
    result = run(
        *("export", "fasternet_t0", "--weights", folder / "net.safetensors", "--size", 64),
        *("--out", folder / "net.mlpackage", "--labels", folder / "labels.txt"),
    )
    assert result.exit_code == 0, result.output
    return folder / "net.mlpackage", folder / "net.safetensors", result.stdout


def test_export_says_what_it_wrote(exported):
    path, _, printed = exported
    assert path.is_dir() and path.with_suffix(".golden.safetensors").is_file()
    facts = dict(re.split(" {2,}", line) for line in printed.splitlines())
    assert facts["package"] == str(path)
    assert facts["converted by"] == "torch.export"
    assert "17 conv" in facts["operations"] and "1 classify" in facts["operations"]
    assert 0 < float(facts["relative error"]) < 0.05


def test_verify_prints_the_report(exported):
    path, weights, _ = exported
    result = run(
        *("verify", path, "--weights", weights, "--count", 2),
        *("--labels", path.with_name("labels.txt")),
    )
    assert result.exit_code == 0, result.output
    facts = dict(re.split(" {2,}", line) for line in result.stdout.splitlines())
    assert facts["images"] == "2"
    assert 0 < float(facts["float32 error"]) <= 1e-5 < float(facts["float16 error"])


def test_verify_refuses_other_weights(exported, tmp_path):
    path, weights, _ = exported
    model = load_model(weights)
    with torch.no_grad():
        model.head.fc.weight[0, 0] += 0.1
    save_model(model, tmp_path / "other.safetensors")
    result = run(
        *("verify", path, "--weights", tmp_path / "other.safetensors", "--count", 1),
        *("--labels", path.with_name("labels.txt")),
    )
    assert result.exit_code == 1
    assert "weight of linear" in result.stderr and "in 1 of 6,400 numbers" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_plan_is_a_table_and_its_sums(exported):
    path, *_ = exported
    result = run("plan", path, "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    macs = sum(int(row["macs"]) for row in rows)
    assert f"macs {macs:,}; parameters " in result.stderr
    assert sum(row["type"] == "conv" for row in rows) == 17


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("export", "mobileone_s9"), 2, "'mobileone_s9'"),
        (("export", "mobileone_s0", "--out", "net"), 2, ".mlpackage"),
        (("export", "mobileone_s0", "--compress", "zip"), 2, "'zip'"),
        (("export", "mobileone_s0", "--weights", "none.pt"), 1, "none.pt"),
        (("export", "mobileone_s0", "--labels", "none.txt"), 1, "none.txt"),
        (("verify", "none.mlpackage"), 1, "none.mlpackage"),
        (("plan", "none.mlpackage"), 1, "none.mlpackage"),
        (("verify-networks", "resnet"), 2, "'resnet'"),
        (("verify-networks", "mobileone_s0", "--images", "."), 1, "holds no image"),
    ],
)
def test_mistakes_are_one_line(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.mlpackage"))


def here(monkeypatch):
    """The survey in this process, on a small network of 64 pixels."""

    class Inline:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, *arguments):
            self.call = lambda: function(*arguments)
            return self

        def result(self):
            return self.call()

    monkeypatch.setattr(survey, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(survey, "SIZE", 64)
    monkeypatch.setattr(survey, "calibrated", lambda name, chosen: tiny(name))


def test_the_table_of_networks(tmp_path, monkeypatch):
    here(monkeypatch)
    result = run("verify-networks", "fasternet_t0", "--count", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    stored = load_result(tmp_path / "export.csv")
    assert stored.provenance["command"] == "paperrepro verify-networks fasternet_t0 --count 2"
    assert stored.provenance["images"] == "2 of datasets.Shapes"
    (row,) = stored.table.to_dict("records")
    assert list(row) == COLUMNS and row["network"] == "fasternet_t0"
    assert 0 < row["float32_error"] <= 1e-5 < row["float16_error"] < 0.05
    assert row["seconds"] > 0 and row["peak_gb"] > 0.1 and row["operations"] > 20


def test_a_network_that_fails_is_told_and_does_not_stop_the_others(tmp_path, monkeypatch):
    here(monkeypatch)
    verify = survey.verify_coreml

    def fails_once(path, model, chosen):
        if model.variant == "fasternet_t0":
            raise ValueError("other weights")
        return verify(path, model, chosen)

    monkeypatch.setattr(survey, "verify_coreml", fails_once)
    result = run("verify-networks", "fasternet_t0", "rapidnet_ti", "--count", 1, "--out", tmp_path)
    assert result.exit_code == 1
    assert "fasternet_t0" in result.stderr
    table = pd.read_csv(tmp_path / "export.csv", comment="#")
    assert list(table["note"].fillna("")) == ["other weights", ""]
    assert table["float32_error"].notna().tolist() == [False, True]


def test_a_survey_takes_all_but_the_largest(monkeypatch):
    here(monkeypatch)
    monkeypatch.setattr(survey, "export_and_verify", lambda name, chosen: {"network": name})
    names = survey.run(count=1, progress=False)["network"].tolist()
    assert names == [name for name in list_models() if name != "replknet_xl"]
    every = survey.run(count=1, largest=True, progress=False)["network"].tolist()
    assert every == list_models()


def test_the_stored_table_verifies_every_network():
    stored = load_result("export")
    assert stored.provenance["command"] == "paperrepro verify-networks --all"
    assert list(stored.table["network"]) == list_models()
    assert stored.table["note"].isna().all()
    assert (stored.table["float32_error"] <= 1e-5).all()
    assert (stored.table["frontend"] == "torch.export").all()


def test_images_of_a_folder(tmp_path):
    from torchvision.io import write_png

    write_png(images(1)[0, :, :50, :40], str(tmp_path / "b.png"))
    write_png(images(1)[0], str(tmp_path / "a.png"))
    found = load_images(tmp_path, 32, 8)
    assert found.shape == (2, 3, 32, 32) and found.dtype == torch.uint8
    assert load_images(None, 48, 3).shape == (3, 3, 48, 48)
    assert torch.equal(load_images(tmp_path, 64, 1), images(1))
