"""One rule for all comparisons of trained variants: the difference, how sure, what was visible.

Variants are trained with the same seeds and tested on the same images; `compare` pairs both and
gives the difference the error of both samples. All comparisons are judged together: `level_of`
gives the one level at which all intervals are drawn, so that a comparison is called where its
interval leaves out zero; `call` gives the word, one of `CALLS`. The page "Claims and results" of
the book derives the rule. It was written before the runs that it judges, and is held against known
answers and simulations by tests/test_compare.py.

    >>> found = compare({"a": right_of_a, "b": right_of_b}, {"a": 1, "b": -1})
    >>> level = level_of([found.p])
    >>> call(0.6, *found.interval(level), found.visible(level))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

FALSE_SHARE = 0.05
"""The expected share of false ones among the comparisons that are called beyond zero."""

POWER = 0.8
"""How often the smallest visible difference is found."""

CALLS = {
    "seen here": "the interval lies beyond zero on the paper's side, and a difference as large as "
    "the paper's was visible",
    "order holds": "the interval lies beyond zero on the paper's side; the paper's difference is "
    "smaller than what was visible, so ours says nothing of its size",
    "inconclusive": "the interval holds zero: only a difference as large as the visible one is "
    "made unlikely",
    "opposite here": "the interval lies beyond zero on the other side, or where the paper has no "
    "difference",
}


@dataclass(frozen=True)
class Comparison:
    """A difference with its standard error, in the units of what was compared.

    Attributes:
        difference: of the means; points of accuracy from `compare`.
        error: its standard error, of both samples.
        freedom: the degrees of freedom of Student's t.
        seeds: how many runs of each variant.
        images: how many test images; 0 where the images' part is not in the error.
        error_of_images: the part of the error that more seeds would not take away.
    """

    difference: float
    error: float
    freedom: float
    seeds: int
    images: int = 0
    error_of_images: float = 0.0

    @property
    def p(self) -> float:
        """The probability of so large a difference, either way, where there is none."""
        from scipy import stats

        if self.error == 0:
            return float(self.difference == 0)
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.freedom))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval at that level."""
        from scipy import stats

        half = stats.t.ppf(0.5 + level / 2, self.freedom) * self.error
        return self.difference - half, self.difference + half

    def visible(self, level: float = 0.95) -> float:
        """The smallest difference that this design finds with a power of `POWER`."""
        return visible_difference(self.error, self.freedom, level)


def compare(correct: Mapping[str, Array], contrast: Mapping[str, float]) -> Comparison:
    """A difference in accuracy between variants, with the error of the seeds and of the images.

    Args:
        correct: by variant, which images each seed's network classifies rightly: booleans
            `(seeds, images)`. Row and column mean the same seed and image in all of them.
        contrast: by variant, its weight: `{"a": 1, "b": -1}` for a against b, four variants for a
            difference of differences. The weights add up to 0.

    Raises:
        KeyError: a variant that is not in `correct`.
        ValueError: fewer than two seeds or images, or weights that do not add up to 0.
    """
    import numpy as np

    if not math.isclose(sum(contrast.values()), 0, abs_tol=1e-9):
        raise ValueError(f"the weights {dict(contrast)} do not add up to 0")
    parts = [weight * correct[label].astype(float) for label, weight in contrast.items()]
    each = 100 * np.sum(parts, axis=0)
    if each.ndim != 2 or min(each.shape) < 2:
        raise ValueError(f"correct answers {each.shape}; needs two seeds and two images at least")
    seeds, images = each.shape
    of_seeds, of_images, mean = each.mean(axis=1), each.mean(axis=0), each.mean()
    by_seeds = of_seeds.var(ddof=1) / seeds
    by_images = of_images.var(ddof=1) / images
    rest = each - of_seeds[:, None] - of_images + mean
    by_rest = (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
    variance = max(by_seeds + by_images - by_rest, by_seeds, by_images)
    squares = by_seeds**2 / (seeds - 1) + by_images**2 / (images - 1)
    freedom = variance**2 / squares if squares else seeds - 1
    return Comparison(
        float(mean),
        math.sqrt(variance),
        float(freedom),
        seeds,
        images,
        math.sqrt(max(by_images - by_rest, 0)),
    )


def compare_accuracies(first: Sequence[float], second: Sequence[float], images: int) -> Comparison:
    """A difference in accuracy where only the accuracies are known, in percent and paired by seed.

    Which images were answered rightly is not known, so the images' part is taken as if the two
    variants answered independently of each other: more than it was.

    Raises:
        ValueError: other than the same number of runs, two at least.
    """
    import numpy as np

    found = compare_runs(first, second)
    shares = [float(np.mean(values)) / 100 for values in (first, second)]
    of_images = 100 * math.sqrt(sum(share * (1 - share) for share in shares) / images)
    error = math.hypot(found.error, of_images)
    squares = found.error**4 / found.freedom + of_images**4 / (images - 1)
    return Comparison(found.difference, error, error**4 / squares, found.seeds, images, of_images)


def compare_runs(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """A difference between values of runs, paired by seed: losses, which no test image carries.

    Its error is the seeds' alone.

    Raises:
        ValueError: other than the same number of runs, two at least.
    """
    import numpy as np

    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} runs; pair them, two at least")
    each = np.subtract(first, second, dtype=float)
    error = each.std(ddof=1) / math.sqrt(len(each))
    return Comparison(float(each.mean()), float(error), len(each) - 1, len(each))


def level_of(p_values: Iterable[float], share: float = FALSE_SHARE) -> float:
    """The level of all intervals, so that those of the called comparisons leave out zero.

    Args:
        p_values: of all comparisons that are judged together.
        share: of false ones among those that are called.
    """
    ordered = sorted(p_values)
    if not ordered:
        return 1 - share
    count = len(ordered)
    called = max((k for k, p in enumerate(ordered, 1) if p <= share * k / count), default=1)
    return 1 - share * called / count


def call(paper: float, low: float, high: float, visible: float) -> str:
    """One of CALLS.

    Args:
        paper: the paper's difference; 0 where it claims that there is none.
        low, high: our interval, at the level of `level_of`.
        visible: the smallest difference that our design finds.
    """
    if low <= 0 <= high:
        return "inconclusive"
    if paper * (low + high) <= 0:
        return "opposite here"
    return "seen here" if abs(paper) >= visible else "order holds"


def visible_difference(error: float, freedom: float, level: float = 0.95) -> float:
    """The difference of which a t test finds the share POWER.

    Args:
        error: the standard error of the difference.
        freedom: of Student's t.
        level: of the interval; one that leaves out zero is a finding.
    """
    import numpy as np
    from scipy import optimize, stats

    enough = stats.t.ppf(0.5 + level / 2, freedom)
    quantiles = (np.arange(1000) + 0.5) / 1000
    scatter = np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)  # estimated over true error

    def missed(size: float) -> float:
        return float(stats.norm.sf(enough * scatter, size).mean()) - POWER

    return error * float(optimize.brentq(missed, 0, enough * scatter[-1] + 4))


def planned_difference(
    of_seeds: float, of_images: float, seeds: int, images: int, level: float = 0.95
) -> float:
    """What a design will be able to see, from the scatter of earlier runs.

    Args:
        of_seeds: the standard deviation over the seeds of the difference of two variants.
        of_images: the standard deviation over the images of that difference, in the same unit,
            were each the mean of very many seeds.
        seeds, images: how many there will be.
        level: at which the comparisons will probably be judged.
    """
    by_seeds, by_images = of_seeds**2 / seeds, of_images**2 / images
    variance = by_seeds + by_images
    freedom = variance**2 / (by_seeds**2 / (seeds - 1) + by_images**2 / (images - 1))
    return visible_difference(math.sqrt(variance), freedom, level)
