"""What the trainer costs beside a bare loop, and timm's parts beside both.

The bare loop is the forward pass, the loss, the backward pass and the optimizer's step, over a
batch that lies ready in memory. The trainer also reads and augments each image in the same process,
moves the schedules, averages the weights, counts and logs. timm's candidate is the body of its
training script: its loader and transforms over the same images, its loss, optimizer and average.

No candidate has worker processes: they would work while another candidate is timed.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from ..datasets import Data, load_data
from ..models import Backbone
from ..shapes import Shapes
from ..training import Classification, Recipe, Trainer, find_recipe
from ..training.studies import tiny
from .latency import compare

CASES = ("digits", "shapes", "224 px")


def run(*, quick: bool = False, threads: int = 1, progress: bool = True) -> pd.DataFrame:
    """Time one training step of each candidate, interleaved.

    Args:
        quick: the digits alone, three rounds.

    Returns:
        One row per case: milliseconds per step of the bare loop, of the trainer with everything
        (`trainer`), of its step over a ready batch (`step`) and of timm; the bare loop's time over
        that of each of the other three; `null` as in every benchmark.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES[: 1 if quick else None]:
            recipe, data = prepare(case, Path(folder))
            candidates = {
                "bare": bare_loop(recipe, data),
                "trainer": trainer_loop(recipe, data),
                "step": trainer_loop(recipe, data, ready=True),
            }
            if timm := timm_loop(recipe, data):
                candidates["timm"] = timm
            times = compare(
                candidates,
                rounds=3 if quick else 11,
                min_seconds=0.5,
                threads=threads,
                progress=case if progress else None,
            )
            rows.append(
                {"images": case, "network": recipe.model, "batch": recipe.batch_size}
                | {f"{name}_ms": 1000 * times[name].median for name in candidates}
                | {f"{n}_rate": times.speed_up(n, "bare") for n in [*candidates][1:]}
                | {
                    "spread": max(timing.spread for timing in times.timings.values()),
                    "null": times.null,
                }
            )
    return pd.DataFrame(rows)


def prepare(case: str, folder: Path) -> tuple[Recipe, Data]:
    """The recipe and the images of a case: MobileOne of the book's experiments on small images,
    FasterNet-T0 on photographs' sizes of 500 x 375 pixels from JPEG files."""
    if case == "224 px":
        recipe = find_recipe("fasternet_t0", "small")
        recipe = replace(recipe, config={}, size=224, batch_size=8, crop_scale=(0.08, 1.0))
        return recipe, load_data(jpegs(folder / "jpegs"))
    name, fields = tiny("mobileone")
    recipe = find_recipe(name, "small")
    recipe = replace(recipe, config=recipe.config | fields["config"])
    data = load_data(case, size=recipe.size)
    for index in range(len(data.train)) if case == "shapes" else ():
        data.train[index]  # painted once in a training, not in every step
    return recipe, data


def jpegs(folder: Path, count: int = 40) -> Path:
    """A folder of two classes of JPEG files."""
    for index, image in enumerate(Shapes(count, 500).draw(range(count))[0]):
        path = folder / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(image[:, :375]).save(path, quality=90)
    return folder


def network(recipe: Recipe, data: Data) -> Backbone:
    model = Classification(recipe, data).build().to(memory_format=torch.channels_last)
    return cast(Backbone, model.train())


def ready_batch(recipe: Recipe, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    task = Classification(recipe, data)
    images, labels, _ = task.augment(next(Trainer(task).epoch_batches())[0], epoch=0)
    return images.contiguous(memory_format=torch.channels_last), labels


def bare_loop(recipe: Recipe, data: Data) -> Callable[[], object]:
    """A step of the plainest loop."""
    model, (images, labels) = network(recipe, data), ready_batch(recipe, data)
    optimizer: Any = torch.optim.SGD(model.parameters(), recipe.lr, 0.9, weight_decay=1e-4)
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), recipe.lr)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing).backward()
        optimizer.step()

    return step


def trainer_loop(recipe: Recipe, data: Data, *, ready: bool = False) -> Callable[[], object]:
    """A step of the trainer with the images of its batch; or, `ready`, of one batch again."""
    trainer = Trainer(Classification(recipe, data))
    batches = forever(trainer)
    first = next(batches)

    def step() -> None:
        trainer.step(first if ready else next(batches))
        if ready:
            trainer.done = 0

    return step


def forever(trainer: Trainer) -> Iterator[list[Any]]:
    """Epoch after epoch, without validation."""
    while True:
        yield from trainer.epoch_batches()
        trainer.epoch, trainer.done = trainer.epoch % (trainer.recipe.epochs - 1), 0


class Pictures(Dataset):
    """A set of ours as timm takes it: PIL images through a transform."""

    def __init__(self, data: Data) -> None:
        self.images = data.train
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images[index]
        picture = to_pil_image(image) if isinstance(image, torch.Tensor) else image
        return self.transform(picture), label


def timm_loop(recipe: Recipe, data: Data) -> Callable[[], object] | None:
    """A step of timm's training script with the images of its batch; None without timm."""
    try:
        from timm.data import create_loader
        from timm.loss import LabelSmoothingCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.utils import ModelEmaV3
    except ImportError:
        return None
    model = network(recipe, data)
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    loss_of = LabelSmoothingCrossEntropy(recipe.label_smoothing)
    average = ModelEmaV3(model, decay=recipe.ema) if recipe.ema else None
    pictures: Any = Pictures(data)
    loader = create_loader(
        pictures,
        input_size=(3, recipe.size, recipe.size),
        batch_size=recipe.batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=recipe.crop_scale,
        hflip=0.5 if recipe.flip and data.mirror else 0.0,
        color_jitter=0.0,
        interpolation=recipe.interpolation,
        num_workers=0,
        pin_memory=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    batches: Iterator[Any] = iter(loader)

    def step() -> None:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        images, labels = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.update(model)

    return step
