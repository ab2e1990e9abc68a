"""Real trained networks and photographs, from the folder ../shared/data beside the checkout.

They are no part of the project. A test that needs them carries `needs_data` and is skipped, saying
so, where the folder is absent.
"""

import io
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from paperrepro.models import IMAGENET
from paperrepro.networks import find_network, normalising

DATA = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = {
    "cifar_resnet20": "cifar10_resnet20-12fca82f.th",
    "cifar_resnet56": "cifar10_resnet56-4bfd9763.th",
    "squeezenet1_1": "squeezenet1_1_imagenet_fp16.pt",
    "mobilenet_v2": "mobilenet_v2_imagenet_tv_keys.pt",
}
ARCHIVE = DATA / "cifar10_jpeg" / "cifar10_jpeg_train1000_test500_per_class.zip"

needs_data = pytest.mark.skipif(
    not DATA.is_dir(),
    reason="no real networks and images: ../shared/data is not beside the checkout",
)


@cache
def real_network(name: str) -> nn.Module:
    """A trained network in eval mode; every caller gets the same one."""
    return find_network(f"{name}={DATA / 'weights' / WEIGHTS[name]}").model


@cache
def cifar_images(count: int) -> tuple[Tensor, Tensor]:
    """CIFAR-10's test images as JPEG, `(count, 3, 32, 32)`, the ten classes in turn; and labels."""
    transform = normalising(*IMAGENET)
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if name.startswith("test/")]
        classes = sorted({name.split("/")[1] for name in names})
        by_class = [sorted(name for name in names if f"/{each}/" in name) for each in classes]
        chosen = [name for row in zip(*by_class, strict=True) for name in row][:count]
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]
    labels = torch.tensor([classes.index(name.split("/")[1]) for name in chosen])
    return torch.stack([transform(image) for image in images]), labels
