"""Do large kernels pay where every pixel needs an answer? Two experiments, their rules fixed first.

Question. RepLKNet's Table 5: from K = 3 to K = 31, 1.0 points of ImageNet accuracy and 3.1 of mIoU
on ADE20K. Does a larger kernel help a small segmenter, trained from nothing, and does it see a cue
that lies further away?

Comparison. The same head, data, recipe, steps and seeds; one thing differs, the kernels K. K = 3
has no parallel small kernel, the others 5 x 5. The parameters differ by the depthwise kernels
alone, and are stored beside the result. In `scenes` four other families answer the same pictures.

- `scenes`: shapes whose class is told by a cue at 0 to 64 pixels. What counts: the share of the
  shapes' pixels with the right class, by distance, on 256 scenes for each distance; chance is a
  quarter of the shapes that are found. First comparison: K = 31 less K = 3, mean over the distances
  24 to 64. Beside it: each distance, K = 7 and K = 13, each family.
- `camvid`: the usual split, pictures of 240 x 180, from nothing, tested on its 233 test pictures.
  What counts: mIoU over 11 classes of one confusion matrix, the network of the last epoch. First
  comparison: K = 31 less K = 3. Beside it: K = 7, K = 13, and IoU by class.

n. Five seeds of each variant; the two variants of the first comparison run before the others, seed
by seed, so that an interruption leaves whole pairs; never fewer than three are compared, and none
is left out.

Test. Student's t of the differences paired by seed; an interval of 95 %; the first comparison of
each experiment decides, the others are shown with their intervals and not called.

What can be seen. With the seeds' difference scattering by s points, a difference of 1.7 s with five
seeds and of 3.1 s with three is found in four of five cases (t with n - 1 degrees of freedom): 2.4
points of mIoU on CamVid if s is 1.4. A smaller difference may be there and will not be called.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..complexity import count_parameters
from ..dense import load_dense
from ..dense.data import MapData, Maps, SceneMaps, load_maps, pairs_in
from ..dense.metrics import iou_of, summary
from ..dense.scenes import Scenes
from ..files import write_atomically
from .checkpoint import MODEL
from .loader import make_loader
from .place import Machine
from .recipe import Recipe, find_recipe
from .segmentation import Segmentation, score
from .trainer import fit

DISTANCES = (0, 16, 24, 32, 48, 64)
TESTED = 256
"""Scenes for each distance."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One of the experiments above.

    Attributes:
        data: what it is trained on, for `load_maps`.
        common: fields of the recipe.
        head: of the segmenter, and its options.
        variants: by its label, the network and its options.
        test: the rows of a trained network: what was measured, and the value in percent.
        seeds: the runs of each variant.
        zoom: by how much pictures are resized in training.
    """

    data: str
    common: dict[str, Any]
    head: dict[str, Any]
    variants: Mapping[str, tuple[str, dict[str, Any]]]
    test: Callable[[Any, MapData, Recipe], list[Row]]
    seeds: int = 5
    zoom: tuple[float, float] = (1.0, 1.0)

    def recipe(self, label: str, seed: int) -> Recipe:
        """The recipe of a variant: AdamW and a cosine for all."""
        name, config = self.variants[label]
        base = find_recipe("replknet_31b", "small")
        source = "paperrepro.training.dense_studies"
        return replace(
            base, model=name, config=config, source=source, seed=seed, lr=2e-3, **self.common
        )


def kernels(size: int, depths: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """A narrow RepLKNet; its stages have the kernels of Table 5."""
    sizes = {31: (31, 29, 27, 13), 13: (13,) * 4, 7: (7,) * 4, 3: (3,) * 4}[size]
    config = dict(
        channels=(16, 32, 64, 128),
        depths=depths,
        kernels=sizes,
        small_kernel=None if size == 3 else 5,
        drop_path_rate=0.0,
    )
    return "replknet_31b", config


def of_family(name: str) -> tuple[str, dict[str, Any]]:
    return name, dict(find_recipe(name, "small").config)


def test_scenes(model: Any, data: MapData, recipe: Recipe) -> list[Row]:
    """The share of the shapes' pixels with the right class, for each distance of the cue."""
    rows = []
    for distance in DISTANCES:
        pictures = SceneMaps(Scenes(TESTED, recipe.size, distances=(distance,), seed=2))
        matrix = matrix_of(model, replace(data, val=pictures), recipe)
        shapes = matrix[1:]
        right = 100 * float(shapes[:, 1:].diagonal().sum() / shapes.sum())
        found = 100 * float(shapes[:, 1:].sum() / shapes.sum())
        rows += [
            {"what": "right", "distance": distance, "value": right},
            {"what": "found", "distance": distance, "value": found},
        ]
    return rows


def test_camvid(model: Any, data: MapData, recipe: Recipe) -> list[Row]:
    """mIoU, pixel accuracy and the IoU of each class on the test pictures."""
    place = Path(data.name)
    pairs = pairs_in(place, "test/images/", "test/labels/")
    tested = Maps(place, pairs, len(data.classes), data.val.number)
    matrix = matrix_of(model, replace(data, val=tested), recipe)
    rows = [{"what": what, "value": value} for what, value in summary(matrix).items()]
    of_each = zip(data.classes, iou_of(matrix).tolist(), strict=True)
    return rows + [{"what": name, "value": 100 * value} for name, value in of_each]


def matrix_of(model: Any, data: MapData, recipe: Recipe) -> torch.Tensor:
    task = Segmentation(recipe, data)
    keys = [(0, index, 0) for index in range(len(data.val))]
    loader = make_loader(
        task.val, 16, Machine(), torch.device("cpu"), keys=keys, collate=task.collate
    )
    return score(model.eval(), loader, len(data.classes))


STUDIES = {
    "scenes": Study(
        data="scenes:" + ",".join(map(str, DISTANCES)),
        common=dict(size=96, batch_size=16, epochs=6, warmup_epochs=0),
        head=dict(head="semantic_fpn", pyramid=32, width=32),
        variants={
            **{f"K = {k}": kernels(k, (1, 1, 1, 1)) for k in (3, 31, 7, 13)},
            "FasterNet": of_family("fasternet_t0"),
            "MobileOne": of_family("mobileone_s0"),
            "RapidNet": of_family("rapidnet_ti"),
            "MobileViGv2": of_family("mobilevigv2_ti"),
        },
        test=test_scenes,
    ),
    "camvid": Study(
        data="camvid_480x360.zip",
        common=dict(size=180, batch_size=8, epochs=30, warmup_epochs=1),
        head=dict(head="semantic_fpn", pyramid=64, width=32),
        variants={f"K = {k}": kernels(k, (1, 1, 3, 1)) for k in (3, 31, 7, 13)},
        test=test_camvid,
        zoom=(0.75, 1.5),
    ),
}


def run_study(
    name: str,
    runs: str | os.PathLike[str],
    *,
    data: str | None = None,
    seeds: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains and tests every variant with every seed, and goes on where it was stopped.

    Args:
        name: a key of `STUDIES`.
        runs: the folder of the runs; a run that is done stays.
        data: where the pictures are, in place of the study's own name for them.
        seeds: fewer or more than the study's.

    Returns:
        A row for each variant, seed and value: `variant`, `seed`, `params`, `what`, `value` in
        percent, and `distance` in pixels for scenes.
    """
    study = STUDIES[name]
    pictures = replace(load_maps(data or study.data), zoom=study.zoom)
    tables = []
    for seed in range(study.seeds if seeds is None else seeds):
        for label in study.variants:
            run = Path(runs) / name / f"{label.replace(' ', '')}-{seed}"
            done = run / "tested.csv"
            if not done.is_file():
                recipe = study.recipe(label, seed)
                task = Segmentation(recipe, pictures, **study.head)
                fit(task, run, resume=True, progress=progress)
                model = load_dense(run / MODEL)
                rows = pd.DataFrame(study.test(model, pictures, recipe))
                rows.insert(0, "variant", label)
                rows.insert(1, "seed", seed)
                rows.insert(2, "params", count_parameters(model))
                write_atomically(done, rows.to_csv(index=False, lineterminator="\n"))
            tables.append(pd.read_csv(done))
    return pd.concat(tables, ignore_index=True)
