"""Do large kernels pay where every pixel needs an answer? Two experiments, their rules fixed first.

Question. RepLKNet's Table 5: from K = 3 to K = 31, 1.0 points of ImageNet accuracy and 3.1 of mIoU
on ADE20K. Does a larger kernel help a small segmenter, trained from nothing, and does it see a cue
that lies further away?

Comparison. The same head, data, recipe, steps and seeds; one thing differs, the kernels K. K = 3
has no parallel small kernel, the others 5 x 5. The parameters differ by the depthwise kernels
alone, and are stored beside the result. Four other families answer the same pictures.

- `scenes`: shapes whose class is told by a cue at 0 to 64 pixels. What counts: the share of the
  shapes' pixels with the right class, by distance, on 256 scenes for each distance; chance is a
  quarter of the shapes that are found. First comparison: K = 31 less K = 3, mean over the distances
  24 to 64. Beside it: each distance, K = 7 and K = 13, each family.
- `camvid`: the usual split, pictures of 240 x 180, from nothing, tested on its 233 test pictures.
  What counts: mIoU over 11 classes of one confusion matrix, the network of the last epoch. First
  comparison: K = 31 less K = 3. Beside it: K = 7, K = 13, IoU by class, and each family.

n. Five seeds of each kernel, three or more of a family. The two variants of the first comparison
run before the others, seed by seed, so that an interruption leaves whole pairs. Never fewer than
three are compared, and none is left out.

Test. Student's t of the differences paired by seed; an interval of 95 %; the first comparison of
each experiment decides, the others are shown with their intervals and not called.

What can be seen. With the seeds' difference scattering by s points, a difference of 1.7 s with five
seeds and of 3.1 s with three is found in four of five cases (t with n - 1 degrees of freedom): 2.4
points of mIoU on CamVid if s is 1.4. A smaller difference may be there and will not be called.

Added on 22 November 2026, when three seeds of both first comparisons were known: the families on
`camvid`, and the same backbones as classifiers (`studies.EXPERIMENTS["camvid-classifiers"]`).
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from ..analysis.erf import contribution_map, distance_within
from ..analysis.receptive_field import receptive_field
from ..claims.dense import FAR, LARGE, SMALL
from ..complexity import count_parameters
from ..dense import load_dense, save_dense
from ..dense.data import (
    CAMVID,
    IGNORED,
    MapData,
    Maps,
    SceneMaps,
    camvid_numbers,
    load_maps,
    pairs_in,
)
from ..dense.metrics import iou_of, summary
from ..dense.predict import predict
from ..dense.scenes import Scenes
from ..files import write_atomically
from ..registry import REGISTRY, remedy
from ..reparam import reparameterize
from .checkpoint import MODEL
from .loader import make_loader
from .place import Machine
from .recipe import Recipe, changes, find_recipe
from .segmentation import Segmentation, score
from .studies import kernels
from .trainer import fit

SHOWN = (58, 116, 174)
"""Of CamVid's 233 test pictures: a quarter, half and three quarters through."""

WHERE_COLORS = ((0, 0, 0), (214, 222, 218), (0, 158, 115), (230, 159, 0), (90, 90, 90))
TEST_PAIRS = ("test/images/", "test/labels/")
TESTED_FILE = "tested.csv"
DISTANCES = (0, 16, 24, 32, 48, 64)
SIZE = 96
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
    tested = Maps(place, pairs_in(place, *TEST_PAIRS), len(data.classes), data.val.number)
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


FAMILIES = {
    "FasterNet": of_family("fasternet_t0"),
    "MobileOne": of_family("mobileone_s0"),
    "RapidNet": of_family("rapidnet_ti"),
    "MobileViGv2": of_family("mobilevigv2_ti"),
}
STUDIES = {
    "scenes": Study(
        data="scenes:" + ",".join(map(str, DISTANCES)),
        common=dict(size=SIZE, batch_size=16, epochs=6, warmup_epochs=0),
        head=dict(head="semantic_fpn", pyramid=32, width=32),
        variants={f"K = {k}": kernels(k, (1, 1, 1, 1)) for k in (3, 31, 7, 13)} | FAMILIES,
        test=test_scenes,
    ),
    "camvid": Study(
        data="camvid_480x360.zip",
        common=dict(size=180, batch_size=8, epochs=30, warmup_epochs=1),
        head=dict(head="semantic_fpn", pyramid=64, width=32),
        variants={f"K = {k}": kernels(k, (1, 1, 3, 1)) for k in (3, 31, 7, 13)} | FAMILIES,
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
    train: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains and tests every variant with every seed, and goes on where it was stopped.

    Args:
        name: a key of `STUDIES`.
        runs: the folder of the runs; a run that is done stays.
        data: where the pictures are, in place of the study's own name for them.
        seeds: fewer or more than the study's.
        train: False takes the runs that are finished, and trains none.

    Raises:
        FileNotFoundError: no run is finished, and none shall be trained; or the pictures are not
            here, with the commands that bring them.

    Returns:
        A row for each variant, seed and value: `variant`, `seed`, `params`, `what`, `value` in
        percent, and `distance` in pixels for scenes.
    """
    study = STUDIES[name]
    if train and data is None and name in REGISTRY and not Path(study.data).exists():
        raise FileNotFoundError(f"{study.data} is not in this folder: {remedy(name)}")
    pictures = replace(load_maps(data or study.data), zoom=study.zoom) if train else None
    tables = []
    for seed in range(study.seeds if seeds is None else seeds):
        for label in study.variants:
            run = run_folder(name, runs, label, seed)
            if pictures is not None and not (run / TESTED_FILE).is_file():
                train_and_test(study, pictures, label, seed, run, progress)
            if (run / TESTED_FILE).is_file():
                tables.append(pd.read_csv(run / TESTED_FILE))
    if not tables:
        raise FileNotFoundError(f"no run in {Path(runs) / name} is finished")
    return pd.concat(tables, ignore_index=True)


def run_folder(name: str, runs: str | os.PathLike[str], label: str, seed: int) -> Path:
    return Path(runs) / name / f"{label.replace(' ', '')}-{seed}"


def train_and_test(
    study: Study, pictures: MapData, label: str, seed: int, run: Path, progress: bool
) -> None:
    recipe = study.recipe(label, seed)
    task = Segmentation(recipe, pictures, **study.head)
    fit(task, run, resume=True, progress=progress)
    model = load_dense(run / MODEL)
    rows = pd.DataFrame(study.test(model, pictures, recipe))
    rows.insert(0, "variant", label)
    rows.insert(1, "seed", seed)
    rows.insert(2, "params", count_parameters(model))
    write_atomically(run / TESTED_FILE, rows.to_csv(index=False, lineterminator="\n"))


def study_json(name: str, runs: str | os.PathLike[str], table: pd.DataFrame) -> str:
    """What the runs of a table were: rule, head, each variant's recipe, seconds and last loss.

    Args:
        name: a key of `STUDIES`.
        runs: the folder of the runs.
        table: of `run_study`.
    """
    study = STUDIES[name]
    labels = list(table["variant"].unique())
    first = study.recipe(labels[0], 0)
    recipes = {labels[0]: json.loads(first.to_json())} | {
        label: {key: ours for key, (ours, _) in changes(study.recipe(label, 0), first).items()}
        for label in labels[1:]
    }
    done = {}
    for label, seed in table[["variant", "seed"]].drop_duplicates().itertuples(index=False):
        log = pd.read_csv(run_folder(name, runs, label, seed) / "log.csv")
        done[f"{label}, seed {seed}"] = {
            "epochs": len(log),
            "seconds": round(float(log["seconds"].sum())),
            "train_loss": round(float(log["train_loss"].iloc[-1]), 4),
        }
    rule = {"rule": __name__, "data": study.data, "head": study.head, "zoom": study.zoom}
    return json.dumps(rule | {"recipes": recipes, "runs": done}, indent=1) + "\n"


def keep_networks(
    name: str,
    runs: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    data: str | None = None,
) -> pd.DataFrame:
    """Stores seed 0's networks of the first comparison in half precision, as `NAME-K31.safetensors`
    and so on; they are tested again as they are stored.

    Args:
        name, runs, data: as for `run_study`.
        folder: where the networks go.

    Returns:
        A row per file: file, network, kilobytes, value (percent of what counts) as trained and as
        stored.

    Raises:
        FileNotFoundError: one of the two runs is not finished.
    """
    study = STUDIES[name]
    pictures = load_maps(data or study.data)
    rows = []
    for label in (SMALL, LARGE):
        run = run_folder(name, runs, label, 0)
        path = Path(folder) / f"{name}-{label.replace(' = ', '').lower()}.safetensors"
        save_dense(load_dense(run / MODEL).half(), path)
        stored = pd.DataFrame(study.test(load_dense(path), pictures, study.recipe(label, 0)))
        values = [main_value(name, table) for table in (pd.read_csv(run / TESTED_FILE), stored)]
        rows.append(
            {
                "file": path.name,
                "network": label,
                "kilobytes": round(path.stat().st_size / 1000),
                "trained": round(values[0], 2),
                "stored": round(values[1], 2),
            }
        )
    return pd.DataFrame(rows)


def reaches(runs: str | os.PathLike[str], pictures: int = 16) -> pd.DataFrame:
    """How far the finished networks of `scenes` look: which pixels move the centre pixel's scores.

    Args:
        runs: the folder of the runs.
        pictures: how many scenes the gradient is a mean of.

    Returns:
        A row for each run: `variant`, `seed`, the pixels to either side within which 50, 90 and
        99 % of the gradient lie (`analysis.erf`, RepLKNet's Appendix B), `half`, `most` and `all`,
        and those that the backbone's last stage sees in theory, `theory`, borders or not.

    Raises:
        FileNotFoundError: no run is finished.
    """
    study = STUDIES["scenes"]
    data = replace(load_maps(study.data), val=SceneMaps(Scenes(pictures, SIZE, seed=2)))
    rows = []
    finished = run_study("scenes", runs, train=False)[["variant", "seed"]].drop_duplicates()
    for label, seed in finished.itertuples(index=False):
        task = Segmentation(study.recipe(label, seed), data)
        items = [task.val[(0, index, 0)] for index in range(pictures)]
        images = task.collate(items)[0]
        model = reparameterize(load_dense(run_folder("scenes", runs, label, seed) / MODEL))
        contributions = contribution_map(model, images, stage="head")
        row: Row = {"variant": label, "seed": seed}
        for name, share in {"half": 0.5, "most": 0.9, "all": 0.99}.items():
            row[name] = distance_within(contributions, share)
        row["theory"] = receptive_field(model.body, size=SIZE).columns.size // 2
        rows.append(row)
    return pd.DataFrame(rows)


def main_value(name: str, table: pd.DataFrame) -> float:
    """What counts of one run's values."""
    if name == "camvid":
        return float(table.loc[table["what"] == "miou", "value"].iloc[0])
    far = (table["what"] == "right") & table["distance"].isin(FAR)
    return float(table.loc[far, "value"].mean())


def where_right(
    runs: str | os.PathLike[str], data: str, pictures: tuple[int, ...] = SHOWN
) -> Image.Image:
    """Which pixels of CamVid's test pictures seed 0's networks classify rightly, side by side.

    A map says nothing of the photograph, which the project does not redistribute: 0 where a pixel
    has no class, 1 where both networks are right, 2 only K = 31, 3 only K = 3, 4 neither.

    Args:
        runs: the folder of the runs.
        data: CamVid's archive.
        pictures: the numbers of the test pictures; by default a quarter, half and three quarters
            through the set.
    """
    place, study = Path(data), STUDIES["camvid"]
    tested = Maps(place, pairs_in(place, *TEST_PAIRS), len(CAMVID), camvid_numbers)
    networks = {
        label: load_dense(run_folder("camvid", runs, label, 0) / MODEL) for label in (LARGE, SMALL)
    }
    found = []
    for index in pictures:
        image, truth = tested[index]
        large, small = (
            predict(model, image, size=study.common["size"])["map"] == truth
            for model in networks.values()
        )
        states = torch.full_like(truth, 4)
        states[small] = 3
        states[large] = 2
        states[large & small] = 1
        states[truth == IGNORED] = 0
        found.append(states)
    shown = Image.fromarray(torch.cat(found, 1).numpy(), "P")
    shown.putpalette(sum(WHERE_COLORS, ()))
    return shown
