"""All networks through ExecuTorch: the file is run by the phone's runtime, compared and timed.

The weights are random, calibrated on drawn images (`export.calibrate`): what is proved is that the
file is the network, whatever its weights. Times are a table of their own, for chosen networks, so
that a quiet machine is needed for minutes only.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from ..export.executorch import export_executorch
from ..export.survey import calibrated, load_images, peak_memory
from ..models import check_name, list_models
from ..networks import check_any, find_network
from .latency import compare, torch_threads
from .models import as_run
from .runtimes import missing, prepare
from .steps import Steps

SIZE = 224
RUNTIMES = ("eager", "channels_last", "onnxruntime", "executorch")
TIMED = (
    *("mobileone_s0", "fasternet_t0", "mobilevigv2_ti", "rapidnet_ti", "mobilenetv2_100"),
    *("mobileone_s1", "fasternet_t1", "mobilevigv2_s", "rapidnet_s", "mobileone_s4"),
    *("fasternet_t2", "replknet_31b"),
)
"""Whose times are taken: of each family, and MobileNetV2 of timm, the smallest first."""


def run(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Export networks, execute the files and compare them.

    Args:
        names: None for all thirty.
        quick: MobileOne-S0 only.

    Returns:
        One row per network: `megabytes` of its float32 file; `delegates`, the pieces that XNNPACK
        takes (one: the whole network); `error`, the relative L2 error of its logits against
        PyTorch's; `peak_gb` of the process, which stands alone for each; `note`, where a network
        has no numbers, says why.

    Raises:
        ValueError: an unknown network, or a library that is missing.
    """
    for name in names or ():
        check_name(name)
    need("executorch")
    steps = steps or Steps()
    for name in tqdm(names or (["mobileone_s0"] if quick else list_models()), disable=not progress):
        steps.take({"network": name}, partial(alone, name, threads))
    return steps.table


def need(*names: str) -> None:
    for runtime in names:
        if problem := missing(runtime):
            raise ValueError(problem)


def alone(name: str, threads: int) -> Iterator[dict[str, object]]:
    """One row, of a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            yield process.submit(export_and_compare, name, threads).result()
        except (ValueError, RuntimeError, MemoryError, BrokenProcessPool) as error:
            yield {"note": " ".join(str(error).split())}


def export_and_compare(name: str, threads: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    model = calibrated(name, load_images(None, SIZE, 4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pte"
        report = export_executorch(model, path, size=SIZE, normalize=False)
    return {
        "megabytes": report.stored_bytes / 1e6,
        "delegates": int(report.format.split()[1]),
        "error": report.error,
        "peak_gb": peak_memory(),
        "note": "",
    }


def times(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
    steps: Steps | None = None,
) -> pd.DataFrame:
    """Time networks, one image at a time, in PyTorch, ONNX Runtime and ExecuTorch.

    Args:
        names: ours, timm's or torchvision's; None for `TIMED`.
        quick: the first of them.

    Returns:
        One row per network, fused: milliseconds in each of `RUNTIMES`, interleaved; `best`, the
        fastest; `over_eager` and `over_onnxruntime`, the times by which ExecuTorch is faster;
        `spread` of its times and the run's `null`.

    Raises:
        ValueError: an unknown network, or a library that is missing.
    """
    for name in names or ():
        check_any(name)
    need("executorch", "onnxruntime")
    steps = steps or Steps()
    for name in tqdm(names or (TIMED[:1] if quick else TIMED), disable=not progress):
        steps.take({"network": name}, partial(raced, name, threads))
    return steps.table


def raced(name: str, threads: int) -> Iterator[dict[str, object]]:
    """The times of one network."""
    network = as_run(find_network(name).model.requires_grad_(False))
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch_threads(threads):
        candidates: dict[str, Callable[[], object]] = {
            runtime: partial(prepare(runtime, network, image), image) for runtime in RUNTIMES
        }
        timings = compare(candidates, rounds=7, min_seconds=0.05, threads=threads)
    yield {
        **{f"{runtime}_ms": timings[runtime].median * 1e3 for runtime in RUNTIMES},
        "best": min(RUNTIMES, key=lambda runtime: timings[runtime].median),
        "over_eager": timings.speed_up("executorch", "eager"),
        "over_onnxruntime": timings.speed_up("executorch", "onnxruntime"),
        "spread": timings["executorch"].spread,
        "null": timings.null,
    }
