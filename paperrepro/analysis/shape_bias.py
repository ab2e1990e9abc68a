"""Shape bias: of the decisions for one of two cues in conflict, how many follow the shape?

Geirhos et al. (ICLR 2019) paint the shape of one object with the texture of another and ask people
and networks which of 16 categories they see. The shape bias is the fraction of decisions for the
shape among those for the shape or the texture; other answers do not count, nor do images whose
shape and texture are of one category. RepLKNet's Fig. 5 draws it for eight networks.

    >>> from paperrepro.analysis import shape_bias
    >>> humans = shape_bias.from_csv(sorted(Path("raw").glob("*subject*.csv")))
    >>> round(100 * humans.overall, 1)
    95.9

A network is asked by `from_network`, with `Stimuli`, the public images in a folder, or
`ShapesInConflict`, the project's own.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..files import data_folder, list_images, open_image
from ..shapes import SHAPES, Shapes
from .stages import held_still

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

CATEGORIES = tuple(
    "airplane bear bicycle bird boat bottle car cat "
    "chair clock dog elephant keyboard knife oven truck".split()
)
IMAGENET_CLASSES = 1000
COLUMNS = ("subj", "object_response", "category", "imagename")
STIMULUS = re.compile(r"(?:.*_)?(?P<image>(?P<shape>[a-z]+)\d+-(?P<texture>[a-z]+)\d+)\.\w+")
COUNTS = ["n_shape", "n_texture", "n_neither"]
MARKERS = "osD^vP<>X*"


@dataclass(frozen=True)
class ShapeBias:
    """What was decided on images whose cues are in conflict.

    Attributes:
        counts: a row per image: its name `image`, the `category` of its shape, and how many
            decisions were for the shape (`n_shape`), the texture and neither.
    """

    counts: pd.DataFrame

    @property
    def n_shape(self) -> int:
        return int(self.counts["n_shape"].sum())

    @property
    def n_texture(self) -> int:
        return int(self.counts["n_texture"].sum())

    @property
    def overall(self) -> float:
        """The shape bias from 0 to 1 over all decisions; NaN where none was for either cue."""
        return fraction(self.counts)

    @property
    def per_category(self) -> dict[str, float]:
        """The shape bias on the images of each shape."""
        groups = self.counts.groupby("category")
        return {str(category): fraction(rows) for category, rows in groups}

    def table(self) -> pd.DataFrame:
        """A row for "all" and for each category: its counts, shape bias and 95 % interval."""
        parts = {"all": self.counts} | dict(list(self.counts.groupby("category")))
        rows = []
        for category, counts in parts.items():
            low, high = interval(counts)
            row = {"category": category} | counts[COUNTS].sum().to_dict()
            rows.append(row | {"shape_bias": fraction(counts), "low": low, "high": high})
        return pd.DataFrame(rows)


def fraction(counts: pd.DataFrame) -> float:
    """Decisions for the shape over those for either cue."""
    n_shape, n_texture = counts["n_shape"].sum(), counts["n_texture"].sum()
    return float(n_shape / (n_shape + n_texture)) if n_shape + n_texture else float("nan")


def interval(
    counts: pd.DataFrame, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the shape bias over a choice of other images.

    Images are drawn with replacement, each with all that was decided on it; the deciding people or
    networks stay the same. NaN where no decision was for either cue.
    """
    n_shape, n_texture = counts["n_shape"].to_numpy(), counts["n_texture"].to_numpy()
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(counts), [1 / len(counts)] * len(counts), size=resamples)
    for_shape, for_either = drawn @ n_shape, drawn @ (n_shape + n_texture)
    defined = for_either > 0
    if not defined.any():
        return float("nan"), float("nan")
    outside = 50 * (1 - level)
    low, high = np.percentile(for_shape[defined] / for_either[defined], (outside, 100 - outside))
    return float(low), float(high)


def error_consistency(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Whether two deciders are right and wrong on the same images: Cohen's kappa.

    Two deciders agree by chance on c = p q + (1 - p)(1 - q) of the images, p and q the shares that
    they have right. Of the rest, kappa is the part on which they agree: 1 for the same errors, 0
    for errors that have nothing to do with each other, below 0 for opposite ones (Geirhos et al.,
    NeurIPS 2020, Eq. 1).

    Args:
        first, second: for each image in the same order, whether the answer was right; tensors and
            arrays will do.

    Returns:
        kappa; NaN where both are always right or always wrong, for then nothing is left to chance.

    Raises:
        ValueError: no image, or another number of them.
    """
    one, two = np.asarray(first, bool), np.asarray(second, bool)
    if one.shape != two.shape or not one.size:
        raise ValueError(
            f"{one.size} and {two.size} answers: they must be to the same images, one at least"
        )
    by_chance = one.mean() * two.mean() + (1 - one.mean()) * (1 - two.mean())
    if by_chance == 1:
        return float("nan")
    return float(((one == two).mean() - by_chance) / (1 - by_chance))


def tally(trials: pd.DataFrame) -> ShapeBias:
    """Count decisions; a row per decision, with columns image, shape, texture and decision.

    Raises:
        ValueError: no image's cues are in conflict.
    """
    conflicts = trials[trials["shape"] != trials["texture"]]
    if conflicts.empty:
        raise ValueError(
            f"shape and texture agree in all {len(trials)} images; a shape bias needs images in "
            "which they differ"
        )
    n_shape = (conflicts["decision"] == conflicts["shape"]).astype(int)
    n_texture = (conflicts["decision"] == conflicts["texture"]).astype(int)
    counted = conflicts.assign(
        category=conflicts["shape"],
        n_shape=n_shape,
        n_texture=n_texture,
        n_neither=1 - n_shape - n_texture,
    )
    return ShapeBias(counted.groupby(["image", "category"], as_index=False)[COUNTS].sum())


# Published decisions


def from_csv(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> ShapeBias:
    """The shape bias of published decisions, those of several files taken together.

    Args:
        paths: CSV files with the columns subj, object_response ("na" for none), category and
            imagename (`<anything>_<shape>N-<texture>M.png`), as rgeirhos/texture-vs-shape and
            bethgelab/model-vs-human have them.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file of another format, or no file; the message names it and what is wrong.
    """
    return tally(read_trials(paths))


def by_subject(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> dict[str, ShapeBias]:
    """The shape bias of each network in such files, and of all their people as "humans"."""
    trials = read_trials(paths)
    names = trials["subject"].str.replace(r"^subject-\d+$", "humans", regex=True)
    return {name: tally(rows) for name, rows in trials.groupby(names)}


def read_trials(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> pd.DataFrame:
    """The decisions of CSV files: subject, image, shape, texture and decision; see `from_csv`."""
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise ValueError("no CSV file given, so there are no decisions to count")
    return pd.concat([read_file(Path(path)) for path in paths], ignore_index=True)


def read_file(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file of decisions: {error}") from error
    table.columns = table.columns.str.lower()
    missing = [column for column in COLUMNS if column not in table]
    if missing or table.empty:
        lacks = f"the columns {', '.join(missing)}" if missing else "rows"
        raise ValueError(
            f"{path} lacks {lacks}; a file of decisions has {', '.join(COLUMNS)} and a row per "
            "image, as those of rgeirhos/texture-vs-shape have"
        )
    cues = table["imagename"].str.extract(f"^{STIMULUS.pattern}$")
    wrong = {
        "imagename": cues["image"].isna() | (cues["shape"] != table["category"]),
        "category": ~table["category"].isin(CATEGORIES),
        "object_response": ~table["object_response"].isin([*CATEGORIES, "na"]),
    }
    for column, rows in wrong.items():
        if rows.any():
            line = int(rows.argmax())
            raise ValueError(
                f"{path}, line {line + 2}: {column} {table[column][line]!r} in a row of category "
                f"{table['category'][line]!r}; an imagename ends in <category>N-<texture>M.png, "
                f"and the categories are {', '.join(CATEGORIES)}"
            )
    return cues[["image", "shape", "texture"]].assign(
        subject=table["subj"], decision=table["object_response"]
    )


# A network's decisions


@cache
def category_indices() -> dict[str, list[int]]:
    """The ImageNet-1k classes of each category, from `data/shape_bias/categories.csv`."""
    table = pd.read_csv(data_folder("shape_bias") / "categories.csv", comment="#")
    indices = table.groupby("category")["index"].apply(list)
    return {category: indices[category] for category in CATEGORIES}


def decide(logits: Tensor) -> list[str]:
    """The category of the largest mean probability over its ImageNet classes.

    The mean, not the sum: 109 breeds of dog weigh as much as one kind of airplane.

    Args:
        logits: `(N, 1000)`, of ImageNet-1k's classes in their order.

    Raises:
        ValueError: another shape, or a logit that is not finite.
    """
    if logits.dim() != 2 or logits.shape[1] != IMAGENET_CLASSES:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)}: the 16 categories are made of ImageNet's, so "
            f"they need (N, {IMAGENET_CLASSES})"
        )
    probabilities = finite(logits).double().softmax(1)
    means = [probabilities[:, indices].mean(1) for indices in category_indices().values()]
    return [CATEGORIES[best] for best in torch.stack(means, 1).argmax(1).tolist()]


def answers(logits: Tensor, categories: tuple[str, ...]) -> list[str]:
    """The category named by logits `(N, C)` of these categories in order, or of ImageNet's."""
    if logits.shape[1] == IMAGENET_CLASSES and categories == CATEGORIES:
        return decide(logits)
    if logits.shape[1] != len(categories):
        also = " or ImageNet's 1000" if categories == CATEGORIES else ""
        raise ValueError(
            f"the network tells {logits.shape[1]} classes apart; these images need one of "
            f"{len(categories)}{also}: {', '.join(categories)}"
        )
    return [categories[best] for best in finite(logits).argmax(1).tolist()]


def finite(logits: Tensor) -> Tensor:
    bad = (~logits.isfinite().all(1)).sum().item()
    if bad:
        raise ValueError(f"the network's answer to {bad} of {len(logits)} images is not finite")
    return logits


class Stimuli(Dataset):
    """Public cue-conflict images: `<folder>/<shape>/<shape>N-<texture>M.png`, transformed.

    Yields `(image (3, H, W), shape, texture)`, the cues as places in `categories`.

    Raises:
        OSError: no image, or, on access, one that cannot be read.
        ValueError: a folder or file of unknown categories.
    """

    categories = CATEGORIES

    def __init__(self, folder: str | os.PathLike, transform: Callable) -> None:
        self.transform = transform
        self.files = [(path, *cues(path)) for path in list_images(folder)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        path, shape, texture = self.files[index]
        return self.transform(open_image(path)), shape, texture


def cues(path: Path) -> tuple[int, int]:
    """The shape and the texture of an image by its place and name."""
    match = STIMULUS.fullmatch(path.name)
    if path.parent.name not in CATEGORIES:
        raise ValueError(
            f"{path.parent} is no folder of a known category; they are {', '.join(CATEGORIES)}"
        )
    if match is None or match["shape"] != path.parent.name or match["texture"] not in CATEGORIES:
        raise ValueError(
            f"{path} is not named {path.parent.name}N-<texture>M{path.suffix}, with a texture of "
            f"{', '.join(CATEGORIES)}"
        )
    return CATEGORIES.index(match["shape"]), CATEGORIES.index(match["texture"])


class ShapesInConflict(Dataset):
    """`paperrepro.shapes.Shapes` with shape and texture in conflict, transformed.

    Yields `(image (3, H, W), shape, texture)`. A texture's category is the shape of its class.
    """

    categories = SHAPES

    def __init__(self, count: int, transform: Callable, *, size: int = 64, seed: int = 2) -> None:
        self.shapes = Shapes(count, size, seed=seed, cue="conflict")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        images, shapes, textures = self.shapes.draw([index])
        return self.transform(images[0]), int(shapes[0]), int(textures[0])


@torch.no_grad()
def from_network(
    model: nn.Module,
    stimuli: Stimuli | ShapesInConflict,
    *,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> ShapeBias:
    """The shape bias of a network, which is left as it was.

    Args:
        model: images `(N, 3, H, W)` to logits `(N, C)`: of the stimuli's 16 categories in their
            order, or, with `Stimuli`, of ImageNet's 1000 classes.
        workers: processes that load images while the network works.

    Raises:
        ValueError: other classes, or logits that are not finite.
        UnreadableImage: naming a file that cannot be read.
    """
    categories = tuple(stimuli.categories)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    trials: list[tuple[int, int, str]] = []
    with held_still(model):
        loader = DataLoader(stimuli, batch_size, num_workers=workers)
        for images, shapes, textures in tqdm(
            loader, "Shape bias", leave=False, disable=not progress
        ):
            decisions = answers(model(images.to(device)).float().cpu(), categories)
            trials += zip(shapes.tolist(), textures.tolist(), decisions, strict=True)
    table = pd.DataFrame(trials, columns=["shape", "texture", "decision"])
    names = dict(enumerate(categories))
    table = table.assign(shape=table["shape"].map(names), texture=table["texture"].map(names))
    return tally(table.assign(image=table.index))


def draw(table: pd.DataFrame) -> "Figure":
    """RepLKNet's Fig. 5: a mark per category, a line at the shape bias over all; needs matplotlib.

    The paper's caption calls the lines averages across the categories. The toolbox that it used
    takes all decisions together, and so does this figure.

    Args:
        table: rows of `ShapeBias.table()`, with columns `name` and `source` before them; those of
            one name and source are one subject.

    Returns:
        The figure: the fraction of decisions for the shape to the right, the categories downwards.
    """
    import matplotlib.pyplot as plt

    def for_texture(for_shape: "ArrayLike") -> np.ndarray:
        return 1 - np.asarray(for_shape)

    figure, ax = plt.subplots(figsize=(8, 4.6))
    subjects = table.groupby(["name", "source"], sort=False)
    repeated = table.groupby("name")["source"].nunique() > 1
    for ((name, source), rows), marker in zip(subjects, cycle(MARKERS), strict=False):
        overall = rows.set_index("category")["shape_bias"]["all"]
        categories = rows[rows["category"] != "all"]
        label = f"{name} ({source})" if repeated[str(name)] else name
        (drawn,) = ax.plot(
            categories["shape_bias"],
            categories["category"],
            marker,
            label=f"{label}: {100 * overall:.1f} %",
            alpha=0.8,
        )
        ax.axvline(overall, color=drawn.get_color(), linewidth=1.2)
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), xlabel="decisions for the shape, of those for shape or texture")
    texture = ax.secondary_xaxis("top", functions=(for_texture, for_texture))
    texture.set_xlabel("decisions for the texture")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    return figure
