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
from ..models import check_name, list_models
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
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Export, execute, compare and time networks.

    Args:
        names: None for all thirty.
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
                rows.append(process.submit(export_and_time, name, threads).result())
            except (ValueError, RuntimeError, MemoryError, BrokenProcessPool) as error:
                rows.append({"network": name, "note": " ".join(str(error).split())})
    return pd.DataFrame(rows, columns=COLUMNS)


def export_and_time(name: str, threads: int) -> dict[str, object]:
    """One row of the table."""
    torch.set_num_threads(threads)
    model = calibrated(name, load_images(None, SIZE, 4))
    network = reparameterize(model).requires_grad_(False)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pte"
        report = export_executorch(model, path, size=SIZE, normalize=False)
        phone = load(path, threads)
        candidates: dict[str, Callable[[], object]] = {
            "executorch": partial(phone, image),
            "eager": partial(inference(network), image),
        }
        if 4 * report.parameters < ONNX_LIMIT:
            candidates["onnxruntime"] = partial(onnx_runtime(network, image), image)
        times = compare(candidates, rounds=7, min_seconds=0.05, threads=threads)
    row: dict[str, object] = {
        "network": name,
        "megabytes": report.stored_bytes / 1e6,
        "delegates": int(report.format.split()[1]),
        "error": report.error,
        "spread": times["executorch"].spread,
        "null": times.null,
        "seconds": report.seconds,
        "peak_gb": peak_memory(),
        "note": "",
    }
    for other in candidates:
        row[f"{other}_ms"] = times[other].median * 1e3
        row[f"over_{other}"] = times.speed_up("executorch", other)
    return row
