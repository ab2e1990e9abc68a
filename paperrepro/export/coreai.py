"""The same network for Core AI, the successor of Core ML on iOS and macOS 27, run on this CPU.

    pip install "paperrepro[coreai]"    # a beta: version 0.4.3 was tried, with torch 2.15

Core AI's own runtime executes the file here. That says nothing of the `.mlpackage`, which is
another file by another converter.
"""

import asyncio
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reparam import reparameterize
from .network import (
    Preparation,
    golden_image,
    reference,
    relative_error,
    replace,
    stored_bytes,
    writing,
)


@dataclass(frozen=True)
class CoreAIReport:
    """What was written: its size, the relative L2 error of its logits for one image, executed by
    Core AI on this CPU, against PyTorch's, and the seconds for both."""

    path: Path
    stored_bytes: int
    error: float
    seconds: float


def export_coreai(
    model: nn.Module, path: str | os.PathLike, *, size: int = 224, overwrite: bool = False
) -> CoreAIReport:
    """Write a network as `NAME.aimodel` in float32, without normalisation, and execute the file.

    Args:
        model: as `export_coreml` takes it.
        path: the folder to write.

    Raises:
        ValueError: coreai-torch is missing, or the network takes no images of that size.
        OSError: the path exists, or cannot be written.
    """
    start = time.perf_counter()
    path = Path(path)
    with writing(path, ".aimodel", overwrite) as folder:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from coreai_torch import TorchConverter, get_decomp_table
        except ImportError as error:
            raise ValueError(
                'coreai-torch is not installed: pip install "paperrepro[coreai]"'
            ) from error
        network = reparameterize(model).cpu().float()
        image = golden_image(size, 3)
        logits = reference(network, Preparation(size, (), ()), image)["logits"]
        with torch.no_grad():
            program = torch.export.export(network, (image / 255,)).run_decompositions(
                get_decomp_table()
            )
        converter = TorchConverter().add_exported_program(
            program, input_names=["image"], output_names=["logits"]
        )
        converter.to_coreai().save_asset(folder / path.name)
        executed = asyncio.run(execute(folder / path.name, image / 255))
        replace(folder / path.name, path)
    seconds = time.perf_counter() - start
    return CoreAIReport(path, stored_bytes(path), relative_error(executed, logits), seconds)


async def execute(path: Path, image: Tensor) -> Tensor:
    """The logits that Core AI's runtime computes from a file."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    async with AIModelAsset.load(path).executable() as model:
        outputs = await model.load_function("main")({"image": NDArray(image.numpy())})
    return torch.from_numpy(outputs["logits"].numpy().copy())
