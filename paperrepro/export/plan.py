"""What a package asks of a device: multiply-accumulates, bytes and parameters of each operation.

    >>> table = plan("mobileone_s0.mlpackage")
    >>> table["macs"].sum()

All of it is read from the file. Where an operation runs, only a device's own compute plan tells
(`paperrepro.export.mac`). The column `hint` names what others report to keep operations off the
Neural Engine, with the source: a hint, no prediction.
"""

import math
import os

import pandas as pd
from torch import Tensor

from . import mil
from .mil import Constant, Program
from .package import MilError, Operation, Type

APPLE = "Apple, coreai-models, neural_engine_rules.md"
ANE_GUIDE = "ane-guide, a third party's measurement"

# The parameters of operations that a network learns.
LEARNED = ("weight", "bias", "gamma", "beta")
WIDEST_A13, WIDEST_A14 = 13, 16


def plan(package: str | os.PathLike) -> pd.DataFrame:
    """Take a package apart.

    Returns:
        One row per operation, in the order of the file:
        `operation`, its name; `type`; `shape` and `dtype` of its first result; `macs`,
        multiply-accumulates of convolutions and products of matrices, the same that
        `benchmark.complexity.count_macs` counts; `parameters`, learned numbers; `weight_bytes`,
        what its constants take in the file, compressed as they are; `activation_bytes`, what it
        reads and writes besides; `hint`. What several operations share is counted at the first.

    Raises:
        MilError: the package is damaged, or a shape is free, so that nothing can be counted.
    """
    program = mil.load(package)
    types = program.inputs | {
        name: declared
        for operation in program.operations
        for name, declared in operation.outputs.items()
    }
    counted: set[str] = set()
    rows = []
    for operation in program.operations:
        constants = constants_of(program, operation)
        new = {key: named for key, named in constants.items() if named[0] not in counted}
        counted |= {name for name, _ in new.values()}
        declared = next(iter(operation.outputs.values()))
        moved = [types[name] for name in mil.operands(operation) if name in types]
        rows.append(
            {
                "operation": operation.name,
                "type": operation.type,
                "shape": " x ".join(map(str, declared.shape or ())),
                "dtype": declared.dtype,
                "macs": macs(operation, constants, types, program),
                "parameters": sum(
                    constant.tensor.numel()
                    for parameter, (_, constant) in new.items()
                    if parameter in LEARNED
                ),
                "weight_bytes": sum(constant.stored_bytes for _, constant in new.values()),
                "activation_bytes": sum(map(byte_size, [*moved, *operation.outputs.values()])),
                "hint": "; ".join(hints(operation, constants)),
            }
        )
    return pd.DataFrame(rows)


def constants_of(program: Program, operation: Operation) -> dict[str, tuple[str, Constant]]:
    """The floating constants of an operation by parameter, each with its name."""
    constants: dict[str, tuple[str, Constant]] = {}
    for parameter, bound in operation.inputs.items():
        constant = mil.constant(program, bound)
        if constant and isinstance(constant.value, Tensor) and constant.value.is_floating_point():
            name = bound if isinstance(bound, str) else f"{operation.name}.{parameter}"
            constants[parameter] = name, constant
    return constants


def macs(
    operation: Operation,
    constants: dict[str, tuple[str, Constant]],
    types: dict[str, Type],
    program: Program,
) -> int:
    """Multiply-accumulates: the numbers of the result times those summed up in each."""
    outputs = size(next(iter(operation.outputs.values())))
    if operation.type in ("conv", "linear"):
        if "weight" not in constants:
            raise MilError(f"{program.path}: {operation.type} {operation.name!r} has no weights")
        return outputs * math.prod(constants["weight"][1].tensor.shape[1:])
    if operation.type == "matmul":
        left = operation.inputs["x"]
        if isinstance(left, str) and left in types:
            shape = types[left].fixed_shape
        else:
            shape = tuple(constants["x"][1].tensor.shape)
        transposed = mil.constant(program, operation.inputs.get("transpose_x", ""))
        return outputs * shape[-2 if transposed and transposed.value else -1]
    return 0


def size(declared: Type) -> int:
    """How many numbers a value has; of a label or a dictionary none."""
    if declared.shape is None or declared.dtype == "string":
        return 0
    return math.prod(declared.fixed_shape)


def byte_size(declared: Type) -> int:
    return size(declared) and size(declared) * mil.TORCH_TYPES[declared.dtype].itemsize


def hints(operation: Operation, constants: dict[str, tuple[str, Constant]]) -> list[str]:
    """What is said to keep an operation off the Neural Engine."""
    declared = next(iter(operation.outputs.values()))
    reasons = []
    if declared.dtype == "float32":
        reasons.append(f"float32 ({APPLE})")
    if declared.shape and len(declared.shape) > 5:
        reasons.append(f"rank above 5 ({APPLE})")
    if operation.type == "conv":
        width = constants["weight"][1].tensor.shape[-1]
        if width > WIDEST_A13:
            limit = f"over {WIDEST_A13} on A13 and M1, over {WIDEST_A14} from A14: {ANE_GUIDE}"
            reasons.append(f"kernel {width} wide ({limit}; large kernels: {APPLE})")
    return reasons
