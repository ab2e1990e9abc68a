"""Is a saved package the network? Four questions, each answered from the file.

1. Is a float32 package of the same network right? It is converted anew, as the *twin*, saved,
   executed by `mil`, and compared with PyTorch: relative L2 error of the logits up to 1e-5. In
   float32 even a wrong mode of GELU shows, which float16 hides in its rounding.
2. Is the package its twin? The programs are walked through side by side, from their outputs: the
   same operations, parameters and shapes, and each float16 constant the half of its float32 one.
   A compressed constant lies as near to it as its method can.
3. Does every value stay in the range of float16? Else the first operation that leaves it is named.
4. What does float16 cost? The error of the logits, and how often the answer stays.

A package that passes is verified against the MIL semantics as implemented here; Core ML did not run
it. Constants are compared bit by bit: verify on the machine that exported, for another one may fold
a BatchNorm with another last bit.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..reparam import reparameterize
from . import mil
from .coreml import Settings, convert, labels_of, outputs_of, save
from .mil import Constant, Program
from .network import (
    Normalization,
    Outputs,
    check_network,
    normalization,
    reference,
    relative_error,
)
from .operations import evaluate
from .package import Bound, Operation, bounds_of, need_tensor
from .watch import VerificationError, Watch

FLOAT32_LIMIT = 1e-5
WORST = 1.0  # relative error of the outputs; outputs of 0 have it
SHORT = {"fp16": "float16", "fp32": "float32"}
SMALLEST_HALF = 2.0**-24
HALF_STEP = 2.0**-10  # the distance of neighbouring float16 numbers over the smaller one, at most


@dataclass(frozen=True)
class VerificationReport:
    """What was found of a package that passed.

    Attributes:
        images: how many were tried.
        operations, constants: how many were compared with the float32 twin's.
        float32_error: the twin's relative L2 error against PyTorch, the largest of all images.
        float16_error: the same of the package in simulated float16; None of a float32 package.
        peak: the largest magnitude of any value in it, of 65,504 at most.
        peak_at: the operation that gives it.
        agreement: the share of the images (of a segmenter: pixels) for which the package gives
            PyTorch's answer; None of a network that gives maps without classes.
        margin: the smallest distance between PyTorch's best and second logit; None likewise.
        deviation: the largest difference of a number from PyTorch's. An answer is certain where the
            margin is more than twice that.
    """

    path: Path
    images: int
    operations: int
    constants: int
    float32_error: float
    float16_error: float | None
    peak: float
    peak_at: str
    agreement: float | None
    margin: float | None
    deviation: float


def verify_coreml(
    package: str | os.PathLike,
    model: nn.Module,
    images: Tensor,
    *,
    labels: Sequence[str] | None = None,
    normalize: bool | Normalization = True,
) -> VerificationReport:
    """Execute a package on images, and compare file and results with the network's.

    Args:
        package: a folder that `export_coreml` wrote.
        model: the network it was made of, in any mode, re-parameterized or not.
        images: uint8, shape `(N, C, H, W)`, of the package's size and channels.
        labels: the names of the classes; `model.classes` when None.
        normalize: as `export_coreml` was told.

    Raises:
        VerificationError: the package is not the network, or leaves the range of float16.
        MilError: the package is damaged, or cannot be executed.
        ValueError: other images, or a package that `export_coreml` did not make.
    """
    program = mil.load(package)
    settings = Settings.of(program)
    shape = (settings.channels, settings.size, settings.size)
    if images.dtype != torch.uint8 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"{package} takes uint8 images of shape (N, {', '.join(map(str, shape))}), not "
            f"{images.dtype} of {tuple(images.shape)}"
        )
    names = list(labels or getattr(model, "classes", None) or []) or None
    check_said(program, settings, names, normalization(model, normalize))
    check_network(model, settings, images[:1])
    network = reparameterize(model).cpu().float()
    expected = reference(network, settings, images)
    if tuple(expected) != settings.outputs:
        raise VerificationError(
            f"{package} calls its outputs {settings.outputs}, and the network gives "
            f"{', '.join(expected)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        twin = load_twin(program, network, settings, Path(folder))
        operations, constants = compare_programs(program, twin)
        check_description(program, twin)
        if any(constant.compression for constant in program.constants.values()):
            anew = load_anew(program, network, settings, Path(folder))
            compare_programs(program, anew, unlike)
        float32_error = relative_error(outputs_of(twin, images, "float32"), expected)
    if not float32_error <= FLOAT32_LIMIT:
        raise VerificationError(
            f"{package}: in float32 the logits differ from PyTorch's by {float32_error:.2g} of "
            f"their norm; at most {FLOAT32_LIMIT:g} is rounding"
        )
    watch = Watch(program.path, settings.precision)
    outputs = outputs_of(program, images, settings.precision, watch)
    if not relative_error(outputs, expected) < WORST:
        raise VerificationError(
            f"{package}: its outputs have nothing in common with the network's; compress it less"
        )
    agreement, margin = answers(outputs, expected)
    deviation = max((outputs[name] - expected[name]).abs().max().item() for name in expected)
    return VerificationReport(
        path=Path(package),
        images=len(images),
        operations=operations,
        constants=constants,
        float32_error=float32_error,
        float16_error=relative_error(outputs, expected)
        if settings.precision == "float16"
        else None,
        peak=watch.peak,
        peak_at=watch.peak_at,
        agreement=agreement,
        margin=margin,
        deviation=deviation,
    )


def answers(outputs: Outputs, expected: Outputs) -> tuple[float | None, float | None]:
    """Agreement and margin of logits; of maps without classes there are none."""
    if "logits" not in expected or expected["logits"].shape[1] < 2:
        return None, None
    same = outputs["logits"].argmax(1) == expected["logits"].argmax(1)
    best = expected["logits"].topk(2, dim=1).values
    return same.double().mean().item(), (best[:, 0] - best[:, 1]).min().item()


def check_said(
    program: Program,
    settings: Settings,
    labels: list[str] | None,
    wanted: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    """Whether the package prepares images and names classes as the caller says."""
    if (settings.mean, settings.std) != wanted:
        raise VerificationError(
            f"{program.path} normalises by {settings.mean} and {settings.std}, and the network "
            f"takes {wanted[0]} and {wanted[1]}; export it again, or give normalize= as then"
        )
    found = labels_of(program)
    if found is not None and labels is None:
        raise ValueError(f"{program.path} names its classes: give labels=, to compare them with")
    if found is not None and found != labels:
        pairs = zip_longest(found, labels or [])
        first = next(i for i, (ours, theirs) in enumerate(pairs) if ours != theirs)
        raise VerificationError(
            f"{program.path} has other labels than the caller: they differ from the {first}th on"
        )


def check_description(program: Program, twin: Program) -> None:
    """Whether an application reads the same description as of the twin."""
    pairs = zip_longest(program.description.split("\n"), twin.description.split("\n"))
    for ours, theirs in pairs:
        if ours != theirs:
            raise VerificationError(
                f"{program.path} describes itself by {(ours or '').strip()!r}, and the network "
                f"needs {(theirs or '').strip()!r}"
            )
    if (program.opset, program.inputs) != (twin.opset, twin.inputs):
        raise VerificationError(
            f"{program.path} is for {program.opset} and takes {program.inputs}, and the network's "
            f"is for {twin.opset} and takes {twin.inputs}"
        )


def load_anew(program: Program, network: nn.Module, settings: Settings, folder: Path) -> Program:
    """The network converted and compressed as the package was."""
    converted, _ = convert(network, settings, labels_of(program))
    save(converted, folder / "anew.mlpackage")
    return mil.load(folder / "anew.mlpackage")


def load_twin(program: Program, network: nn.Module, settings: Settings, folder: Path) -> Program:
    """The network converted as the package was, but in float32 and without compression."""
    plain = replace(settings, precision="float32", compress=None)
    converted, _ = convert(network, plain, labels_of(program))
    save(converted, folder / "twin.mlpackage")
    return mil.load(folder / "twin.mlpackage")


def compare_programs(
    program: Program,
    twin: Program,
    difference_of: Callable[[Constant | None, Constant | None], str] | None = None,
) -> tuple[int, int]:
    """Walk through two programs from their outputs to their inputs, casts of floats left out.

    Args:
        difference_of: how two constants differ, in words; by default what the precision and the
            compression do not explain.

    Returns:
        How many operations and how many constants were compared.

    Raises:
        VerificationError: naming the first that differs.
    """
    precision = Settings.of(program).precision
    if program.outputs != twin.outputs or program.inputs.keys() != twin.inputs.keys():
        raise VerificationError(f"{program.path} has other inputs or outputs than its network")
    makers, twin_makers = producers(program), producers(twin)
    waiting: list[tuple[Bound, Bound, str]] = [(name, name, "the output") for name in twin.outputs]
    compared: set[tuple[str, str]] = set()
    constants = 0
    while waiting:
        our_bound, their_bound, where = waiting.pop()
        ours, theirs = source(program, makers, our_bound), source(twin, twin_makers, their_bound)
        if ours in program.inputs or theirs in twin.inputs:
            if ours != theirs:
                raise VerificationError(f"{program.path}: {where} is bound to {ours!r}")
            continue
        our_constant, their_constant = mil.constant(program, ours), mil.constant(twin, theirs)
        if our_constant or their_constant:
            if difference := (difference_of or differing)(our_constant, their_constant):
                raise VerificationError(f"{program.path}: {where} {difference}")
            constants += 1
            continue
        assert isinstance(ours, str) and isinstance(theirs, str)  # a literal is a constant
        (operation, index), (their_operation, their_index) = makers[ours], twin_makers[theirs]
        if outline(operation, index) != outline(their_operation, their_index) or not is_declared(
            operation, their_operation, "float32" if reads_input(program, operation) else precision
        ):
            raise VerificationError(
                f"{program.path}: {where} is {text(operation, index)}, and the network has "
                f"{text(their_operation, their_index)}"
            )
        names = operation.name, their_operation.name
        if names not in compared:
            compared.add(names)
            waiting += operand_pairs(operation, their_operation)
    return len(compared), constants


def operand_pairs(ours: Operation, theirs: Operation) -> Iterator[tuple[Bound, Bound, str]]:
    for parameter in theirs.inputs:
        bounds = bounds_of(ours.inputs[parameter]), bounds_of(theirs.inputs[parameter])
        for our_bound, their_bound in zip(*bounds, strict=True):
            yield our_bound, their_bound, f"{parameter} of {ours.type} {ours.name!r}"


def producers(program: Program) -> dict[str, tuple[Operation, int]]:
    """Of each result the operation that gives it, and which of its results it is."""
    return {
        name: (operation, index)
        for operation in program.operations
        for index, name in enumerate(operation.outputs)
    }


def source(program: Program, makers: dict[str, tuple[Operation, int]], bound: Bound) -> Bound:
    """What a value is before it was cast from one floating type to another."""
    while isinstance(bound, str) and bound in makers and makers[bound][0].type == "cast":
        cast = makers[bound][0]
        before, dtype = cast.inputs.get("x"), cast.inputs.get("dtype")
        types = program.inputs | (makers[before][0].outputs if before in makers else {})
        if not isinstance(before, str) or before not in types:
            break
        if not {cast.outputs[bound].dtype, types[before].dtype} <= {"float16", "float32"}:
            break
        named = None if dtype is None else mil.constant(program, dtype)
        if named is None or SHORT.get(str(named.value)) != cast.outputs[bound].dtype:
            raise VerificationError(f"{program.path}: {bound!r} is cast to what it does not say")
        bound = before
    return bound


def outline(operation: Operation, index: int) -> tuple[object, ...]:
    """What must be the same where two values are results, the operands apart."""
    parameters = {
        parameter: len(bounds_of(binding)) for parameter, binding in operation.inputs.items()
    }
    shapes = [declared.shape for declared in operation.outputs.values()]
    return index, operation.type, parameters, shapes


def reads_input(program: Program, operation: Operation) -> bool:
    """Whether the operation prepares the image, which comes in float32."""
    return any(name in program.inputs for name in mil.operands(operation))


def is_declared(ours: Operation, theirs: Operation, precision: str) -> bool:
    """Whether results are declared with the twin's types, its float32 as the precision."""
    return all(
        our.dtype == (precision if their.dtype == "float32" else their.dtype)
        for our, their in zip(ours.outputs.values(), theirs.outputs.values(), strict=True)
    )


def text(operation: Operation, index: int) -> str:
    declared = list(operation.outputs.values())[index]
    return f"result {index} of {operation.type} {operation.name!r}, shape {declared.shape}"


def differing(ours: Constant | None, twin: Constant | None) -> str:
    """How a constant differs from what it should be; nothing where it does not."""
    if ours is None or twin is None:
        return f"is {'computed' if ours is None else 'a constant'}, unlike the network's"
    value, expected = ours.value, twin.value
    if not isinstance(expected, Tensor):
        return "" if value == expected else f"is {value!r}, and the network has {expected!r}"
    if not isinstance(value, Tensor) or value.shape != expected.shape:
        return "has another shape than the network's"
    if not expected.is_floating_point():
        same = torch.equal(value.double(), expected.double())
        return "" if same else f"is {value.tolist()}, and the network has {expected.tolist()}"
    wrong = ~allowed(ours, expected)
    if not wrong.any():
        return ""
    kind = ours.compression or str(value.dtype).removeprefix("torch.")
    return (
        f"differs from the network's in {int(wrong.sum()):,} of {wrong.numel():,} numbers, more "
        f"than {kind} explains"
    )


def unlike(ours: Constant | None, anew: Constant | None) -> str:
    """How a constant differs from the one that the same compression gives; nothing where it does
    not."""
    if ours and anew and ours.compression == anew.compression:
        if isinstance(ours.value, Tensor) and isinstance(anew.value, Tensor):
            if torch.equal(ours.value, anew.value):
                return ""
        elif type(ours.value) is type(anew.value) and ours.value == anew.value:
            return ""
    return "is not what the same compression of the network gives"


def allowed(ours: Constant, expected: Tensor) -> Tensor:
    """Which numbers of a constant are what the method of its storage makes of `expected`.

    A plain constant is exact: the half in float16. Only the converter keeps a number whose half
    would be 0 at the smallest half.
    """
    numbers = ours.tensor.float()
    if not ours.compression:
        if ours.tensor.dtype != torch.float16:
            return numbers == expected
        half = expected.half().float()
        kept = (half == 0) & (expected != 0) & (numbers == expected.sign() * SMALLEST_HALF)
        return (numbers == half) | kept
    rounding = HALF_STEP * expected.abs().max()
    if "sparse" in ours.compression:
        zero = numbers == 0
        limit = expected[~zero].abs().min() if not zero.all() else 0
        return torch.where(zero, expected.abs() <= limit + rounding, numbers == expected.half())
    if "lut" in ours.compression:
        return (numbers - expected).abs() <= nearest(ours, expected) + rounding
    return (numbers - expected).abs() <= step(ours) / 2 + rounding


def nearest(palettized: Constant, expected: Tensor) -> Tensor:
    """The distance of each number from the nearest value of its table; from iOS 18 on each block of
    a constant has a table of its own."""
    tables = need_tensor(palettized.parts["lut"]).float()
    if tables.ndim != expected.ndim + 2:
        return to_table(tables, expected)
    distances = torch.empty_like(expected)
    for place in np.ndindex(*tables.shape[:-2]):
        block = tuple(
            slice(i * side // count, (i + 1) * side // count)
            for i, side, count in zip(place, expected.shape, tables.shape, strict=False)
        )
        distances[block] = to_table(tables[place], expected[block])
    return distances


def to_table(table: Tensor, expected: Tensor) -> Tensor:
    values = table.flatten().unique()
    above = torch.bucketize(expected, values).clamp(max=len(values) - 1)
    return torch.stack(
        [(expected - values[near]).abs() for near in (above, (above - 1).clamp(min=0))]
    ).amin(0)


def step(quantized: Constant) -> Tensor:
    """The distance of neighbouring values of a linearly quantized constant, per element."""
    name = "data" if "data" in quantized.parts else "quantized_data"
    one_higher = quantized.parts | {name: need_tensor(quantized.parts[name]).short() + 1}
    values, higher = (
        need_tensor(evaluate(quantized.compression, parts))
        for parts in (quantized.parts, one_higher)
    )
    return (higher - values).abs()
