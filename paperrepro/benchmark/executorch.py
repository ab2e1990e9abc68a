"""All networks through ExecuTorch: the file is run by the phone's runtime, compared and timed.

Each network stands in a process of its own. The weights are random, calibrated on drawn images
(`export.calibrate`): what is proved is that the file is the network, whatever its weights.
"""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from ..export.executorch import export_executorch, load
from ..export.survey import calibrated, load_images, peak_memory
from ..models import Backbone, check_name, list_models
from ..reparam import reparameterize
from .latency import compare
from .runtimes import inference, missing, onnx_runtime

SIZE = 224
COLUMNS = (
    "network megabytes delegates error eager_ms onnxruntime_ms executorch_ms over_eager "
    "over_onnxruntime spread null seconds peak_gb note"
).split()
ONNX_LIMIT = 2e9
"""A protobuf, which an ONNX file is, holds at most so many bytes."""


def run(
    names: Sequence[str] | None = None,
    *,
    times: bool = True,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Export, execute, compare and time networks.

    Args:
        names: None for all thirty.
        times: False leaves the timing out.
        quick: MobileOne-S0 only.

    Returns:
        One row per network: `megabytes` of its float32 file; `delegates`, the pieces that XNNPACK
        takes (one: the whole network); `error`, the relative L2 error of its logits against
        PyTorch's; milliseconds per image of 224 pixels in eager PyTorch, fused, in ONNX Runtime and
        in ExecuTorch, interleaved; the times by which ExecuTorch is faster than either; `spread` of
        its times; `null`; `seconds` of the export, `peak_gb` of the process; `note`, where a
        network has no numbers, says why.

    Raises:
        ValueError: an unknown network, or a library that is missing.
    """
    for name in names or ():
        check_name(name)
    for runtime in ("executorch", "onnxruntime"):
        if problem := missing(runtime):
            raise ValueError(problem)
    rows = []
    for name in tqdm(names or (["mobileone_s0"] if quick else list_models()), disable=not progress):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                rows.append(process.submit(export_and_time, name, threads, times).result())
            except (ValueError, RuntimeError, MemoryError, BrokenProcessPool) as error:
                rows.append({"network": name, "note": " ".join(str(error).split())})
    return pd.DataFrame(rows, columns=COLUMNS).dropna(axis=1, how="all")


def export_and_time(name: str, threads: int, times: bool = True) -> dict[str, object]:
    """One row of the table."""
    torch.set_num_threads(threads)
    model = calibrated(name, load_images(None, SIZE, 4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pte"
        report = export_executorch(model, path, size=SIZE, normalize=False)
        row: dict[str, object] = {
            "network": name,
            "megabytes": report.stored_bytes / 1e6,
            "delegates": int(report.format.split()[1]),
            "error": report.error,
            "seconds": report.seconds,
            "note": "",
        }
        if times:
            row |= raced(model, path, threads)
    return row | {"peak_gb": peak_memory()}


def raced(model: Backbone, path: Path, threads: int) -> dict[str, object]:
    """The times of a file beside those of its network in eager mode and in ONNX Runtime."""
    network = reparameterize(model).requires_grad_(False)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    candidates: dict[str, Callable[[], object]] = {
        "executorch": partial(load(path, threads), image),
        "eager": partial(inference(network), image),
    }
    if 4 * sum(p.numel() for p in network.parameters()) < ONNX_LIMIT:
        candidates["onnxruntime"] = partial(onnx_runtime(network, image), image)
    timings = compare(candidates, rounds=7, min_seconds=0.05, threads=threads)
    row: dict[str, object] = {"spread": timings["executorch"].spread, "null": timings.null}
    for other in candidates:
        row[f"{other}_ms"] = timings[other].median * 1e3
        row[f"over_{other}"] = timings.speed_up("executorch", other)
    return row
