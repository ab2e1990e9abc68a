"""Packages, damaged at random wherever a device reads: weights, tables, operations, types,
description, metadata, and the bytes of the files. Verification must refuse each, unless all that
the package computes and says is what it was; and it must tell why."""

import json
import random
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from paperrepro import create_model
from paperrepro.datasets import Shapes
from paperrepro.export import export_coreml, mil, verify, verify_coreml
from paperrepro.export.coreml import outputs_of
from paperrepro.export.network import calibrate

from ._tally import Tally, main

SIZE = 32
OPTIONS = {"num_classes": 4, "embed_dim": 16, "depths": (1, 1, 1, 1)}
LABELS = ["circle", "square", "star", "ring"]
KINDS = (
    {},
    {"labels": LABELS},
    {"precision": "float32"},
    {"compress": "int8"},
    {"compress": "palette4", "labels": LABELS},
    {"compress": "prune"},
)


def protobuf_file(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/model.mlmodel"


def fields(message, found=None) -> list:
    """Every scalar and repeated field that is set, in a message and below: (message, field)."""
    found = [] if found is None else found
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [value[key] for key in value]
        else:
            inner = list(value) if field.is_repeated else [value]
        for each in inner:
            if hasattr(each, "ListFields"):
                fields(each, found)
    return found


def other(field, value, chance: random.Random):
    """Another value of the field's type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return max(0, value + chance.choice([-2, -1, 1, 2, 32]))
    if isinstance(value, float):
        return chance.choice([0.0, -value, value * 2, value + 1e-3, float("nan")])
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1 << chance.randrange(8)]) if value else b"x"
    swaps = {"EXACT": "TANH_APPROXIMATION", "fp16": "fp32", "fp32": "fp16", "valid": "same"}
    return swaps.get(value, chance.choice(["", "x", value + "x", "relu", "add", "image", "logits"]))


def change(message, chance: random.Random) -> None:
    """Another value, one less, or the same twice, in some field of a message."""
    owner, field = chance.choice(fields(message))
    value = getattr(owner, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key = chance.choice(list(value))
        if hasattr(value[key], "ListFields") or chance.random() < 0.5:
            del value[key]
        else:
            value[key] = other(field, value[key], chance)
    elif field.is_repeated:
        index = chance.randrange(len(value))
        second = chance.randrange(len(value))
        if field.message_type is not None:
            if chance.random() < 0.5:
                copied = type(value[index])()
                copied.CopyFrom(value[index])
                value[index].CopyFrom(value[second])
                value[second].CopyFrom(copied)
            else:
                del value[index]
        else:
            value[index] = other(field, value[index], chance)
    elif field.message_type is not None:
        owner.ClearField(field.name)
    else:
        try:
            setattr(owner, field.name, other(field, value, chance))
        except (ValueError, TypeError):
            owner.ClearField(field.name)


def of_program(package: Path, chance: random.Random) -> None:
    edit(package, lambda model: change(model.mlProgram, chance))


def of_description(package: Path, chance: random.Random) -> None:
    edit(package, lambda model: change(model.description, chance))


def of_operations(package: Path, chance: random.Random) -> None:
    """One operation is changed, taken out, or done twice."""

    def damage(model) -> None:
        main_function = model.mlProgram.functions["main"]
        operations = main_function.block_specializations[main_function.opset].operations
        index = chance.randrange(len(operations))
        action = chance.random()
        if action < 0.7:
            change(operations[index], chance)
        elif action < 0.85:
            del operations[index]
        else:
            operations.append(operations[index])

    edit(package, damage)


def of_settings(package: Path, chance: random.Random) -> None:
    def damage(model) -> None:
        told = model.description.metadata.userDefined
        settings = json.loads(told["paperrepro.settings"])
        key = chance.choice(list(settings))
        settings[key] = chance.choice(
            [None, 0, 33, "x", [], [0.5] * 3, not settings[key], "float32", "iOS18", "int8", {}]
        )
        told["paperrepro.settings"] = json.dumps(settings)

    edit(package, damage)


def of_weights(package: Path, chance: random.Random) -> None:
    """A bit, a stretch of zeros, or two stretches that change places."""
    file = package / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(file.read_bytes())
    length = chance.choice([1, 2, 64, 512])
    first, second = (chance.randrange(len(content) - length) for _ in range(2))
    action = chance.random()
    if action < 0.6:
        content[first] ^= 1 << chance.randrange(8)
    elif action < 0.8:
        content[first : first + length] = bytes(length)
    elif action < 0.95:
        a, b = content[first : first + length], content[second : second + length]
        content[first : first + length], content[second : second + length] = b, a
    else:
        del content[-chance.randrange(1, 500) :]
    file.write_bytes(content)


def of_bytes(package: Path, chance: random.Random) -> None:
    """The protobuf or the manifest as a file: flipped, cut, put together."""
    file = chance.choice([protobuf_file(package), package / "Manifest.json"])
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 1, 3])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    file.write_bytes(content)


def edit(package: Path, damage) -> None:
    from coremltools.proto.Model_pb2 import Model

    file = protobuf_file(package)
    model = Model.FromString(file.read_bytes())
    damage(model)
    file.write_bytes(model.SerializeToString())


DAMAGES = (of_program, of_operations, of_description, of_settings, of_weights, of_weights, of_bytes)


def works(program, images) -> list:
    """All that a package computes, as declared, and what it tells an application."""
    values = []
    entry = images.float()
    for image in entry:
        values += list(program({next(iter(program.inputs)): image.unsqueeze(0)}, "float16").items())
    outputs = outputs_of(program, images, "float16")
    told = [program.description, program.inputs, program.outputs]
    return [str(values), {key: value.tolist() for key, value in outputs.items()}, told]


def attempt(count: int, seed: int = 0, kinds=KINDS) -> Tally:
    tally, chance = Tally("packages"), random.Random(seed)
    torch.manual_seed(0)
    model = create_model("fasternet_t0", **OPTIONS)
    images = torch.stack([Shapes(4, SIZE, seed=1)[i][0] for i in range(4)])
    calibrate(model, images)
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(kinds):
            whole = Path(folder) / f"{number}.mlpackage"
            export_coreml(model, whole, size=SIZE, **kind)
            labels = kind.get("labels")
            kept: dict = {}
            with ExitStack() as stack:
                # Conversion takes seconds and is the same each time where the settings are.
                for name in ("load_twin", "load_anew"):
                    stack.enter_context(patch.object(verify, name, remembering(name, kept)))
                verify_coreml(whole, model, images[:1], labels=labels)
                expected = works(mil.load(whole), images[:1])
                for each in range(count // len(kinds)):
                    damage = DAMAGES[each % len(DAMAGES)]
                    path = Path(folder) / "damaged.mlpackage"
                    shutil.copytree(whole, path)
                    what = f"{damage.__name__} of {kind}, {each}"
                    with tally.one(what, ValueError):
                        damage(path, chance)
                        verify_coreml(path, model, images[:1], labels=labels)
                        if works(mil.load(path), images[:1]) != expected:
                            tally.wrong.append(what)
                    shutil.rmtree(path)
    return tally


def remembering(name: str, kept: dict):
    convert = getattr(verify, name)

    def once(program, network, settings, folder):
        key = (name, str(settings), str(verify.labels_of(program)))
        if key not in kept:
            kept[key] = convert(program, network, settings, folder)
        return kept[key]

    return once


if __name__ == "__main__":
    main(attempt, 2100)
