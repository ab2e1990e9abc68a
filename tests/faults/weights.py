"""Files of weights, damaged at random: bytes, headers, metadata, tensors, archives. Each must be
refused, or load as if it were whole; those of PyTorch before 1.6 have no checksum, and are only
asked for an error that is told."""

import io
import json
import random
import tempfile
import zipfile
from pathlib import Path

import torch

from paperrepro import create_model, load_model, save_model
from paperrepro.weights import WeightsError

from ._tally import Tally, main

OPTIONS = {"num_classes": 4, "embed_dim": 8, "depths": (1, 1, 1, 1)}
ODD = [None, -1, 0, 2**40, 1e300, "", "x", [], {}, [10**9], True, "nan", float("nan")]


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    early = chance.random() < 0.5
    for _ in range(chance.choice([1, 1, 2, 20])):
        place = chance.randrange(min(len(damaged), 2000) if early else len(damaged))
        damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def spliced(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(content)) for _ in range(2))
    return (
        content[:start] + content[end:] if chance.random() < 0.5 else content + content[start:end]
    )


def header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with one value of its header replaced, anywhere."""
    size = int.from_bytes(content[:8], "little")
    fields = json.loads(content[8 : 8 + size])
    place = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = chance.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.9:
            place = inner
            continue
        place[key] = chance.choice(ODD)
        if isinstance(inner, str) and chance.random() < 0.5:
            place[key] = chance.choice(["F16", "I32", "C64", "BOOL", "mobileone_s0", "null", "{}"])
        break
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def tensors(content: bytes, chance: random.Random) -> bytes:
    """A state dict with one entry of another kind."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    key = chance.choice(list(state))
    value = state[key]
    state[key] = chance.choice(
        [
            value.to(torch.int16),
            value.to(torch.complex64),
            value.float() * float("nan"),
            value.float() + float("inf"),
            value.flatten()[:1].float().expand(10**6),
            value.unsqueeze(0),
            {"a": value},
            None,
            value.float().to_sparse(),
            torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        ]
    )
    if chance.random() < 0.2:
        state[chance.choice([1, (1, 2), None, "more"])] = value
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def deflated(content: bytes, chance: random.Random) -> bytes:
    """An archive whose entries are cut, renamed, left out or compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        unlucky = chance.choice(old.namelist())
        for name in old.namelist():
            data, kind = old.read(name), zipfile.ZIP_STORED
            if name == unlucky:
                name, data, kind = chance.choice(
                    [
                        (name, flipped(data, chance), kind),
                        (name, cut(data, chance), kind),
                        (name + "x", data, kind),
                        ("../" + name, data, kind),
                        (name, bytes(4 * len(content)), zipfile.ZIP_DEFLATED),
                    ]
                )
            new.writestr(name, data, kind)
    return buffer.getvalue()


def attempt(count: int, seed: int = 0) -> Tally:
    tally, chance = Tally("weights"), random.Random(seed)
    torch.manual_seed(0)
    model = create_model("fasternet_t0", **OPTIONS)
    whole = {key: value.clone() for key, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network"
        save_model(model, path)
        ours = path.read_bytes()
        buffers = io.BytesIO(), io.BytesIO()
        torch.save(whole, buffers[0])
        torch.save(whole, buffers[1], _use_new_zipfile_serialization=False)
        archive, legacy = (buffer.getvalue() for buffer in buffers)
        ways = [
            *((ours, way) for way in (flipped, cut, spliced, header)),
            *((archive, way) for way in (flipped, cut, spliced, tensors)),
            *((legacy, way) for way in (flipped, cut, spliced)),
            (archive, deflated),
        ]
        for number in range(count):
            content, damage = ways[number % len(ways)]
            path.write_bytes(damage(content, chance))
            what = f"{damage.__name__} of {'ours' if content is ours else 'a pickle'}, {number}"
            with tally.one(what, WeightsError):
                if content is ours:
                    loaded = load_model(path)
                else:
                    loaded = create_model("fasternet_t0", weights=path, **OPTIONS)
                state = loaded.state_dict()
                equal = state.keys() == whole.keys() and all(
                    torch.equal(state[key], value) for key, value in whole.items()
                )
                finite = all(value.isfinite().all() for value in state.values())
                # What was made with tools, and is another whole file, is not damage.
                if not finite or not (equal or content is legacy or damage is deflated):
                    tally.wrong.append(what)
    return tally


if __name__ == "__main__":
    main(attempt, 4000)
