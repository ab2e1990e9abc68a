"""Export and verify networks one after the other: the table `data/results/export.csv`.

The weights are random, for the released ones cannot be shipped: BatchNorm's statistics are those of
the images, layer scales are 0.5, so that every branch counts. In networks without layer scales
BatchNorm's biases are 1, not 0: with half of each layer's ReLUs off they multiply rounding from
layer to layer, until PyTorch differs from itself in another memory format by more than 1e-5
(RepLKNet-XL). The errors in float32 show that the file is the network, whatever its weights; what
float16 costs, and how often the answer stays, must be measured on trained ones.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from ..files import list_images, open_image
from ..models import Backbone, build_model, check_name, list_models
from ..shapes import Shapes
from .coreml import export_coreml
from .network import calibrate
from .verify import verify_coreml

SIZE = 224
LARGEST = "replknet_xl"
COLUMNS = (
    "network megabytes operations frontend float32_error float16_error top1_agreement margin "
    "deviation peak_value seconds peak_gb note"
).split()


def run(
    names: Sequence[str] | None = None,
    *,
    images: Path | None = None,
    count: int = 8,
    largest: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Export and verify networks, each in a process of its own.

    Args:
        names: None for all but `LARGEST`.
        images: a folder of images; None for those of `datasets.Shapes`.
        count: how many of them.
        largest: takes `LARGEST` too.

    Returns:
        One row per network: `megabytes` of the float16 package, its `operations`, the frontend, the
        errors, agreement, margin and deviation of `verify.VerificationReport`, and `seconds` and
        `peak_gb`, time and memory of export and verification together; `note`, where a network
        has none of these, says why.

    Raises:
        ValueError: an unknown network.
        OSError: a folder without images.
    """
    for name in names or ():
        check_name(name)
    names = names or [name for name in list_models() if largest or name != LARGEST]
    batch = load_images(images, SIZE, count)
    rows = []
    for name in tqdm(names, desc="Exporting", disable=not progress):
        spawn = get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as process:
            try:
                rows.append(process.submit(export_and_verify, name, batch).result())
            except (ValueError, BrokenProcessPool) as error:
                rows.append({"network": name, "note": str(error)})
    return pd.DataFrame(rows, columns=COLUMNS)


def export_and_verify(name: str, images: Tensor) -> dict[str, object]:
    """One row of the table."""
    model = calibrated(name, images)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.mlpackage"
        report = export_coreml(model, path, size=images.shape[-1])
        verified = verify_coreml(path, model, images)
    return {
        "network": name,
        "megabytes": report.stored_bytes / 1e6,
        "operations": sum(report.operations.values()),
        "frontend": report.frontend,
        "float32_error": verified.float32_error,
        "float16_error": verified.float16_error,
        "top1_agreement": verified.agreement,
        "margin": verified.margin,
        "deviation": verified.deviation,
        "peak_value": verified.peak,
        "seconds": time.perf_counter() - start,
        "peak_gb": peak_memory(),
        "note": "",
    }


def calibrated(name: str, images: Tensor) -> Backbone:
    """A network with random weights through which the images keep their strength."""
    torch.manual_seed(0)
    model = build_model(name)
    calibrate(model, images[:4])
    return model


def load_images(folder: Path | None, size: int, count: int) -> Tensor:
    """Images as uint8 `(N, 3, size, size)`: the first of a folder, cropped, or drawn shapes.

    Raises:
        OSError: the folder holds none, or one cannot be read.
    """
    if folder is None:
        shapes = Shapes(count, size, seed=0)
        return torch.stack([shapes[i][0] for i in range(count)])
    prepare = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    return torch.stack([prepare(open_image(file)) for file in list_images(folder)[:count]])


def peak_memory() -> float:
    """The most memory that this process has held, in gigabytes."""
    import resource
    import sys

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held * (1 if sys.platform == "darwin" else 1024) / 1e9
