"""What a package asks of a device: multiply-accumulates, bytes and parameters of each operation.

    >>> table = plan("mobileone_s0.mlpackage")
    >>> table["macs"].sum()

All of it is read from the file. Where an operation runs, only a device's own compute plan tells
(`paperrepro.export.mac`). The column `hint` names what others report to keep operations off the
Neural Engine, with the source, and `remedy` what to change: hints, no predictions. The sources
contradict each other: of dilated convolutions, RapidNet's, one says that they run there.
"""

import math
import os

import pandas as pd
from torch import Tensor

from . import mil
from .mil import Constant, Program
from .package import MilError, Operation, Type, coremltools

APPLE = "Apple, coreai-models, neural_engine_rules.md"
ANE_GUIDE = "ane-guide, a third party's measurement"
HOLLANCE = "hollance/neural-engine, unsupported-layers.md"

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
        reads and writes besides; `ios`, the oldest system that has the operation, its compressed
        weights included; `hint`; `remedy`. What several operations share is counted at the first.

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
                "ios": oldest_ios(operation, constants),
                "hint": "; ".join(reason for reason, _ in hints(operation, constants, program)),
                "remedy": "; ".join(remedy for _, remedy in hints(operation, constants, program)),
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


def oldest_ios(operation: Operation, constants: dict[str, tuple[str, Constant]]) -> str:
    """The oldest iOS whose Core ML has the operation and the compression of its weights, with these
    parameters, as coremltools registers them; no package of this kind runs before iOS 15."""
    used = [(operation.type, set(operation.inputs))]
    used += [(c.compression, set(c.parts)) for _, c in constants.values() if c.compression]
    return f"iOS{max(15, *(first_ios(kind, parameters) for kind, parameters in used))}"


def first_ios(kind: str, parameters: set[str]) -> int:
    """The first version of an operation that takes such parameters; the newest if none does."""
    coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    versions = {int(target.name[3:]): op for target, op in SSAOpRegistry.core_ops[kind].items()}
    for version, operation in sorted(versions.items()):
        known = operation.input_spec.input_types
        needed = {name for name, declared in known.items() if not declared.optional}
        if needed <= parameters <= known.keys():
            return version
    return max(versions)


def hints(
    operation: Operation, constants: dict[str, tuple[str, Constant]], program: Program | None = None
) -> list[tuple[str, str]]:
    """What is said to keep an operation off the Neural Engine, each with what to change."""
    declared = next(iter(operation.outputs.values()))
    reasons = []
    if declared.dtype == "float32":
        reasons.append((f"float32 ({APPLE})", "export with precision='float16'"))
    if declared.shape and len(declared.shape) > 5:
        reasons.append((f"rank above 5 ({APPLE})", "reshape to fewer sides"))
    if operation.type in ("gather", "gather_along_axis"):
        reasons.append((f"gather ({HOLLANCE})", "two slices and a concatenation (models.roll)"))
    if operation.type == "conv":
        width = constants["weight"][1].tensor.shape[-1]
        if width > WIDEST_A13:
            limit = f"over {WIDEST_A13} on A13 and M1, over {WIDEST_A14} from A14: {ANE_GUIDE}"
            reasons.append(
                (
                    f"kernel {width} wide ({limit}; large kernels: {APPLE})",
                    f"train with kernels up to {WIDEST_A13}; else expect the GPU",
                )
            )
        dilations = (
            mil.constant(program, operation.inputs.get("dilations", "")) if program else None
        )
        if dilations and max(dilations.tensor.flatten().tolist()) > 1:
            reasons.append(
                (
                    f"dilated ({HOLLANCE}: not supported; {ANE_GUIDE}: native)",
                    "look at the device's plan; if it falls back, train RapidNet with dilation 1",
                )
            )
    return reasons
