"""The Swift package's values: what torchvision, PyTorch and NumPy make of the numbers that its
tests read. `make swift` builds the package and runs those tests where a toolchain stands.

After a change: `python tests/test_swift.py` writes the file anew.
"""

import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from paperrepro.dense.predict import palette
from paperrepro.export import protocols
from paperrepro.export.coreml import PREVIEW, preview
from paperrepro.files import data_folder, open_image
from paperrepro.transforms import validation_transform

IOS = Path(protocols.__file__).with_name("ios")
VALUES = IOS / "Tests/BackboneMathTests/values.json"
PHOTO = data_folder("images") / "cue_conflict"


def image_values(image):
    """A uint8 tensor `(3, H, W)` as Swift reads it."""
    pixels = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    return {
        "width": image.shape[2],
        "height": image.shape[1],
        "pixels": b64encode(pixels).decode(),
    }


def photograph(height, width):
    """A part of a real picture: edges, and not one grey level for all."""
    first = sorted(PHOTO.glob("*/*.jpg"))[0]
    return F.pil_to_tensor(open_image(first))[:, 40 : 40 + height, 30 : 30 + width].contiguous()


def preparations():
    noise = torch.randint(0, 256, (3, 19, 31), generator=seeded(), dtype=torch.uint8)
    photo = photograph(40, 54)
    for name, image, interpolation, width, height in (
        ("noise shrunk", noise, "bilinear", 11, 7),
        ("noise shrunk by the cubic", noise, "bicubic", 11, 7),
        ("noise enlarged", noise, "bilinear", 40, 33),
        ("noise enlarged by the cubic", noise, "bicubic", 40, 33),
        ("narrower and higher", photo, "bicubic", 23, 70),
        ("nothing to do", noise, "bicubic", 31, 19),
        ("very small", noise, "bilinear", 3, 2),
    ):
        mode = InterpolationMode(interpolation)
        yield {
            "name": name,
            "image": image_values(image),
            "interpolation": interpolation,
            "width": width,
            "height": height,
            "expected": image_values(F.resize(image, [height, width], mode, antialias=True)),
        }
    for interpolation in ("bilinear", "bicubic"):
        for image in (photo, photo.mT.contiguous()):
            # The library's own preparation of an evaluation, its normalisation undone.
            prepare = validation_transform(
                16, crop=0.875, interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3
            )
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            yield {
                "name": f"evaluation, {interpolation}, {image.shape[2]} x {image.shape[1]}",
                "image": image_values(image),
                "interpolation": interpolation,
                "shortSide": int(16 / 0.875),
                "crop": 16,
                "expected": image_values((255 * prepare(picture)).round().byte()),
            }


def seeded():
    return torch.Generator().manual_seed(0)


def values():
    small = photograph(3, 4)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalized = F.normalize(small / 255, mean, std)
    logits = torch.randn(3, 3, 4, generator=seeded())
    logits[1, 0, 0] = logits[2, 0, 0] = 9  # of equals the first
    chosen = logits.argmax(0)
    names = ["sky", "road", "café"]
    drawn = np.array(palette(3))[chosen].transpose(2, 0, 1) * 0.6 + 0.4 * small.double().numpy()
    times = torch.rand(101, generator=seeded(), dtype=torch.float64) * 9
    shares = [0.0, 0.05, 0.5, 0.95, 0.99, 1.0]
    return {
        "preparations": list(preparations()),
        "normalizations": [
            {
                "image": image_values(small),
                "mean": mean,
                "std": std,
                "expected": normalized.flatten().tolist(),
            }
        ],
        "softmax": [
            {
                "logits": row.tolist(),
                "probabilities": row.softmax(0).tolist(),
                "top": row.sort(descending=True, stable=True).indices[:5].tolist(),
            }
            for row in (
                torch.randn(12, generator=seeded(), dtype=torch.float64),
                torch.tensor([700.0, -700, 699, 0, 700, 1], dtype=torch.float64),
            )
        ],
        "segmentations": [
            {
                "logits": logits.flatten().tolist(),
                "classes": 3,
                "map": chosen.flatten().tolist(),
                "image": image_values(small),
                "preview": preview(names)[PREVIEW],
                "names": names,
                "share": 0.6,
                "shares": [(chosen == number).double().mean().item() for number in range(3)],
                "overlay": image_values(torch.from_numpy(np.floor(drawn + 0.5)).byte()),
            }
        ],
        "colors": colors(22).tolist(),
        "percentiles": [
            {
                "times": sample.tolist(),
                "shares": shares,
                "values": np.quantile(sample.numpy(), shares).tolist(),
            }
            for sample in (times, times[:1], times[:2])
        ],
    }


def colors(count):
    """Pascal VOC's colours `(count, 3)`."""
    numbers = np.arange(count)[:, None] >> np.arange(3)
    return sum(((numbers >> 3 * place) & 1) << (7 - place) for place in range(8))


def test_colors_are_those_that_pascal_voc_prints():
    assert colors(21)[[0, 1, 2, 3, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]


def test_swift_is_held_to_what_python_computes_now():
    stored, now = json.loads(VALUES.read_text()), json.loads(json.dumps(values()))
    assert stored.keys() == now.keys()
    for key in stored:
        assert flat(stored[key]) == flat(now[key]), f"{key}: run 'python {Path(__file__).name}'"


def flat(value):
    """Numbers rounded to six digits, for these may differ between processors."""
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, list):
        return [flat(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    VALUES.write_text(json.dumps(values(), indent=1) + "\n")
