"""The program of a Core ML package, executed with torch on any machine.

    >>> program = mil.load("mobileone_s0.mlpackage")
    >>> program(image)["logits"]                       # float32 throughout
    >>> program(image, mode="float16")["logits"]       # every result stored as the file declares it

A package holds one typed operation after the other, in Apple's Model Intermediate Language (MIL).
Neither Core ML nor the converter takes part here: an operation does what its documentation in
coremltools says, written down in `paperrepro.export.operations`.

Nothing is guessed. An operation or a parameter that is not in the table raises, and so does a
result whose shape is not the one that the file declares.

What runs is MIL as implemented here, never Core ML on a device. In "float16" the sums inside an
operation are float32; an accelerator may sum in half precision.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .operations import evaluate
from .package import (
    TORCH_TYPES,
    Binding,
    Bound,
    File,
    Literal,
    MilError,
    Operation,
    Type,
    bounds_of,
    fits,
    need_tensor,
    read,
    reason,
)

MODES = ("float64", "float32", "float16")
Hook = Callable[[Operation, tuple[object, ...]], None]


@dataclass(frozen=True)
class Constant:
    """A constant of the file.

    Attributes:
        value: a tensor, decompressed where it is compressed; a string or a list.
        stored_bytes: what it takes in the file.
        compression: the operation that decompresses it; nothing for a plain constant.
        parts: of a compressed constant, what that operation gets.
    """

    value: object
    stored_bytes: int
    compression: str = ""
    parts: dict[str, object] = field(default_factory=dict)

    @property
    def tensor(self) -> Tensor:
        return need_tensor(self.value)


@dataclass(frozen=True)
class Program:
    """The main function of a package; `load` makes it.

    Attributes:
        opset: the version of the operations, such as "CoreML6" for iOS 16.
        inputs: the declared types by name; an image is a float tensor of 0 to 255.
        outputs: the names of the results.
        operations: in the order of the file, without constants and their decompression.
        constants: by name.
        metadata: what the package says about itself.
        description: what it tells an application: names, sizes, colour space, labels.
    """

    path: Path
    opset: str
    inputs: dict[str, Type]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: dict[str, Constant]
    metadata: dict[str, str]
    description: str

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor | dict[str, Tensor],
        mode: str = "float32",
        hook: Hook | None = None,
    ) -> dict[str, object]:
        """Execute the program, operation by operation.

        Args:
            inputs: the tensor of the only input, or each input's by name.
            mode: "float64" and "float32" compute and keep every floating number so, whatever the
                file declares; only the weights are the file's. "float16" computes in float32 and
                rounds each result that the file declares float16.
            hook: called after each operation with it and its results.

        Returns:
            The outputs by name; of a classifier the label and a dictionary of probabilities.

        Raises:
            ValueError: an unknown mode, a missing input, or one of another shape.
            MilError: an operation that cannot be executed as the file says.
        """
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; use one of {', '.join(MODES)}")
        values = self.check_inputs(inputs, mode)
        last_use = {
            name: index
            for index, operation in enumerate(self.operations)
            for name in operands(operation)
        }
        for index, operation in enumerate(self.operations):
            try:
                results = self.execute(operation, values, mode)
            except Exception as error:  # a damaged parameter raises anything
                place = f"{self.path}: {operation.type} {operation.name!r}"
                words = " ".join(str(error).split()) or type(error).__name__
                raise MilError(f"{place}: {words}") from error
            values.update(zip(operation.outputs, results, strict=True))
            if hook:
                hook(operation, results)
            for name in {*operands(operation)} - {*self.outputs}:
                if last_use[name] == index:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def check_inputs(self, inputs: Tensor | dict[str, Tensor], mode: str) -> dict[str, object]:
        if isinstance(inputs, Tensor):
            inputs = dict.fromkeys(self.inputs, inputs) if len(self.inputs) == 1 else {}
        if inputs.keys() != self.inputs.keys():
            raise ValueError(
                f"{self.path} takes {', '.join(self.inputs)}, not {', '.join(inputs) or 'a tensor'}"
            )
        values: dict[str, object] = {}
        for name, declared in self.inputs.items():
            if not fits(inputs[name].shape, declared.shape):
                raise ValueError(
                    f"{self.path} takes {name} of the shape {declared.shape}, not "
                    f"{tuple(inputs[name].shape)}"
                )
            values[name] = stored(inputs[name].to(TORCH_TYPES[declared.dtype]), declared, mode)
        return values

    def execute(
        self, operation: Operation, values: dict[str, object], mode: str
    ) -> tuple[object, ...]:
        """The results of one operation, each as the mode keeps it."""

        def value(bound: Bound) -> object:
            if isinstance(bound, Literal):
                return wide(bound.value, mode)
            return values[bound] if bound in values else wide(self.constants[bound].value, mode)

        arguments = {
            parameter: (
                [value(bound) for bound in binding]
                if isinstance(binding, tuple)
                else value(binding)
            )
            for parameter, binding in operation.inputs.items()
        }
        results = evaluate(operation.type, arguments)
        results = tuple(results) if isinstance(results, list | tuple) else (results,)
        declared = tuple(operation.outputs.values())
        if len(results) != len(declared):
            raise ValueError(f"gives {len(results)} results, and the file declares {len(declared)}")
        return tuple(stored(*pair, mode) for pair in zip(results, declared, strict=True))


def load(path: str | os.PathLike[str]) -> Program:
    """The program of a package, its constants decompressed.

    Args:
        path: a folder `.mlpackage`, whoever made it.

    Raises:
        MilError: it is not the package of an ML program, it is damaged, or it has a part that is
            not implemented.
        ValueError: coremltools is missing.
    """
    path = Path(path)
    file = read(path)
    try:
        return program_of(path, file)
    except MilError:
        raise
    except Exception as error:  # what is damaged raises anything
        raise MilError(f"{path}: {reason(error)}") from error


def program_of(path: Path, file: File) -> Program:
    constants: dict[str, Constant] = {}
    operations = []
    known = {*file.inputs}
    for operation in file.operations:
        for name in operands(operation):
            if name not in known:
                raise MilError(
                    f"{path}: {operation.type} {operation.name!r} takes {name!r}, which nothing "
                    "before it gives"
                )
        if twice := known & operation.outputs.keys():
            raise MilError(f"{path}: {twice.pop()!r} is given twice")
        known |= operation.outputs.keys()
        if operation.type == "const":
            literal = operation.inputs["val"]
            if not isinstance(literal, Literal):
                raise MilError(f"{path}: the constant {operation.name!r} has no value")
            constants[operation.name] = Constant(literal.value, literal.stored_bytes)
        elif operation.type.startswith("constexpr_"):
            constants[operation.name] = decompressed(operation, constants, path)
        else:
            operations.append(operation)
    if not known.issuperset(file.outputs):
        raise MilError(f"{path}: nothing gives the outputs {', '.join(file.outputs)}")
    return Program(
        path,
        file.opset,
        file.inputs,
        file.outputs,
        tuple(operations),
        constants,
        file.metadata,
        file.description,
    )


def decompressed(operation: Operation, constants: dict[str, Constant], path: Path) -> Constant:
    """The value of an operation whose operands are constants."""
    stored_parts: dict[str, Literal | Constant] = {}
    for parameter, bound in operation.inputs.items():
        if isinstance(bound, tuple):
            raise MilError(f"{path}: {operation.type} {operation.name!r}: {parameter} has several")
        stored_parts[parameter] = bound if isinstance(bound, Literal) else constants[bound]
    parts = {parameter: part.value for parameter, part in stored_parts.items()}
    (declared,) = operation.outputs.values()
    try:
        value = need_tensor(stored(evaluate(operation.type, parts), declared, "float32"))
    except (RuntimeError, ValueError, IndexError) as error:
        raise MilError(f"{path}: {operation.type} {operation.name!r}: {error}") from error
    size = sum(part.stored_bytes for part in stored_parts.values())
    return Constant(value.to(TORCH_TYPES[declared.dtype]), size, operation.type, parts)


def constant(program: Program, bound: Binding) -> Constant | None:
    """The constant that a parameter is bound to, or None where it is computed."""
    if isinstance(bound, tuple):
        return None
    if isinstance(bound, Literal):
        return Constant(bound.value, bound.stored_bytes)
    return program.constants.get(bound)


def operands(operation: Operation) -> list[str]:
    """The names of the values that an operation uses, in the order of its parameters."""
    return [
        bound
        for binding in operation.inputs.values()
        for bound in bounds_of(binding)
        if isinstance(bound, str)
    ]


def wide(value: object, mode: str) -> object:
    """A floating tensor in the type in which the mode computes; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float64 if mode == "float64" else torch.float32)
    return value


def stored(value: object, declared: Type, mode: str) -> object:
    """A result as the mode keeps one of the declared type."""
    if not isinstance(value, Tensor):
        return value
    dtype = TORCH_TYPES[declared.dtype]
    if not fits(value.shape, declared.shape):
        raise ValueError(f"gives {tuple(value.shape)}, and the file declares {declared.shape}")
    if dtype.is_floating_point != value.is_floating_point():
        raise ValueError(f"gives {value.dtype}, and the file declares {declared.dtype}")
    if not dtype.is_floating_point:
        return value.to(dtype)
    return wide(value.half() if mode == declared.dtype == "float16" else value, mode)
