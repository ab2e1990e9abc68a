"""The files of a Core ML package: a protobuf that declares a program, and a file of weights.

`paperrepro.export.mil` executes what `read` returns. Constants, compressed or not, are operations
here like all others, as they are in the file. Weights are mapped into memory and read when used.
"""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# MIL's types and those of torch that hold their values.
TORCH_TYPES = {
    **{name: getattr(torch, name) for name in "bool float16 float32 float64 uint8".split()},
    **{name: getattr(torch, name) for name in "int8 int16 int32 int64".split()},
    **{"uint16": torch.int32, "uint32": torch.int64, "int4": torch.int8},
    **{f"uint{bits}": torch.uint8 for bits in (1, 2, 3, 4, 6)},
}
BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}  # less than a byte
# The numbers of the types in a file of weights (coremltools, MILBlob/Blob/BlobDataType.hpp).
BLOB_TYPES = (
    "- float16 float32 uint8 int8 - int16 uint16 int4 uint1 uint2 uint4 uint3 uint6 int32 uint32"
).split()
BLOB_MARK = 0xDEADBEEF


class MilError(ValueError):
    """A package that cannot be read or executed; the message names it, the place and the reason."""


@dataclass(frozen=True)
class Type:
    """What the file declares of a value: "float16", say, and its sides, None for a free one; of a
    list or a dictionary only that it is one."""

    dtype: str
    shape: tuple[int | None, ...] | None = None

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The sides, none of them free.

        Raises:
            MilError: one is, or it is no tensor.
        """
        sides = tuple(side for side in self.shape or () if side is not None)
        if self.shape is None or len(sides) < len(self.shape):
            raise MilError("a value has free sides; export it with a fixed size")
        return sides


@dataclass(frozen=True, eq=False)
class Literal:
    """A value in the file: a tensor, a string or a list; and its bytes there."""

    value: object
    stored_bytes: int


Bound = str | Literal
Binding = Bound | tuple[Bound, ...]


@dataclass(frozen=True)
class Operation:
    """One operation of the program.

    Attributes:
        type: "conv", "gelu", ...
        inputs: for each parameter the name of the value it is bound to, or a literal; of
            `values`, the operands of a concatenation, a tuple of them.
        outputs: the names of its results, each with its declared type.
    """

    type: str
    inputs: dict[str, Binding]
    outputs: dict[str, Type]

    @property
    def name(self) -> str:
        """The name of the first result."""
        return next(iter(self.outputs))


@dataclass(frozen=True)
class File:
    """The main function of a package and what the package says about itself.

    Attributes:
        opset: the version of the operations, such as "CoreML6" for iOS 16.
        inputs: the declared types by name; an image is a float tensor of 0 to 255.
        description: what an application is told: names, sizes, colour space, labels.
    """

    opset: str
    inputs: dict[str, Type]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    metadata: dict[str, str]
    description: str


def read(path: Path) -> File:
    """Read a package.

    Raises:
        MilError: it is not the package of an ML program, it is damaged, or it has a part that is
            not implemented.
        ValueError: coremltools is missing.
    """
    Model, DecodeError = protobuf()
    try:
        manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        file = inside(path / "Data", entry)
        model = Model.FromString(file.read_bytes())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, DecodeError) as error:
        raise MilError(
            f"{path} is not a whole .mlpackage ({type(error).__name__}: {error}); export it again"
        ) from error
    if model.WhichOneof("Type") != "mlProgram":
        raise MilError(f"{path} holds a {model.WhichOneof('Type')}, not an ML program")
    functions = model.mlProgram.functions
    if list(functions) != ["main"]:
        raise MilError(f"{path} has the functions {', '.join(functions)}; only one is implemented")
    try:
        return Reader(file.parent).file(functions["main"], model.description)
    except Exception as error:  # what is damaged raises anything
        raise MilError(f"{path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error says, in one line; of one without words its kind."""
    words = " ".join(str(error).split())
    return words if isinstance(error, MilError) else f"{type(error).__name__}: {words}"


def protobuf() -> tuple[Any, type[Exception]]:
    """The protobuf of a model, and the error of one that is damaged."""
    coremltools()
    from coremltools.proto.Model_pb2 import Model
    from google.protobuf.message import DecodeError

    return Model, DecodeError


def coremltools() -> ModuleType:
    """The library, imported without what it says of other versions and of macOS.

    Raises:
        ValueError: it is missing.
    """
    try:
        with quiet():
            import coremltools
    except ImportError as error:
        raise ValueError(
            'coremltools is not installed: pip install "paperrepro[export]"'
        ) from error
    return coremltools


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the progress bars of coremltools."""
    with redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inside(folder: Path, name: str) -> Path:
    """A file in a folder; a name that leads out of it is refused."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise MilError(f"{name!r} leads out of the package")
    return file


class Reader:
    """Takes one protobuf apart, with the files of weights in the folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights: dict[str, np.ndarray] = {}

    def file(self, main: Any, description: Any) -> File:
        if list(main.block_specializations) != [main.opset]:
            raise MilError(f"the program is for {', '.join(main.block_specializations)}, not one")
        block = main.block_specializations[main.opset]
        metadata = description.metadata
        told = type(description)()
        told.CopyFrom(description)
        told.ClearField("metadata")
        named = {
            "description": metadata.shortDescription,
            "license": metadata.license,
            "version": metadata.versionString,
        }
        return File(
            opset=main.opset,
            inputs={entry.name: declared_type(entry.type) for entry in main.inputs},
            outputs=tuple(block.outputs),
            operations=tuple(map(self.operation, block.operations)),
            metadata={key: text for key, text in named.items() if text} | {**metadata.userDefined},
            description=str(told),
        )

    def operation(self, message: Any) -> Operation:
        if message.blocks:
            raise MilError(f"{message.type}: an operation with blocks is not implemented")
        inputs: dict[str, Binding] = {
            parameter: self.literal(value)
            for parameter, value in message.attributes.items()
            if parameter != "name"
        }
        for parameter, argument in message.inputs.items():
            bounds = tuple(
                bound.name if bound.WhichOneof("binding") == "name" else self.literal(bound.value)
                for bound in argument.arguments
            )
            if parameter != "values" and len(bounds) != 1:
                raise MilError(f"{message.type}: {parameter} is bound to {len(bounds)} values")
            inputs[parameter] = bounds if parameter == "values" else bounds[0]
        outputs = {result.name: declared_type(result.type) for result in message.outputs}
        return Operation(message.type, inputs, outputs)

    def literal(self, message: Any) -> Literal:
        if message.type.WhichOneof("type") == "listType":
            values = [self.literal(value).value for value in message.immediateValue.list.values]
            return Literal(values, message.ByteSize())
        declared = declared_type(message.type)
        if message.WhichOneof("value") == "blobFileValue":
            raw = self.blob(message.blobFileValue, declared.dtype)
            return Literal(tensor(raw, declared), raw.nbytes)
        immediate = message.immediateValue.tensor
        kind = immediate.WhichOneof("value")
        if kind == "bytes":
            raw = np.frombuffer(bytearray(immediate.bytes.values), np.uint8)
            return Literal(tensor(raw, declared), raw.nbytes)
        values = list(getattr(immediate, kind).values) if kind else []
        if declared.dtype == "string":
            return Literal(values if declared.shape else values[0], message.ByteSize())
        shape = declared.fixed_shape
        if len(values) != math.prod(shape):
            raise MilError(f"a constant declares {shape} and has {len(values)} values")
        value = torch.tensor(values, dtype=TORCH_TYPES[declared.dtype]).reshape(shape)
        return Literal(value, value.nbytes)

    def blob(self, place: Any, dtype: str) -> np.ndarray:
        """The bytes of an array in a file of weights (MILBlob, version 2).

        At its place stand 64 bytes, of which 24 matter here: a mark and the type, then the size and
        the offset of the array.
        """
        name = place.fileName.removeprefix("@model_path/")
        if name not in self.weights:
            self.weights[name] = np.memmap(inside(self.folder, name), np.uint8, mode="c")
        weights = self.weights[name]
        if place.offset + 64 > len(weights):
            raise MilError(f"{name} ends at {len(weights)} of at least {place.offset + 64} bytes")
        header = np.array(weights[place.offset : place.offset + 24])
        mark, kind = header[:8].view(np.uint32).tolist()
        size, start = header[8:].view(np.uint64).tolist()
        if mark != BLOB_MARK or kind >= len(BLOB_TYPES) or BLOB_TYPES[kind] != dtype:
            raise MilError(f"{name} has no array of {dtype} at {place.offset}")
        if start + size > len(weights):
            raise MilError(f"{name} ends at {len(weights)} of at least {start + size} bytes")
        return np.asarray(weights[start : start + size])


def declared_type(message: Any) -> Type:
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        return Type(kind)
    names = message.tensorType.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    dtype = names[message.tensorType.dataType].name.lower()
    if dtype != "string" and dtype not in TORCH_TYPES:
        raise MilError(f"the type {dtype} is not implemented")
    sides = [
        side.constant.size if side.WhichOneof("dimension") == "constant" else None
        for side in message.tensorType.dimensions
    ]
    return Type(dtype, tuple(sides))


def tensor(raw: np.ndarray, declared: Type) -> Tensor:
    """Bytes as a tensor of the declared type and shape."""
    shape = declared.fixed_shape
    count = math.prod(shape)
    bits = BITS.get(declared.dtype) or 8 * np.dtype(declared.dtype).itemsize
    if raw.nbytes != math.ceil(count * bits / 8):
        raise MilError(f"{raw.nbytes} bytes are not {shape} of {declared.dtype}")
    if declared.dtype in BITS:
        return unpack(raw, bits, count, signed=declared.dtype == "int4").reshape(shape)
    array = raw.view(declared.dtype)
    if declared.dtype in ("uint16", "uint32"):
        array = array.astype(np.int64)
    return torch.from_numpy(array).to(TORCH_TYPES[declared.dtype]).reshape(shape)


def unpack(raw: np.ndarray, bits: int, count: int, signed: bool = False) -> Tensor:
    """`count` numbers of a few bits each, the lowest bit first."""
    planes = np.unpackbits(raw, bitorder="little", count=count * bits).reshape(count, bits)
    numbers = np.zeros(count, np.int16)
    for i in range(bits):
        numbers |= planes[:, i].astype(np.int16) << i
    if signed:
        numbers[numbers >= 1 << (bits - 1)] -= 1 << bits
    return torch.from_numpy(numbers.astype(np.int8 if signed else np.uint8))


def need_tensor(value: object) -> Tensor:
    """The value, for what can only work with a tensor.

    Raises:
        MilError: it is something else.
    """
    if not isinstance(value, Tensor):
        raise MilError(f"a {type(value).__name__} stands where a tensor is needed")
    return value


def numbers(values: Tensor | None) -> tuple[int, ...]:
    """The numbers of a tensor; none of None."""
    return () if values is None else tuple(values.flatten().tolist())


def bounds_of(binding: Binding) -> tuple[Bound, ...]:
    """What a parameter is bound to; only `values` is bound to several."""
    return binding if isinstance(binding, tuple) else (binding,)


def fits(shape: Sequence[int], declared: tuple[int | None, ...] | None) -> bool:
    """Whether a shape is the declared one, free sides apart."""
    if declared is None:
        return False
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(side in (None, n) for n, side in pairs)
