"""ONNX and ExecuTorch: executed by their own runtimes; maps, grey pictures; what nobody writes."""

import pytest
import safetensors.torch
import torch
from test_coreml import LABELS, SIZE, images, normalized, tiny
from torch import nn
from typer.testing import CliRunner

from paperrepro import create_model, export, save_model
from paperrepro.cli import app
from paperrepro.export import calibrate, executorch, export_coreml, network, onnx, verify_coreml
from paperrepro.export.watch import VerificationError
from paperrepro.models.backbone import FeatureExtractor

FORMATS = {
    "onnx": ("net.onnx", export.export_onnx),
    "executorch": ("net.pte", export.export_executorch),
}


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    """A function that exports to one of the formats."""
    if request.param == "executorch":
        pytest.importorskip("executorch", reason="executorch is not installed")
    name, function = FORMATS[request.param]
    return lambda model, **options: function(model, tmp_path / name, **({"size": SIZE} | options))


def run_file(path, batch):
    """The outputs of a file for images of 0 to 1, by its runtime."""
    if path.suffix == ".onnx":
        return onnx.execute(path.read_bytes(), batch)["logits"]
    return executorch.executed(executorch.load(path), batch)["logits"]


def test_the_file_is_the_network(write):
    model = tiny("mobilevigv2_ti")
    report = write(model, labels=LABELS)
    assert 0 < report.error < 1e-5
    assert report.format in ("onnx, opset 18", "executorch, 1 delegate")
    assert report.golden.stat().st_mode == report.path.stat().st_mode, "as readable as the file"
    golden = safetensors.torch.load_file(report.golden)
    batch = torch.cat([golden["image"], images(2)])
    with torch.no_grad():
        expected = model(normalized(batch))
    assert torch.allclose(golden["logits"], expected[:1], atol=1e-4)
    assert torch.allclose(run_file(report.path, batch / 255), expected, atol=1e-4)


def test_what_another_number_of_threads_has_ended_refuses_to_run(tmp_path):
    """XNNPACK would compute with threads that are gone: other numbers, or a crash."""
    pytest.importorskip("executorch", reason="executorch is not installed")
    path = export.export_executorch(tiny("fasternet_t0"), tmp_path / "net.pte", size=SIZE).path
    image = images(1) / 255
    two = executorch.load(path, threads=2)
    (expected,) = two(image)
    one = executorch.load(path, threads=1)
    with pytest.raises(ValueError, match="loaded for 2 threads.*load it again"):
        two(image)
    for run in (one, executorch.load(path, threads=1)):
        assert torch.allclose(run(image)[0], expected, atol=1e-5)


def test_eight_bits_are_close_and_smaller(write):
    report = write(tiny("fasternet_t0"), quantize="int8", images=images(8))
    assert 1e-3 < report.error < 0.3
    plain = write(tiny("fasternet_t0"), overwrite=True)
    assert report.stored_bytes < plain.stored_bytes / 2


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"quantize": "int8"}, {"labels": ["a"]}])
def test_arguments_that_cannot_be(write, options, tmp_path):
    with pytest.raises(ValueError, match="int4|images=|1 labels"):
        write(tiny("fasternet_t0"), **options)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(write, tmp_path):
    model = tiny("fasternet_t0")
    with torch.no_grad():
        model.head.fc.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="head.fc.weight"):
        write(model)
    with pytest.raises(ValueError, match="head.fc.weight"):
        export_coreml(model, tmp_path / "net.mlpackage", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_a_second_export_to_one_place_is_refused(write, tmp_path):
    """While the first is at work; what a killed one left is removed."""
    model = tiny("fasternet_t0")
    first = write(model)
    for each in tmp_path.iterdir():
        each.unlink()
    killed = tmp_path / f".{first.path.name}.{2**22 + 1}.partial"  # beyond any process's number
    killed.mkdir()
    with network.writing(first.path, first.path.suffix, False):
        running = next(each for each in tmp_path.iterdir() if each != killed)
        running.rename(tmp_path / f".{first.path.name}.1.partial")
        with pytest.raises(FileExistsError, match="another process is writing .*net"):
            write(model)
        (tmp_path / f".{first.path.name}.1.partial").rmdir()
    assert not list(tmp_path.iterdir())


def test_a_fresh_network_overflows_until_it_is_calibrated(tmp_path):
    torch.manual_seed(0)
    model = create_model("mobileone_s0", widths=(0.25,) * 4, blocks=(2, 4, 4, 1), k=4)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.mul_(4)  # what a deeper one does of itself
    path = tmp_path / "net.mlpackage"
    with pytest.raises(VerificationError, match="leaves the range of float16.*calibrate"):
        export_coreml(model, path, size=SIZE)
    assert not list(tmp_path.iterdir())
    calibrate(model, images(4))
    report = export_coreml(model, path, size=SIZE)
    assert report.error < 0.05 and 0 < report.peak < 65504


def test_maps_of_the_stages(tmp_path):
    model = FeatureExtractor(tiny("fasternet_t0"), (1, 3))
    path = tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=SIZE)
    assert report.error < 0.05
    found = verify_coreml(path, model, images(1))
    assert found.float32_error <= 1e-5 and found.agreement is None and found.margin is None
    file = export.export_onnx(model, tmp_path / "net.onnx", size=SIZE)
    outputs = onnx.execute(file.path.read_bytes(), images(2) / 255)
    assert [tuple(each.shape) for each in outputs.values()] == [(2, 32, 8, 8), (2, 128, 2, 2)]


class Segmenter(nn.Module):
    """Grey pictures to a map of three classes, as large as they are."""

    in_chans = 1

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_a_map_of_classes_from_a_grey_picture(tmp_path):
    model, path = Segmenter(), tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=16, normalize=((0.5,), (0.25,)))
    golden = safetensors.torch.load_file(report.golden)
    assert golden["image"].shape == (1, 1, 16, 16) and golden["logits"].shape == (1, 3, 16, 16)
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    found = verify_coreml(path, model, grey, normalize=((0.5,), (0.25,)))
    assert found.float32_error <= 1e-5 and 0.9 < found.agreement <= 1
    other = Segmenter()
    with pytest.raises(VerificationError, match=" of conv"):
        verify_coreml(path, other, grey, normalize=((0.5,), (0.25,)))
    assert export_coreml(model, path, size=16, overwrite=True).error < 0.01, "ImageNet's mean"


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny("fasternet_t0")
    model.classes = tuple(LABELS)
    save_model(model, "net.safetensors")
    common = ("fasternet_t0", "--weights", "net.safetensors", "--size", SIZE)
    result = run("export", *common, "--format", "onnx")
    assert result.exit_code == 0, result.output
    assert "onnx, opset 18" in result.stdout and (tmp_path / "fasternet_t0.onnx").is_file()
    refused = run("export", *common, "--format", "onnx", "--target", "iOS18")
    assert refused.exit_code == 2 and "--target is for Core ML" in refused.stderr


@pytest.mark.parametrize(
    "module, name, function, extra",
    [
        (onnx, "net.onnx", export.export_onnx, "runtimes"),
        (executorch, "net.pte", export.export_executorch, "executorch"),
    ],
)
def test_a_missing_library_is_named(module, name, function, extra, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"not installed: pip install .paperrepro\[{extra}\]"):
        function(tiny("fasternet_t0"), tmp_path / name)
