"""What a service feels of a network: cold start, tails, waiting under load, memory, preprocessing.

The weights are random and calibrated on drawn images, which changes no time; what int8 costs in
accuracy stands in `benchmark.quantization`. Each cold start is a process of its own, from the
interpreter's start to the first answer.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..export import export_executorch, export_onnx
from ..export.executorch import load
from ..export.onnx import session
from ..export.survey import calibrated, load_images
from ..models import check_name, input_of
from ..networks import transform_of
from ..reparam import reparameterize
from ..shapes import Shapes
from ..weights import save_model
from .latency import compare, torch_threads
from .runtimes import inference, missing
from .steps import Steps

SIZE = 224
NETWORKS = ("mobileone_s0", "fasternet_t0")
CALLS, REQUESTS = 300, 20_000
LOADS = (0.5, 0.8)
FORMS = {
    "eager": ("", None),
    "onnxruntime": (".onnx", None),
    "onnxruntime int8": (".onnx", "int8"),
    "executorch": (".pte", None),
    "executorch int8": (".pte", "int8"),
}
# What a fresh process does, up to its first answer; it then prints its memory.
START = {
    "": "import torch; from paperrepro import load_model\n"
    "torch.set_num_threads({threads}); model = load_model({path!r})\n"
    "with torch.inference_mode(): model(torch.zeros(1, 3, {size}, {size}))\n",
    ".onnx": "import numpy, onnxruntime\n"
    "options = onnxruntime.SessionOptions(); options.intra_op_num_threads = {threads}\n"
    "run = onnxruntime.InferenceSession({path!r}, options, providers=['CPUExecutionProvider'])\n"
    "run.run(None, dict(image=numpy.zeros((1, 3, {size}, {size}), numpy.float32)))\n",
    ".pte": "import torch; from executorch.runtime import Runtime\n"
    "method = Runtime.get().load_program({path!r}).load_method('forward')\n"
    "method.execute([torch.zeros(1, 3, {size}, {size})])\n",
}
# On Linux of /proc: what `resource` says there, a process takes over from the one that started it.
MEMORY = (
    "import resource, json, re, sys\n"
    "text = open('/proc/self/status').read() if sys.platform == 'linux' else ''\n"
    "found = re.search(r'VmHWM:\\s+(\\d+)', text)\n"
    "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "print(json.dumps(int(found[1]) if found else used))\n"
)


def run(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Measure networks as a service would run them, one image at a time.

    Args:
        names: of the papers' networks; None for `NETWORKS`.
        quick: the first of them.

    Returns:
        One row per network and form: `megabytes` of the file; `ms`, interleaved, and `over_eager`;
        of `CALLS` single calls the `p50_ms`, `p95_ms` and `p99_ms`; `p99_at_50` and `p99_at_80`,
        the 99th percentile in ms of waiting and computing together, when requests come at random
        at 50 and 80 % of what it can do: the measured times, with arrivals drawn by computer;
        `cold_s` to a first answer of a fresh process, the shortest of three; `memory_mb`, the most
        that it held; `null`. And a row "preprocessing": a JPEG of 500 x 375 pixels decoded,
        resized, cropped and normalised.

    Raises:
        ValueError: an unknown network, or a library that is missing.
    """
    for name in names or ():
        check_name(name)
    for runtime in ("executorch", "onnxruntime"):
        if problem := missing(runtime):
            raise ValueError(problem)
    steps = steps or Steps()
    names = names or (NETWORKS[:1] if quick else NETWORKS)
    for name in tqdm(names, desc="Deploying", disable=not progress):
        steps.take({"network": name}, partial(measure, name, threads))
    return steps.table


def measure(name: str, threads: int) -> list[dict[str, object]]:
    """The rows of one network."""
    with tempfile.TemporaryDirectory() as folder, torch_threads(threads):
        return measured(*prepare(name, Path(folder), threads), threads)


def measured(
    files: dict[str, Path], calls: dict[str, Callable[[], object]], threads: int
) -> list[dict[str, object]]:
    times = compare(calls, rounds=7, min_seconds=0.05, threads=threads)
    rows = []
    for form, call in calls.items():
        single = np.array([timed(call) for _ in range(CALLS)])
        row: dict[str, object] = {
            "form": form,
            "ms": times[form].median * 1e3,
            "over_eager": times.speed_up(form, "eager"),
            "null": times.null,
        }
        row |= {f"p{q}_ms": float(np.percentile(single, q)) * 1e3 for q in (50, 95, 99)}
        row |= {
            f"p99_at_{round(100 * load)}": 1e3 * float(np.percentile(waits(single, load), 99))
            for load in LOADS
        }
        if form in files:
            path, suffix = files[form], FORMS[form][0]
            starts = [cold_start(path, suffix, threads) for _ in range(3)]
            row |= {
                "megabytes": path.stat().st_size / 1e6,
                "cold_s": min(seconds for seconds, _ in starts),
                "memory_mb": min(memory for _, memory in starts),
            }
        rows.append(row)
    return rows


def prepare(
    name: str, folder: Path, threads: int
) -> tuple[dict[str, Path], dict[str, Callable[[], object]]]:
    """The file of each form, and a function that runs it once."""
    model = calibrated(name, load_images(None, SIZE, 4))
    network = reparameterize(model).requires_grad_(False)
    known, image = load_images(None, SIZE, 16), torch.rand(1, 3, SIZE, SIZE)
    files: dict[str, Path] = {}
    calls: dict[str, Callable[[], object]] = {}
    for form, (suffix, quantize) in FORMS.items():
        path = folder / f"{form.replace(' ', '-')}{suffix or '.safetensors'}"
        files[form] = path
        if not suffix:
            save_model(network, path)
            calls[form] = partial(inference(network), image)
            continue
        export = export_onnx if suffix == ".onnx" else export_executorch
        chosen = known if quantize else None
        export(model, path, size=SIZE, quantize=quantize, images=chosen)
        if suffix == ".pte":
            calls[form] = partial(load(path, threads), image)
        else:
            opened = session(path.read_bytes(), threads)
            calls[form] = partial(opened.run, None, {"image": image.numpy()})
    return files, calls | {"preprocessing": preprocessing(name)}


def preprocessing(name: str) -> Callable[[], Tensor]:
    """Decodes a photograph's worth of JPEG and prepares it as the network was evaluated."""
    drawn = Shapes(1, 500, seed=0)[0][0][:, :375].permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(drawn).save(buffer, "jpeg", quality=90)
    transform, content = transform_of(input_of(name)), buffer.getvalue()
    return lambda: transform(Image.open(BytesIO(content)).convert("RGB"))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def waits(service: np.ndarray, load: float, seed: int = 0) -> np.ndarray:
    """Seconds from a request to its answer, at one server that takes them in turn.

    Requests come at random (Poisson) at a share `load` of what the server can do; each takes one of
    the measured times. Lindley's recursion: who comes waits for what is left of those before.
    """
    draw = np.random.default_rng(seed)
    taken = draw.choice(service, REQUESTS)
    gaps = draw.exponential(service.mean() / load, REQUESTS)
    left, answered = 0.0, np.empty(REQUESTS)
    for i, (gap, seconds) in enumerate(zip(gaps, taken, strict=True)):
        left = max(left - gap, 0.0) + seconds
        answered[i] = left
    return answered


def cold_start(path: Path, suffix: str, threads: int) -> tuple[float, float]:
    """Seconds to the first answer of a fresh process, its end included, and its megabytes."""
    code = START[suffix].format(path=str(path), size=SIZE, threads=threads) + MEMORY
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if result.returncode:
        raise ValueError(f"{path.name} does not start: {result.stderr.strip().splitlines()[-1]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, json.loads(result.stdout.splitlines()[-1]) * unit / 1e6
