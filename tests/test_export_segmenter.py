"""A trained segmenter by the command: the class of each pixel, in every format, and mistakes."""

import json

import numpy as np
import pytest
import torch
from conftest import randomize
from shallow import SHALLOW
from test_export_cli import run
from torch.nn.functional import interpolate

from paperrepro import save_model
from paperrepro.dense import build_detector, build_segmenter, save_dense
from paperrepro.dense.predict import palette
from paperrepro.dense.scenes import CLASSES, Scenes
from paperrepro.export import executorch, mac, mil, onnx
from paperrepro.export.coreml import labels_of

BACKBONE, SIDE = "mobileone_s0", 64


def segmenter():
    torch.manual_seed(0)
    options = dict(pyramid=8, width=8, config=SHALLOW[BACKBONE])
    model = randomize(build_segmenter(BACKBONE, "semantic_fpn", len(CLASSES), **options)).eval()
    model.classes = CLASSES
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A segmenter, its file, and a picture with the logits that it gives for it."""
    folder = tmp_path_factory.mktemp("segmenter")
    model = segmenter()
    save_dense(model, folder / "model.safetensors")
    picture = Scenes(1, seed=3)[0][0].float()[None]
    picture = interpolate(picture, (SIDE, SIDE)).round().byte()
    mean, std = (
        torch.tensor(each).reshape(3, 1, 1) for each in (model.input.mean, model.input.std)
    )
    with torch.no_grad():
        logits = model((picture / 255 - mean) / std)
    return folder / "model.safetensors", picture, logits


def test_a_package_gives_the_class_of_each_pixel(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, picture, logits = trained
    result = run("export", file, "--size", SIDE, "--no-verify")
    assert result.exit_code == 0, result.output
    path = tmp_path / "mobileone_s0-semantic_fpn.mlpackage"
    program = mil.load(path)
    assert labels_of(program) == list(CLASSES)
    shown = json.loads(program.metadata["com.apple.coreml.model.preview.params"])
    assert [tuple(bytes.fromhex(color[1:])) for color in shown["colors"]] == palette(len(CLASSES))
    found = program({next(iter(program.inputs)): picture.float()}, "float16")
    assert found.keys() == {"classes"} and found["classes"].shape == (1, SIDE, SIDE)
    assert found["classes"].dtype == torch.int32
    wanted = logits.argmax(1)
    assert len(wanted.unique()) > 2
    assert (found["classes"] == wanted).double().mean() > 0.99
    result = run("verify", path, "--weights", file, "--count", 1)
    assert result.exit_code == 0, result.output

    class StandIn:
        """Our interpreter in the place of Core ML."""

        def predict(self, entry):
            pixels = torch.from_numpy(np.array(entry["image"])).permute(2, 0, 1)[None]
            return {"classes": program(pixels.float(), "float16")["classes"].numpy()}

        def get_compiled_model_path(self):
            return str(path)

    monkeypatch.setattr(mac.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(mac, "load", lambda path, unit: StandIn())
    monkeypatch.setattr(mac, "devices", lambda path, unit: {})
    table = mac.compare_on_mac(path, protocols=False, progress=False)
    assert (table.agreement > 0.99).all() and (table.error < 0.01).all()


@pytest.mark.parametrize("format", ["onnx", "executorch"])
def test_files_of_other_runtimes_give_logits(trained, format, tmp_path):
    if format == "executorch":
        pytest.importorskip("executorch", reason="executorch is not installed")
    file, picture, logits = trained
    path = tmp_path / {"onnx": "net.onnx", "executorch": "net.pte"}[format]
    result = run("export", file, "--size", SIDE, "--format", format, "--out", path)
    assert result.exit_code == 0, result.output
    if format == "onnx":
        import onnx as library

        found = onnx.execute(path.read_bytes(), picture / 255)["logits"]
        (names,) = library.load(path).metadata_props
        assert names.value.splitlines() == list(CLASSES)
    else:
        found = executorch.executed(executorch.load(path), picture / 255)["logits"]
    assert (found - logits).norm() < 1e-5 * logits.norm()


def detector(path):
    model = build_detector(BACKBONE, "ssdlite", 3, size=64, config=SHALLOW[BACKBONE])
    save_dense(model, path)


def test_mistakes_are_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, *_ = trained
    detector(tmp_path / "detector.safetensors")
    for arguments, code, message in (
        ((file, "--weights", file), 2, "leave --weights out"),
        ((file, "--classes", 3), 2, "leave --classes out"),
        ((file, "--features"), 1, "holds a segmenter"),
        ((file, "--size", SIDE, "--labels", "two.txt"), 1, "2 labels for a network of"),
        ((BACKBONE, "--weights", file), 1, "holds mobileone_s0-semantic_fpn"),
        (("detector.safetensors",), 1, "holds a detector"),
        (("none.safetensors",), 2, "none.safetensors does not exist"),
        (("two.txt",), 1, "two.txt"),
    ):
        (tmp_path / "two.txt").write_text("a\nb")
        result = run("export", *arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
        assert not list(tmp_path.rglob("*.mlpackage"))


def test_a_classifiers_file_needs_no_name(tmp_path, monkeypatch):
    from test_coreml import tiny

    monkeypatch.chdir(tmp_path)
    save_model(tiny("fasternet_t0", 5), "model.safetensors")
    result = run("export", "model.safetensors", "--size", SIDE, "--format", "onnx")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "fasternet_t0.onnx").is_file()
