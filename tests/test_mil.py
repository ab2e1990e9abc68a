"""The interpreter: known answers of its operations, whole networks, and what it refuses."""

import json
import math
import shutil

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from coremltools.converters.mil import Builder as mb
from coremltools.proto.Model_pb2 import Model

from paperrepro.export import mil
from paperrepro.export.operations import OPERATIONS, evaluate
from paperrepro.export.package import MilError, unpack

X = torch.linspace(-3, 3, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
POSITIVE = X.abs() + 0.1


def array(*values, dtype=np.float32):
    return np.array(values, dtype)


ints = np.int32
WEIGHT = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
DEPTHWISE = WEIGHT[:3, :1].contiguous()
SQUARE = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
MEAN, SPREAD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])

ELEMENTWISE = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "identity": lambda x: x,
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "sign": torch.sign,
    "silu": lambda x: x / (1 + (-x).exp()),
    "sin": torch.sin,
    "softplus": lambda x: (1 + x.exp()).log(),
    "softsign": lambda x: x / (1 + x.abs()),
    "sqrt": lambda x: x**0.5,
    "square": lambda x: x * x,
    "tanh": torch.tanh,
}
BINARY = {
    "add": lambda x: x + 0.7,
    "sub": lambda x: x - 0.7,
    "mul": lambda x: x * 0.7,
    "real_div": lambda x: x / 0.7,
    "floor_div": lambda x: (x / 0.7).floor(),
    "mod": lambda x: x - 0.7 * (x / 0.7).floor(),
    "maximum": lambda x: x.clamp(min=0.7),
    "minimum": lambda x: x.clamp(max=0.7),
    "pow": lambda x: x**0.7,
}
COMPARISONS = {
    "equal": lambda x: x == 1,
    "not_equal": lambda x: x != 1,
    "greater": lambda x: x > 1,
    "greater_equal": lambda x: x >= 1,
    "less": lambda x: x < 1,
    "less_equal": lambda x: x <= 1,
}
f = np.float32
SEVERAL = ("concat", "stack")
CASES = [
    ("clip", {"alpha": f(-1), "beta": f(2)}, lambda x: x.clamp(-1, 2)),
    ("clamped_relu", {"alpha": f(0.5), "beta": f(1)}, lambda x: F.leaky_relu(x, 0.5).clamp(max=1)),
    ("elu", {"alpha": f(0.5)}, lambda x: F.elu(x, 0.5)),
    ("leaky_relu", {"alpha": f(0.2)}, lambda x: F.leaky_relu(x, 0.2)),
    ("linear_activation", {"alpha": f(2), "beta": f(3)}, lambda x: 2 * x + 3),
    ("prelu", {"alpha": array(0.1, 0.2, 0.3)}, lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3]))),
    ("sigmoid_hard", {"alpha": f(0.2), "beta": f(0.5)}, lambda x: (0.2 * x + 0.5).clamp(0, 1)),
    ("threshold", {"alpha": f(0.3)}, lambda x: x.clamp(min=0.3)),
    ("thresholded_relu", {"alpha": f(0.3)}, lambda x: x * (x >= 0.3)),
    ("gelu", {"mode": "EXACT"}, lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2),
    ("gelu", {"mode": "TANH_APPROXIMATION"}, lambda x: F.gelu(x, approximate="tanh")),
    ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x / (1 + (-1.702 * x).exp())),
    ("inverse", {"x": POSITIVE}, lambda x: 1 / (x + 1e-4)),
    ("log", {"x": POSITIVE, "epsilon": f(0.5)}, lambda x: (x + 0.5).log()),
    ("rsqrt", {"x": POSITIVE, "epsilon": f(0.5)}, lambda x: (x + 0.5) ** -0.5),
    ("softmax", {"axis": 1}, lambda x: x.exp() / x.exp().sum(1, keepdim=True)),
    ("cast", {"dtype": "int32"}, lambda x: x.trunc().int()),
    ("reduce_argmax", {"axis": 1, "keep_dims": False}, lambda x: x.argmax(1)),
    ("reduce_max", {"axes": [2, 3]}, lambda x: x.flatten(2).max(2).values),
    ("reduce_mean", {"axes": [-1, -2], "keep_dims": True}, lambda x: F.adaptive_avg_pool2d(x, 1)),
    ("reduce_min", {"axes": [1]}, lambda x: x.min(1).values),
    ("reduce_sum", {"axes": [0, 1]}, lambda x: x.sum(0).sum(0)),
    ("reduce_l2_norm", {"axes": [3]}, lambda x: (x * x).sum(3) ** 0.5),
    ("linear", {"weight": SQUARE.numpy()}, lambda x: torch.einsum("nchw,vw->nchv", x, SQUARE)),
    ("matmul", {"y": SQUARE.numpy()}, lambda x: torch.einsum("nchw,wv->nchv", x, SQUARE)),
    (
        "matmul",
        {"y": SQUARE.numpy(), "transpose_x": True, "transpose_y": True},
        lambda x: torch.einsum("nchw,vh->ncwv", x, SQUARE),
    ),
    ("conv", {"weight": WEIGHT.numpy(), "pad_type": "valid"}, lambda x: F.conv2d(x, WEIGHT)),
    (
        "conv",
        {"weight": WEIGHT.numpy(), "pad_type": "same"},
        lambda x: F.conv2d(x, WEIGHT, padding=1),
    ),
    (
        "conv",
        {
            "weight": WEIGHT.numpy(),
            "pad_type": "custom",
            "pad": array(1, 2, 0, 3, dtype=ints),
            "strides": array(2, 1, dtype=ints),
            "bias": np.arange(6, dtype=np.float32),
        },
        lambda x: F.conv2d(F.pad(x, (0, 3, 1, 2)), WEIGHT, torch.arange(6.0), (2, 1)),
    ),
    (
        "conv",
        {
            "weight": DEPTHWISE.numpy(),
            "pad_type": "custom",
            "pad": array(2, 2, 2, 2, dtype=ints),
            "dilations": array(2, 2, dtype=ints),
            "groups": 3,
        },
        lambda x: F.conv2d(x, DEPTHWISE, None, 1, 2, 2, 3),
    ),
    (
        "max_pool",
        {
            "kernel_sizes": array(3, 3, dtype=ints),
            "strides": array(2, 2, dtype=ints),
            "pad_type": "custom",
            "pad": array(1, 1, 1, 1, dtype=ints),
        },
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    *[
        (
            "avg_pool",
            {
                "kernel_sizes": array(3, 3, dtype=ints),
                "strides": array(1, 1, dtype=ints),
                "pad_type": "same",
                "exclude_padding_from_average": excluded,
            },
            lambda x, excluded=excluded: F.avg_pool2d(x, 3, 1, 1, count_include_pad=not excluded),
        )
        for excluded in (True, False)
    ],
    (
        "batch_norm",
        {
            "mean": MEAN.numpy(),
            "variance": SPREAD.numpy(),
            "gamma": SPREAD.numpy(),
            "beta": MEAN.numpy(),
            "epsilon": f(0.1),
        },
        lambda x: F.batch_norm(x, MEAN, SPREAD, SPREAD, MEAN, eps=0.1),
    ),
    (
        "layer_norm",
        {"axes": [1], "gamma": SPREAD.numpy(), "beta": MEAN.numpy(), "epsilon": f(0.1)},
        lambda x: F.layer_norm(x.mT.transpose(1, 3), (3,), SPREAD, MEAN, 0.1).transpose(1, 3).mT,
    ),
    (
        "instance_norm",
        {"gamma": SPREAD.numpy(), "beta": MEAN.numpy(), "epsilon": f(0.1)},
        lambda x: F.instance_norm(x, None, None, SPREAD, MEAN, eps=0.1),
    ),
    ("reshape", {"shape": [0, 6, -1, 0]}, lambda x: x.reshape(2, 6, 2, 4)),
    ("transpose", {"perm": [0, 3, 1, 2]}, lambda x: x.permute(0, 3, 1, 2)),
    ("expand_dims", {"x": X[0], "axes": [0, -1]}, lambda x: x[None, ..., None]),
    ("squeeze", {"x": X[:1], "axes": [0]}, lambda x: x[0]),
    ("tile", {"reps": [1, 2, 1, 1]}, lambda x: torch.cat([x, x], 1)),
    ("shape", {}, lambda x: torch.tensor(x.shape)),
    ("pad", {"pad": [1, 0, 2, 1], "constant_val": f(9)}, lambda x: F.pad(x, (2, 1, 1, 0), value=9)),
    (
        "pad",
        {"pad": [1, 0, 2, 1], "mode": "reflect"},
        lambda x: F.pad(x, (2, 1, 1, 0), mode="reflect"),
    ),
    ("gather", {"indices": array(2, 0, dtype=ints), "axis": 1}, lambda x: x[:, [2, 0]]),
    ("slice_by_size", {"begin": [0, 1, 0, 2], "size": [2, -1, 4, 1]}, lambda x: x[:, 1:, :, 2:3]),
    (
        "slice_by_index",
        {
            "begin": [1, 0, 3, 1],
            "end": [2, 2, 0, 0],
            "stride": [1, 1, -2, 2],
            "begin_mask": [False, True, False, False],
            "end_mask": [False, False, True, True],
            "squeeze_mask": [True, False, False, False],
        },
        lambda x: x[1, :2].flip(1)[:, ::2, 1::2],
    ),
    ("split", {"num_splits": 2, "axis": 2}, lambda x: (x[:, :, :2], x[:, :, 2:])),
    ("split", {"split_sizes": [1, 2], "axis": 1}, lambda x: (x[:, :1], x[:, 1:])),
    ("concat", {"axis": 2}, lambda x: torch.cat([x, x], 2)),
    ("stack", {"axis": 2}, lambda x: torch.stack([x, x], 2)),
    *[
        (kind, {"x": POSITIVE if kind == "sqrt" else X}, function)
        for kind, function in ELEMENTWISE.items()
    ],
    *[(kind, {"x": POSITIVE, "y": f(0.7)}, function) for kind, function in BINARY.items()],
    *[(kind, {"x": X.round(), "y": f(1)}, function) for kind, function in COMPARISONS.items()],
]


@pytest.fixture(scope="module")
def every_case(tmp_path_factory):
    """One package with an operation for each case, by coremltools' own builder and without its
    optimizations: the results of each by type, name and mode."""

    @mb.program(input_specs=[mb.TensorSpec(shape=tuple(X.shape))], opset_version=ct.target.iOS16)
    def program(x):
        results = []
        for i, (kind, parameters, _) in enumerate(CASES):
            given = parameters["x"].numpy() if "x" in parameters else x
            rest = {key: value for key, value in parameters.items() if key != "x"}
            bound = {"values": (given, given)} if kind in SEVERAL else {"x": given}
            found = getattr(mb, kind)(**bound, **rest, name=f"case{i}")
            results += found if isinstance(found, list | tuple) else [found]
        return tuple(results)

    model = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    path = tmp_path_factory.mktemp("cases") / "cases.mlpackage"
    model.save(str(path))
    program = mil.load(path)
    results = {}

    def keep(mode):
        def hook(operation, found):
            results[operation.type, operation.name, mode] = found

        return hook

    for mode in ("float32", "float64"):
        program(X, mode, keep(mode))
    return results


@pytest.mark.parametrize("case", range(len(CASES)), ids=[case[0] for case in CASES])
def test_an_operation(case, every_case):
    kind, parameters, expected = CASES[case]
    wanted = expected(parameters.get("x", X))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for mode, tolerance in (("float32", 1e-5), ("float64", 1e-6)):
        (name,) = {
            operation
            for found, operation, _ in every_case
            if found == kind and f"{operation}_".startswith(f"case{case}_")
        }
        found = every_case[kind, name, mode]
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close = {"rtol": tolerance, "atol": tolerance}
            torch.testing.assert_close(one.double(), other.double(), **close)


def test_logic_and_selection():
    yes, no = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert evaluate("logical_and", {"x": yes, "y": no}).tolist() == [True, False, False]
    assert evaluate("logical_or", {"x": yes, "y": no}).tolist() == [True, True, False]
    assert evaluate("logical_not", {"x": no}).tolist() == [False, True, True]
    chosen = evaluate("select", {"cond": no, "a": torch.ones(3), "b": torch.zeros(3)})
    assert chosen.tolist() == [1, 0, 0]


def test_upsampling():
    x = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    twice = {"x": x, "scale_factor_height": 2, "scale_factor_width": 2}
    nearest = evaluate("upsample_nearest_neighbor", twice)
    assert nearest[0, 0].tolist() == [[0, 0, 2, 2]] * 2 + [[4, 4, 6, 6]] * 2
    corners = evaluate("upsample_bilinear", twice | {"align_corners": True})
    torch.testing.assert_close(corners[0, 0, 0], torch.tensor([0, 2 / 3, 4 / 3, 2]))
    centers = evaluate("upsample_bilinear", twice | {"align_corners": False})
    assert centers[0, 0, 0].tolist() == [0, 0.5, 1.5, 2]


def test_quantization_there_and_back():
    x = torch.tensor([[-300.0, -1.0, 0.26, 0.74], [-1.0, 0.0, 1.0, 300.0]])
    by_row = {"scale": torch.tensor([0.5, 0.25]), "axis": torch.tensor(0)}
    whole = evaluate("quantize", {"input": x, "output_dtype": "int8"} | by_row)
    assert whole.tolist() == [[-128, -2, 1, 1], [-4, 0, 4, 127]]
    back = evaluate("dequantize", {"input": whole} | by_row)
    assert back.tolist() == [[-64, -1, 0.5, 0.5], [-1, 0, 1, 31.75]]
    shifted = {"scale": torch.tensor(0.5), "zero_point": torch.tensor(100)}
    positive = evaluate("quantize", {"input": x, "output_dtype": "uint8"} | shifted)
    assert positive.tolist() == [[0, 98, 101, 101], [98, 100, 102, 255]]
    assert evaluate("dequantize", {"input": positive} | shifted)[1, 1] == 0


def test_every_operation_of_the_table_is_tested():
    tested = {case[0] for case in CASES} | {"logical_and", "logical_or", "logical_not", "select"}
    tested |= {"upsample_nearest_neighbor", "upsample_bilinear", "quantize", "dequantize"}
    elsewhere = {
        "classify",
        *(name for name in OPERATIONS if name.startswith("constexpr_")),
    }
    assert OPERATIONS.keys() == tested | elsewhere


def as_package(model, path, size, *, capture="export", precision="FLOAT32"):
    """A package as others make it."""
    image = torch.rand(1, 3, size, size)
    if capture == "export":
        source = torch.export.export(model, (image,)).run_decompositions({})
    else:
        source = torch.jit.trace(model, image)
    converted = ct.convert(
        source,
        convert_to="mlprogram",
        inputs=[ct.TensorType(name="x", shape=image.shape)],
        compute_precision=ct.precision[precision],
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    converted.save(str(path))
    return mil.load(path), image


@pytest.mark.parametrize(
    "name, capture",
    [
        ("mobilenet_v2", "trace"),
        ("mobilenet_v3_small", "export"),
        ("resnet18", "export"),
        ("efficientnet_b0", "trace"),
    ],
)
def test_networks_of_torchvision(name, capture, tmp_path):
    model = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    program, image = as_package(model, tmp_path / "net.mlpackage", 64, capture=capture)
    (found,) = program(image).values()
    with torch.no_grad():
        expected = model(image)
    assert (found - expected).norm() < 1e-5 * expected.norm()


class Small(torch.nn.Module):
    """x + 2^-12, then times 3: at x = 1 float16 forgets the sum, and 3 x is exact."""

    def forward(self, x):
        return torch.relu(x + 2**-12) * 3


def test_the_modes(tmp_path):
    program, _ = as_package(Small(), tmp_path / "s.mlpackage", 2, precision="FLOAT16")
    ones = torch.ones(1, 3, 2, 2)
    (half,), (single,), (double,) = (program(ones, mode=mode).values() for mode in mil.MODES[::-1])
    assert (half == 3).all()
    assert (single == 3 + 3 * 2**-12).all() and single.dtype == torch.float32
    assert (double == 3 + 3 * 2**-12).all() and double.dtype == torch.float64


def test_the_hook_sees_each_operation(tmp_path):
    program, _ = as_package(Small(), tmp_path / "s.mlpackage", 2)
    seen = []
    program(
        torch.ones(1, 3, 2, 2), hook=lambda operation, results: seen.append((operation, results))
    )
    assert [operation for operation, _ in seen] == list(program.operations)
    types_seen = [operation.type for operation, _ in seen]
    assert types_seen == ["add", "relu", "mul"]
    assert (seen[0][1][0] == 1 + 2**-12).all() and (seen[2][1][0] == 3 + 3 * 2**-12).all()


def test_unpack_is_the_documented_example():
    # constexpr_lut_to_dense in coremltools: 2 bits, five indices, the lowest bits first.
    raw = np.array([0b01_10_11_00, 0b11], np.uint8)
    assert unpack(raw, 2, 5).tolist() == [0, 3, 2, 1, 3]
    assert unpack(np.array([0xF8, 0x07], np.uint8), 4, 3, signed=True).tolist() == [-8, -1, 7]
    # Six bits: the second index lies across two bytes.
    raw = np.array([0b11_000001, 0b0000_1010], np.uint8)
    assert unpack(raw, 6, 2).tolist() == [1, 0b101011]


def test_compressed_constants():
    """The examples and equations of coremltools' documentation, by hand."""
    affine = {
        "quantized_data": torch.tensor([[1, 2], [3, 4]], dtype=torch.int8),
        "zero_point": torch.tensor([1, 2], dtype=torch.int8),
        "scale": torch.tensor([10.0, 100.0]),
    }
    columns = evaluate("constexpr_affine_dequantize", affine | {"axis": torch.tensor(1)})
    assert columns.tolist() == [[0, 0], [20, 200]]
    rows = evaluate("constexpr_affine_dequantize", affine | {"axis": torch.tensor(0)})
    assert rows.tolist() == [[0, 10], [100, 200]]
    blocks = {
        "data": torch.tensor([[1, 2, 3, 4]], dtype=torch.int8),
        "scale": torch.tensor([[1.0, 10.0]]),
    }
    kind = "constexpr_blockwise_shift_scale"
    assert evaluate(kind, blocks).tolist() == [[1, 2, 30, 40]]
    shifted = blocks | {"offset": torch.tensor([[1, 2]], dtype=torch.int8)}
    assert evaluate(kind, shifted).tolist() == [[0, 1, 10, 20]]
    two_tables = {
        "lut": torch.tensor([1.0, 5, 9, 13, 2, 10, 18, 26]).reshape(2, 1, 4, 1),
        "indices": torch.tensor([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]).reshape(6, 2),
    }
    dense = evaluate("constexpr_lut_to_dense", two_tables)
    assert dense.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]
    mask = torch.tensor([0b00001100], dtype=torch.uint8)
    sparse = {"nonzero_data": torch.tensor([7.0, 8.0]), "mask": mask, "shape": torch.tensor([5])}
    assert evaluate("constexpr_sparse_to_dense", sparse).tolist() == [0, 0, 7, 8, 0]


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        ("lstm", {}, "lstm"),
        ("relu", {"x": X, "slope": 1}, "slope"),
        ("gelu", {"x": X, "mode": "FAST"}, "'FAST'"),
        (
            "conv",
            {"x": X, "weight": WEIGHT, "pad_type": "same", "strides": torch.tensor([2, 2])},
            "same",
        ),
        ("concat", {"values": [X, X], "axis": 1, "interleave": True}, "interleave"),
        ("cast", {"x": X, "dtype": "string"}, "'string'"),
        (
            "constexpr_blockwise_shift_scale",
            {"data": torch.ones(1, 3), "scale": torch.ones(1, 2)},
            "2 blocks .* 3",
        ),
        (
            "constexpr_sparse_to_dense",
            {"nonzero_data": torch.ones(2), "mask": torch.tensor([1, 0, 0])},
            "2 values .* 1 ",
        ),
    ],
)
def test_nothing_is_guessed(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(kind, arguments)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A convolution with its weights in the file of weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "conv.mlpackage"
    as_package(torch.nn.Conv2d(3, 32, 3), path, 8)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / saved.name)


def model_file(path):
    return path / "Data/com.apple.CoreML/model.mlmodel"


def edit(path, change):
    """Change the protobuf of a package."""
    model = Model.FromString(model_file(path).read_bytes())
    main = model.mlProgram.functions["main"]
    change(model, main.block_specializations[main.opset])
    model_file(path).write_bytes(model.SerializeToString())


def operation(block, kind):
    return next(each for each in block.operations if each.type == kind)


def rename(model, block):
    operation(block, "conv").type = "convolution"


def add_parameter(model, block):
    conv = operation(block, "conv")
    conv.inputs["scale"].CopyFrom(conv.inputs["weight"])


def other_shape(model, block):
    declared = operation(block, "conv").outputs[0].type.tensorType
    declared.dimensions[1].constant.size = 31


def other_type(model, block):
    operation(block, "conv").outputs[0].type.tensorType.dataType = 23  # INT32


def two_results(model, block):
    conv = operation(block, "conv")
    conv.outputs.add().CopyFrom(conv.outputs[0])
    conv.outputs[1].name = "second"


def unbound(model, block):
    operation(block, "conv").inputs["x"].arguments[0].name = "nowhere"


@pytest.mark.parametrize(
    "change, message",
    [
        (rename, "convolution"),
        (add_parameter, "scale"),
        (other_shape, r"\(1, 32, 6, 6\).*\(1, 31, 6, 6\)"),
        (other_type, "float32.*int32"),
        (two_results, " 1 .* 2"),
        (unbound, "conv .*'nowhere'"),
    ],
)
def test_a_program_that_is_not_what_it_says(copy, change, message):
    edit(copy, change)
    with pytest.raises(MilError, match=message):
        mil.load(copy)(torch.rand(1, 3, 8, 8))


def not_a_program(model, block):
    model.neuralNetwork.SetInParent()


def second_function(model, block):
    model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])


def blob_of(block):
    for each in block.operations:
        if each.type == "const":
            value = each.attributes["val"]
            if value.WhichOneof("value") == "blobFileValue":
                return value
    raise AssertionError("no weights in the file of weights")


def other_place(model, block):
    blob_of(block).blobFileValue.offset += 8


def outside(model, block):
    blob_of(block).blobFileValue.fileName = "@model_path/../../../../secret"


def strange_type(model, block):
    blob_of(block).type.tensorType.dataType = 40


@pytest.mark.parametrize(
    "change, message",
    [
        (not_a_program, "neuralNetwork"),
        (second_function, "other"),
        (other_place, "float32"),
        (outside, "secret"),
        (strange_type, "float8e4m3fn"),
    ],
)
def test_a_file_that_is_not_implemented(copy, change, message):
    edit(copy, change)
    with pytest.raises(MilError, match=message):
        mil.load(copy)


def test_a_damaged_package(copy, tmp_path):
    with pytest.raises(MilError, match="none.mlpackage"):
        mil.load(tmp_path / "none.mlpackage")
    weights = copy / "Data/com.apple.CoreML/weights/weight.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(MilError, match="weights/weight.bin"):
        mil.load(copy)
    weights.unlink()
    with pytest.raises(MilError, match="weight.bin"):
        mil.load(copy)
    model_file(copy).write_bytes(model_file(copy).read_bytes()[:-20])
    with pytest.raises(MilError, match="mlpackage.*DecodeError"):
        mil.load(copy)
    (copy / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {}}))
    with pytest.raises(MilError, match="mlpackage.*rootModelIdentifier"):
        mil.load(copy)


def test_inputs_are_checked(saved):
    program = mil.load(saved)
    with pytest.raises(ValueError, match=r" x .*\(1, 3, 8, 8\)"):
        program(torch.rand(1, 3, 9, 8))
    with pytest.raises(ValueError, match="x.*image"):
        program({"image": torch.rand(1, 3, 8, 8)})
    with pytest.raises(ValueError, match="'bfloat16'"):
        program(torch.rand(1, 3, 8, 8), mode="bfloat16")


def test_without_coremltools(saved, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "coremltools", None)
    with pytest.raises(ValueError, match=r"pip install \"paperrepro\[export\]\""):
        mil.load(saved)
