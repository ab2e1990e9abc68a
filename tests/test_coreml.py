"""Export and verification: what is written, what damage is found, what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from conftest import randomize
from coremltools.proto.Model_pb2 import Model
from torch import nn

from paperrepro import create_model, reparameterize
from paperrepro.datasets import Shapes
from paperrepro.export import coreml, export_coreml, mac, mil, survey, verify, verify_coreml
from paperrepro.export.coreai import export_coreai
from paperrepro.export.coreml import labels_of, logits_of
from paperrepro.export.network import golden_path, relative_error, stored_bytes
from paperrepro.export.package import MilError
from paperrepro.export.verify import VerificationError
from paperrepro.models import IMAGENET

GRAPH = {"channels": (8, 16, 24, 32), "local": (1, 1, 1, 1), "embed_dim": 32}
TINY = {
    "mobileone_s4": {
        "widths": (0.25, 0.25, 0.125, 0.125),
        "blocks": (1, 1, 2, 1),
        "se_blocks": (0, 0, 1, 1),
    },
    "fasternet_t0": {"embed_dim": 16, "depths": (1, 1, 1, 1)},
    "replknet_31b": {
        "kernels": (31, 13, 5, 5),
        "channels": (8, 16, 24, 32),
        "depths": (1, 1, 1, 1),
    },
    "mobilevig_ti": GRAPH | {"graphs": (0, 0, 0, 1)},
    "mobilevigv2_ti": GRAPH | {"graphs": (0, 1, 1, 1), "distances": (4, 2, 2, 1)},
    "rapidnet_ti": GRAPH | {"dilated": (0, 0, 1, 1)},
}
SIZE = 64
LABELS = [f"class {i}" for i in range(10)]


def tiny(name, classes=10):
    torch.manual_seed(0)
    return randomize(create_model(name, num_classes=classes, **TINY[name]))


def images(count=2):
    return torch.stack([Shapes(count, SIZE, seed=1)[i][0] for i in range(count)])


def normalized(image):
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in IMAGENET)
    return (image / 255 - mean) / std


@pytest.mark.parametrize("name", TINY)
def test_each_family_is_exported_and_verified(name, tmp_path):
    model = tiny(name)
    path = tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=SIZE)
    assert report.path == path and report.frontend == "torch.export"
    assert report.parameters == sum(p.numel() for p in reparameterize(model).parameters())
    assert report.error < 0.05 and report.compressed == 0
    assert not {"gather", "batch_norm"} & report.operations.keys()
    found = verify_coreml(path, model, images())
    assert 0 < found.float32_error <= 1e-5 < found.float16_error < 0.05
    casts = report.operations["cast"]
    assert found.operations == sum(report.operations.values()) - casts
    assert found.constants > 2 * report.operations["conv"]
    assert 0 < found.peak < 65504 and found.peak_at


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network with strides, groups, concatenations and GELU; its package in either precision."""
    folder = tmp_path_factory.mktemp("saved")
    model = tiny("mobilevigv2_ti")
    for precision in coreml.PRECISIONS:
        export_coreml(model, folder / f"{precision}.mlpackage", size=SIZE, precision=precision)
    return folder, model


# Ways to damage a package: each a function of its protobuf's operations and its weights.


def file_of(path, name="model.mlmodel"):
    return path / "Data/com.apple.CoreML" / name


def constants(operations):
    return {
        each.outputs[0].name: each.attributes["val"] for each in operations if each.type == "const"
    }


def first(operations, kind, suitable=lambda each: True):
    return next(each for each in operations if each.type == kind and suitable(each))


def bound(operations, operation, parameter):
    """The constant that a parameter is bound to."""
    return constants(operations)[operation.inputs[parameter].arguments[0].name]


def ints(value):
    return value.immediateValue.tensor.ints.values


def width(operation):
    return operation.outputs[0].type.tensorType.dimensions[1].constant.size


def kernel(operations, operation):
    weight = bound(operations, operation, "weight").type.tensorType
    return [side.constant.size for side in weight.dimensions]


def stride(operations, weights):
    conv = first(operations, "conv", lambda each: 2 in ints(bound(operations, each, "strides")))
    strides = ints(bound(operations, conv, "strides"))
    strides[0] = strides[1] = 1


def groups(operations, weights):
    conv = first(operations, "conv", lambda each: kernel(operations, each)[1] == 1)
    ints(bound(operations, conv, "groups"))[0] = 2


def dilation(operations, weights):
    """Another dilation with the padding that keeps the shape."""
    conv = first(operations, "conv", lambda each: kernel(operations, each)[2] == 3)
    for parameter, value in (("dilations", 2), ("pad", 2)):
        binding = conv.inputs[parameter].arguments[0]
        original = constants(operations)[binding.name]
        binding.value.CopyFrom(original)
        ints(binding.value)[:] = [value] * len(ints(original))


def concat_axis(operations, weights):
    ints(bound(operations, first(operations, "concat"), "axis"))[0] = 0


def concat_order(operations, weights):
    arguments = first(operations, "concat").inputs["values"].arguments
    names = [each.name for each in arguments]
    for argument, name in zip(arguments, reversed(names), strict=True):
        argument.name = name


def gelu_mode(operations, weights):
    mode = bound(operations, first(operations, "gelu"), "mode")
    mode.immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"


def skipped_operation(operations, weights):
    """A residual sum that takes its other operand twice."""
    total = first(operations, "add")
    total.inputs["y"].arguments[0].name = total.inputs["x"].arguments[0].name


def blob(value, weights):
    """Where the numbers of a constant lie: the offset in the file of weights, and their bytes."""
    header = weights[value.blobFileValue.offset :][:24]
    size, start = np.frombuffer(header[8:24], np.uint64).tolist()
    return start, size


def in_file(operations):
    return [
        value
        for value in constants(operations).values()
        if value.WhichOneof("value") == "blobFileValue"
    ]


def zeroed_weights(operations, weights):
    start, size = blob(max(in_file(operations), key=lambda each: blob(each, weights)[1]), weights)
    weights[start + size // 2 : start + size] = bytes(size - size // 2)


def one_bit(operations, weights):
    """The lowest bit of one weight."""
    start, _ = blob(bound(operations, first(operations, "conv"), "weight"), weights)
    weights[start] ^= 1


def swapped_constants(operations, weights):
    """Two kernels of the same shape change places."""
    kernels = {}
    for each in operations:
        if each.type == "conv":
            kernels.setdefault(tuple(kernel(operations, each)), []).append(
                bound(operations, each, "weight").blobFileValue
            )
    one, other, *_ = next(places for places in kernels.values() if len(places) > 1)
    one.offset, other.offset = other.offset, one.offset


def truncated(operations, weights):
    del weights[-200:]


def wrong_scale(operations, weights):
    """The image is scaled by 1 / 256 instead of 1 / 255."""
    scale = bound(operations, first(operations, "mul"), "y").immediateValue.tensor
    scale.floats.values[0] = 1 / 256


DAMAGES = {
    stride: (MilError, "shape|gives"),
    groups: (VerificationError, "groups of conv"),
    dilation: (VerificationError, "dilations of conv|pad of conv"),
    concat_axis: (VerificationError, "axis of concat"),
    concat_order: (VerificationError, "values of concat|result [01] of"),
    gelu_mode: (VerificationError, "mode of gelu .* is 'TANH_APPROXIMATION', and .* 'EXACT'"),
    skipped_operation: (VerificationError, "and the network has"),
    zeroed_weights: (VerificationError, r"differs from the network's in [\d,]+ of"),
    one_bit: (VerificationError, "differs from the network's in 1 of"),
    swapped_constants: (VerificationError, "differs from the network's"),
    truncated: (MilError, "weight.bin ends at"),
    wrong_scale: (VerificationError, "differs from the network's in 1 of 1"),
}


def damaged(path, target, damage):
    shutil.copytree(path, target)
    model = Model.FromString(file_of(target).read_bytes())
    main = model.mlProgram.functions["main"]
    weights = bytearray(file_of(target, "weights/weight.bin").read_bytes())
    damage(main.block_specializations[main.opset].operations, weights)
    file_of(target).write_bytes(model.SerializeToString())
    file_of(target, "weights/weight.bin").write_bytes(weights)
    return target


@pytest.fixture(scope="module")
def twin(saved):
    """The float32 twin is the same for every damage: convert it once."""
    folder, model = saved
    program = mil.load(folder / "float16.mlpackage")
    target = folder / "twin"
    target.mkdir()
    network = reparameterize(model)
    return verify.load_twin(program, network, coreml.Settings.of(program), target)


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found(saved, twin, damage, precision, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "load_twin", lambda *arguments: twin)
    folder, model = saved
    path = damaged(folder / f"{precision}.mlpackage", tmp_path / "net.mlpackage", damage)
    error, message = DAMAGES[damage]
    with pytest.raises((MilError, VerificationError), match=None if damage is stride else message):
        verify_coreml(path, model, images())


@pytest.mark.parametrize(
    "damage",
    [each for each in DAMAGES if each is not one_bit],
    ids=lambda damage: damage.__name__,
)
def test_execution_alone_finds_damage_in_float32(saved, damage, tmp_path):
    """A second net under the comparison with the twin: the program itself raises or errs."""
    folder, model = saved
    path = damaged(folder / "float32.mlpackage", tmp_path / "net.mlpackage", damage)
    whole = logits_of(mil.load(folder / "float32.mlpackage"), images(), "float32")
    try:
        error = relative_error(logits_of(mil.load(path), images(), "float32"), whole)
    except MilError:
        assert damage in (stride, groups, concat_axis, truncated)
    else:
        assert error > verify.FLOAT32_LIMIT


def test_an_undamaged_package_passes_in_float32(saved):
    folder, model = saved
    found = verify_coreml(folder / "float32.mlpackage", model, images())
    assert found.float16_error is None and found.float32_error <= 1e-5
    assert found.agreement == 1 and found.deviation < found.margin


def test_another_networks_weights(saved):
    folder, model = saved
    torch.manual_seed(1)
    other = randomize(create_model("mobilevigv2_ti", num_classes=10, **TINY["mobilevigv2_ti"]))
    with pytest.raises(VerificationError, match="differs from the network's"):
        verify_coreml(folder / "float16.mlpackage", other, images())


class Wrong(nn.Module):
    """What PyTorch computes, and not what is converted: torch.export sees another constant."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        scale = 1.001 if torch.compiler.is_compiling() else 1.0
        return self.conv(x).mean((2, 3)) * scale


def test_a_converter_that_errs_is_found(tmp_path):
    model = Wrong().eval()
    export_coreml(model, tmp_path / "net.mlpackage", size=8)
    with pytest.raises(VerificationError, match="in float32 the logits differ .* by 0.001"):
        verify_coreml(tmp_path / "net.mlpackage", model, torch.randint(0, 256, (1, 3, 8, 8)).byte())


class Squares(nn.Module):
    """Values of up to `(255 gain)^2` in the middle, small ones at the end."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        x = torch.relu(x * self.gain)
        return (x * x * 1e-4).mean((2, 3))


def test_the_first_operation_that_overflows_is_named(tmp_path):
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    white[0, 1] = 128
    path = tmp_path / "net.mlpackage"
    export_coreml(Squares(250), path, size=8, normalize=False)
    found = verify_coreml(path, Squares(250), white, normalize=False)
    assert found.peak == pytest.approx(62500, rel=1e-3) and found.agreement == 1
    before = file_of(path).read_bytes()
    with pytest.raises(VerificationError, match=r"mul '\w+' leaves the range of float16 .* at"):
        export_coreml(Squares(1000), path, size=8, normalize=False, overwrite=True)
    assert file_of(path).read_bytes() == before, "what was there stays"


def test_a_classifier(tmp_path):
    model = tiny("fasternet_t0")
    path = tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=SIZE, labels=LABELS)
    program = mil.load(path)
    assert labels_of(program) == LABELS and report.operations["classify"] == 1
    image = images(1)
    label, probabilities = program(image.float()).values()
    with torch.no_grad():
        expected = model(normalized(image)).softmax(1)[0]
    assert label == LABELS[expected.argmax()]
    assert list(probabilities) == LABELS
    assert sum(probabilities.values()) == pytest.approx(1, rel=1e-2)
    found = verify_coreml(path, model, images(), labels=LABELS)
    assert found.float32_error <= 1e-5 < found.float16_error < 0.05
    with pytest.raises(VerificationError, match="they differ from the 0th on"):
        verify_coreml(path, model, images(), labels=LABELS[::-1])
    with pytest.raises(ValueError, match="give labels="):
        verify_coreml(path, model, images())


@pytest.mark.parametrize("target", ["iOS15", "iOS17", "iOS18"])
def test_targets_and_tensor_inputs(target, tmp_path):
    model = tiny("fasternet_t0")
    path = tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=SIZE, target=target, image=False, normalize=False)
    program = mil.load(path)
    assert program.opset == {"iOS15": "CoreML5", "iOS17": "CoreML7", "iOS18": "CoreML8"}[target]
    image = images(1) / 255
    with torch.no_grad():
        assert relative_error(program(image)["logits"], model(image)) == pytest.approx(0, abs=0.05)
    found = verify_coreml(path, model, images(), normalize=False)
    assert found.float16_error == pytest.approx(report.error, rel=9)


# Relative errors of the logits, which depend on the method far more than on the weights.
@pytest.mark.parametrize(
    "compress, target, size, error",
    [
        ("int8", "iOS16", 0.55, 0.1),
        ("int8", "iOS18", 0.55, 0.1),
        ("int4", "iOS18", 0.40, 0.6),
        ("palette8", "iOS16", 0.60, 0.1),
        ("palette6", "iOS18", 0.50, 0.3),
        ("palette4", "iOS16", 0.40, 0.9),
        ("palette4_grouped", "iOS18", 0.40, 0.9),
        ("palette4_channel", "iOS18", 0.45, 0.5),
        ("prune", "iOS16", 0.70, 1.2),
        ("prune", "iOS18", 0.70, 1.2),
    ],
)
def test_compression(wide_network, compress, target, size, error, tmp_path):
    model, plain = wide_network
    path = tmp_path / "net.mlpackage"
    report = export_coreml(model, path, size=SIZE, compress=compress, target=target)
    assert report.compressed == 2
    assert report.stored_bytes < size * plain.stored_bytes
    assert 1e-4 < report.error < error
    found = verify_coreml(path, model, images())
    assert found.float32_error <= 1e-5 and 1e-4 < found.float16_error < error


@pytest.fixture(scope="module")
def wide_network(tmp_path_factory):
    """A network of which two arrays are large enough to be compressed."""
    torch.manual_seed(0)
    layers = []
    for channels in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(*channels, 3, 2), nn.BatchNorm2d(channels[1]), nn.ReLU()]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)
    model = randomize(nn.Sequential(*layers, *head))
    path = tmp_path_factory.mktemp("plain") / "net.mlpackage"
    return model, export_coreml(model, path, size=SIZE)


@pytest.mark.parametrize(
    "compress, target",
    [("int8", "iOS16"), ("palette4", "iOS16"), ("palette4_grouped", "iOS18"), ("prune", "iOS16")],
)
def test_damage_in_a_compressed_package_is_found(wide_network, compress, target, tmp_path):
    model, _ = wide_network
    path = tmp_path / "net.mlpackage"
    export_coreml(model, path, size=SIZE, compress=compress, target=target)
    weights = file_of(path, "weights/weight.bin")
    content = bytearray(weights.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(reversed(content[middle : middle + 64]))
    weights.write_bytes(content)
    with pytest.raises((MilError, VerificationError), match="more than constexpr_|weight.bin"):
        verify_coreml(path, model, images())


def test_training_mode_and_fused_networks_give_the_same_package(tmp_path):
    """The exporter fuses and sets eval itself: forgetting it is the commonest mistake."""
    model = tiny("mobileone_s4")
    forms = {
        "eval": model,
        "training": tiny("mobileone_s4").train(),
        "fused": reparameterize(model),
    }
    programs = []
    for name, form in forms.items():
        training = form.training
        export_coreml(form, tmp_path / f"{name}.mlpackage", size=SIZE)
        assert form.training == training
        programs.append(mil.load(tmp_path / f"{name}.mlpackage"))
    for program in programs[1:]:
        assert verify.compare_programs(program, programs[0])[0] > 20


def test_what_the_package_says_of_itself(tmp_path):
    model = tiny("rapidnet_ti")
    path = tmp_path / "net.mlpackage"
    export_coreml(model, path, size=SIZE, compute_units="CPU_AND_NE")
    metadata = mil.load(path).metadata
    assert metadata["description"].startswith("rapidnet_ti. RapidNet: Multi-Level Dilated")
    assert "MIT" in metadata["license"] and "huggingface.co/SLDGroup" in metadata["license"]
    assert metadata["version"] == "0.1.0"
    assert metadata["paperrepro.network"] == "rapidnet_ti"
    assert metadata["paperrepro.compute_units"] == "CPU_AND_NE"
    assert int(metadata["paperrepro.parameters"]) == sum(
        parameter.numel() for parameter in reparameterize(model).parameters()
    )
    assert metadata["paperrepro.weights_sha256"] == coreml.weights_sha256(model)
    before = coreml.weights_sha256(model)
    with torch.no_grad():
        model.head.classifier.head.bias[0] += 1
    assert coreml.weights_sha256(model) != before
    settings = json.loads(metadata["paperrepro.settings"])
    assert settings["mean"] == list(IMAGENET[0]) and settings["size"] == SIZE


def test_the_golden_file(saved):
    folder, model = saved
    golden = safetensors.torch.load_file(golden_path(folder / "float16.mlpackage"))
    assert golden["image"].dtype == torch.uint8 and golden["image"].shape == (1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model(normalized(golden["image"]))
    assert relative_error(golden["logits"], expected) < 1e-5
    program = mil.load(folder / "float16.mlpackage")
    (found,) = program(golden["image"].float(), mode="float16").values()
    assert relative_error(found, golden["logits"]) < 0.05


def test_tracing_where_torch_export_fails(tmp_path):
    class Branching(nn.Module):
        """What depends on the data, torch.export refuses; tracing follows the one way."""

        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > -1e9 else x.amax((2, 3))

    report = export_coreml(Branching(), tmp_path / "net.mlpackage", size=8)
    assert report.frontend.startswith("torch.jit.trace; but torch.export: ")
    assert report.error < 1e-2


def test_a_network_of_another_library(tmp_path):
    model = randomize(torchvision.models.mobilenet_v2(weights=None, num_classes=7))
    half = (0.5,) * 3, (0.5,) * 3
    report = export_coreml(model, tmp_path / "net.mlpackage", size=SIZE, normalize=half)
    assert "batch_norm" not in report.operations and report.error < 0.05
    verify_coreml(report.path, model, images(), normalize=half)
    with pytest.raises(VerificationError, match="0.485"):
        verify_coreml(report.path, model, images())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 16}, "16 x 16 pixels"),
        ({"size": 0}, "size is 0"),
        ({"precision": "int8"}, "precision 'int8'.*float16, float32"),
        ({"target": "iOS12"}, "target 'iOS12'.*iOS15"),
        ({"compress": "zip"}, "compress 'zip'.*int8, int4, palette8"),
        ({"compress": "int4"}, "int4 .*'iOS18'.*'iOS16'"),
        ({"compute_units": "TPU"}, "compute_units 'TPU'"),
        ({"labels": LABELS[:9]}, "9 labels .*10 classes"),
        ({"labels": LABELS[:9] * 2}, "18 labels"),
        ({"labels": LABELS[:9] + LABELS[:1]}, "'class 0'"),
        ({"normalize": ((0.5,), (0.5,))}, "three means"),
    ],
)
def test_bad_arguments_leave_nothing_behind(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_coreml(
            tiny("fasternet_t0"), tmp_path / "net.mlpackage", **({"size": SIZE} | options)
        )
    assert not list(tmp_path.iterdir())


def test_paths(tmp_path):
    model = tiny("fasternet_t0")
    path = tmp_path / "net.mlpackage"
    with pytest.raises(ValueError, match="net.mlmodel.*[.]mlpackage"):
        export_coreml(model, tmp_path / "net.mlmodel", size=SIZE)
    export_coreml(model, path, size=SIZE)
    first_time = file_of(path).stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="net.mlpackage"):
        export_coreml(model, path, size=SIZE)
    assert file_of(path).stat().st_mtime_ns == first_time
    export_coreml(model, path, size=SIZE, overwrite=True)
    assert file_of(path).stat().st_mtime_ns > first_time
    assert sorted(each.name for each in tmp_path.iterdir()) == [golden_path(path).name, path.name]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        export_coreml(model, tmp_path / "file" / "net.mlpackage", size=SIZE)


def test_a_failure_leaves_the_old_package(tmp_path, monkeypatch):
    model = tiny("fasternet_t0")
    path = tmp_path / "net.mlpackage"
    export_coreml(model, path, size=SIZE)
    before = file_of(path).read_bytes()
    monkeypatch.setattr(coreml, "outputs_of", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_coreml(model, path, size=SIZE, overwrite=True)
    assert file_of(path).read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [golden_path(path).name, path.name]


def test_a_network_that_cannot_be_converted(tmp_path):
    class Unsupported(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x).mean((2, 3))

    with pytest.raises(ValueError, match="torch.export: .*torch.jit.trace: "):
        export_coreml(Unsupported(), tmp_path / "net.mlpackage", size=8)
    with pytest.raises(ValueError, match=r"\(1, 3, 64\)"):
        export_coreml(nn.Flatten(2), tmp_path / "net.mlpackage", size=8)
    assert not list(tmp_path.iterdir())


def test_verification_refuses_what_it_cannot_verify(saved, tmp_path):
    folder, model = saved
    package = folder / "float16.mlpackage"
    for wrong in (images().float(), images()[:, :, :32], images()[:0]):
        with pytest.raises(ValueError, match=r"uint8 .*\(N, 3, 64, 64\)"):
            verify_coreml(package, model, wrong)
    foreign = shutil.copytree(package, tmp_path / "foreign.mlpackage")
    file = Model.FromString(file_of(foreign).read_bytes())
    del file.description.metadata.userDefined["paperrepro.settings"]
    file_of(foreign).write_bytes(file.SerializeToString())
    assert mil.load(foreign)(images(1).float())["logits"].shape == (1, 10)
    with pytest.raises(ValueError, match="foreign.mlpackage"):
        verify_coreml(foreign, model, images())


def test_without_coremltools(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ValueError, match=r'pip install "paperrepro\[export\]"'):
        export_coreml(tiny("fasternet_t0"), tmp_path / "net.mlpackage", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_a_mac_is_needed(saved, monkeypatch):
    folder, _ = saved
    monkeypatch.setattr(mac.platform, "system", lambda: "Linux")
    with pytest.raises(OSError, match="Linux"):
        mac.compare_on_mac(folder / "float16.mlpackage")


@pytest.mark.parametrize("labels", [None, LABELS])
def test_the_macs_table_is_put_together(labels, tmp_path, monkeypatch):
    """With our interpreter in the place of Core ML, whose classifiers list labels in any order."""
    path = tmp_path / "net.mlpackage"
    export_coreml(tiny("fasternet_t0"), path, size=SIZE, labels=labels)
    program = mil.load(path)

    class StandIn:
        def __init__(self, unit):
            self.unit = unit

        def predict(self, entry):
            pixels = torch.from_numpy(np.array(entry["image"])).permute(2, 0, 1).unsqueeze(0)
            mode = "float32" if self.unit == "CPU_ONLY" else "float16"
            outputs = program(pixels.float(), mode)
            return {
                key: dict(sorted(value.items(), reverse=True)) if isinstance(value, dict) else value
                for key, value in outputs.items()
            }

        def get_compiled_model_path(self):
            return str(path)

    monkeypatch.setattr(mac.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(mac, "load", lambda path, unit: StandIn(unit))
    monkeypatch.setattr(mac, "devices", lambda path, unit: {"cpu": 1, "gpu": 0, "neural_engine": 0})
    monkeypatch.setattr(mac, "latency", lambda times, timing: len(times) * timing.inferences)
    monkeypatch.setattr(mac, "time_inferences", lambda timing, load: [load()()] * timing.rounds)
    table = mac.compare_on_mac(path, progress=False)
    assert list(table.compute_units) == list(coreml.COMPUTE_UNITS)
    assert (table.error < 0.05).all() and (table.error > 0).all() and (table.agreement == 1).all()
    assert (table.trimmed_mean_ms == 2_500_000).all() and (table.minimum_ms == 1_000_000).all()


def test_core_ai(tmp_path):
    pytest.importorskip("coreai_torch", reason="coreai-torch, a beta, is not installed")
    report = export_coreai(tiny("mobilevigv2_ti"), tmp_path / "net.aimodel", size=SIZE)
    assert 0 < report.error < 1e-5
    assert report.stored_bytes == stored_bytes(tmp_path / "net.aimodel") > 40_000
    assert [each.name for each in tmp_path.iterdir()] == ["net.aimodel"]


def test_without_core_ai(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coreai_torch", None)
    with pytest.raises(ValueError, match=r"pip install .paperrepro\[coreai\]"):
        export_coreai(tiny("fasternet_t0"), tmp_path / "net.aimodel", size=SIZE)
    with pytest.raises(ValueError, match="net.*[.]aimodel"):
        export_coreai(tiny("fasternet_t0"), tmp_path / "net", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_the_surveys_networks_depend_on_their_images():
    """Random weights, and yet every branch counts: the layer scales are 0.5, the norms fit."""
    chosen = images(4)
    model = survey.calibrated("mobilevigv2_ti", chosen)
    with torch.no_grad():
        logits = model(chosen / 127.5 - 1)
    assert logits.std(0).mean() > 0.05 * logits.std()
    with pytest.raises(ValueError, match="'resnet'"):
        survey.run(["resnet"])
