"""The one rule for comparisons: known answers, and what it promises, by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from paperrepro.claims.compare import (
    CALLS,
    POWER,
    Comparison,
    call,
    compare,
    compare_runs,
    level_of,
    planned_difference,
    visible_difference,
)


def crossed(rng, runs, seeds, images, *, shift=0.0, of_seeds=0.0, of_images=0.0, rest=1.0):
    """Differences (runs, seeds, images) with a part of the seed, of the image and of both."""
    return (
        shift
        + of_seeds * rng.standard_normal((runs, seeds, 1))
        + of_images * rng.standard_normal((runs, 1, images))
        + rest * rng.standard_normal((runs, seeds, images))
    )


def compared(differences):
    """One comparison per run, of points."""
    contrast = {"a": 1, "b": -1}
    nothing = np.zeros(differences.shape[1:])
    return [compare({"a": one / 100, "b": nothing}, contrast) for one in differences]


def test_by_hand():
    """Two seeds, two images: d = [[1, 0], [1, 1]]."""
    a = np.array([[1, 0], [1, 1]], bool)
    b = np.zeros((2, 2), bool)
    found = compare({"a": a, "b": b}, {"a": 1, "b": -1})
    # Means of the seeds 0.5 and 1, of the images 1 and 0.5: each of variance 0.125, halved; the
    # rest is +-0.25, of mean square 0.25, in four cells.
    assert found.difference == 75
    assert found.error == pytest.approx(100 * math.sqrt(0.0625 + 0.0625 - 0.0625))
    assert found.freedom == pytest.approx(0.5)
    assert (found.seeds, found.images) == (2, 2)


def test_with_the_images_alike_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    runs = rng.standard_normal(7) + 0.5
    each = np.repeat(runs[:, None], 40, axis=1)
    found = compare({"a": each / 100, "b": 0 * each}, {"a": 1, "b": -1})
    told = stats.ttest_1samp(runs, 0)
    low, high = told.confidence_interval(0.9)
    assert found.p == pytest.approx(told.pvalue)
    assert found.freedom == pytest.approx(6)
    assert found.interval(0.9) == pytest.approx((low, high))
    by_runs = compare_runs(runs, np.zeros(7))
    assert by_runs.p == pytest.approx(found.p)
    assert by_runs.interval(0.9) == pytest.approx(found.interval(0.9))


def test_with_the_seeds_alike_it_is_the_z_test_of_the_images():
    right, wrong = np.arange(400) % 4 == 0, np.zeros(400, bool)
    found = compare({"a": np.tile(right, (3, 1)), "b": np.tile(wrong, (3, 1))}, {"a": 1, "b": -1})
    assert found.error == pytest.approx(100 * np.std(right, ddof=1) / 20)
    assert found.error_of_images == pytest.approx(found.error)
    assert found.freedom == pytest.approx(399)


def test_what_both_variants_share_does_not_count():
    rng = np.random.default_rng(1)
    hard = rng.random((6, 300)) < 0.5
    better = hard | (rng.random((6, 300)) < 0.1)
    alone = compare({"a": better & ~hard, "b": np.zeros_like(hard)}, {"a": 1, "b": -1})
    assert compare({"a": better, "b": hard}, {"a": 1, "b": -1}) == alone


def test_a_difference_of_differences():
    rng = np.random.default_rng(2)
    four = {label: rng.random((5, 200)) < 0.5 for label in "abcd"}
    signs = {"a": 1, "b": -1, "c": -1, "d": 1}
    found = compare(four, signs)
    means = {label: 100 * answers.mean() for label, answers in four.items()}
    assert found.difference == pytest.approx(
        sum(sign * means[label] for label, sign in signs.items())
    )
    with pytest.raises(ValueError, match="add up to 0"):
        compare(four, {"a": 1, "b": -1, "c": 1})


@pytest.mark.parametrize(
    ("seeds", "parts"),
    [
        (3, {"of_seeds": 0.5}),
        (13, {"of_seeds": 0.5}),
        (13, {"of_images": 1.0}),
        (8, {"of_seeds": 0.2, "of_images": 1.0}),
    ],
    ids=str,
)
def test_coverage_and_false_positives(seeds, parts):
    """Of 1,500 intervals of 95 % about 5 % miss; the rule may be cautious, never bold."""
    found = compared(crossed(np.random.default_rng(3), 1500, seeds, 60, shift=0.4, **parts))
    missed = np.mean([not low < 0.4 < high for low, high in (one.interval() for one in found)])
    assert 0.02 < missed < 0.067


def test_errors_of_the_seeds_alone_would_find_too_much():
    """Why the images count: the same networks, tested on other images, differ otherwise."""
    each = crossed(np.random.default_rng(4), 600, 8, 60, of_images=1.0)
    alone = [compare_runs(one.mean(axis=1), np.zeros(8)).p < 0.05 for one in each]
    both = [one.p < 0.05 for one in compared(each)]
    assert np.mean(alone) > 0.3
    assert np.mean(both) < 0.08


def test_power_at_the_visible_difference():
    seeds, images, parts = 8, 60, {"of_seeds": 0.4, "of_images": 1.0, "rest": 1.0}
    planned = planned_difference(
        math.hypot(parts["of_seeds"], parts["rest"] / math.sqrt(images)),
        parts["of_images"],
        seeds,
        images,
    )
    rng = np.random.default_rng(5)
    found = compared(crossed(rng, 1200, seeds, images, shift=planned, **parts))
    assert np.mean([one.p < 0.05 for one in found]) == pytest.approx(POWER, abs=0.05)
    assert np.median([one.visible() for one in found]) == pytest.approx(planned, rel=0.1)


def test_the_visible_difference_of_many_seeds_is_that_of_the_normal_distribution():
    """1.96 + 0.84 standard errors."""
    assert visible_difference(0.5, 1e6) == pytest.approx(0.5 * 2.8016, rel=1e-3)
    enough = stats.t.ppf(0.975, 12)
    seen = visible_difference(1, 12)
    assert stats.nct.sf(enough, 12, seen) == pytest.approx(POWER, abs=2e-3)
    assert visible_difference(1, 2) > visible_difference(1, 12) > visible_difference(1, 1e6)
    assert visible_difference(1, 12, level=0.99) > visible_difference(1, 12)


def test_the_level_is_benjamini_hochbergs():
    rng = np.random.default_rng(6)
    for _ in range(200):
        p = rng.random(20) ** rng.integers(1, 6)
        kept = stats.false_discovery_control(p) <= 0.05
        level = level_of(p)
        if kept.any():
            assert ((p <= 1 - level + 1e-12) == kept).all()
        else:
            assert level == pytest.approx(1 - 0.05 / 20)
    assert level_of([]) == 0.95


def test_few_of_those_called_are_false_though_they_share_a_variant():
    """Ten variants against one base: seven are the same, three differ by two points."""
    rng = np.random.default_rng(7)
    seeds, images, truth = 6, 40, np.array([0] * 7 + [2.0] * 3)
    shares, found = [], []
    for _ in range(250):
        base = crossed(rng, 1, seeds, images, of_seeds=0.5, of_images=0.5)[0]
        each = crossed(rng, 10, seeds, images, of_seeds=0.5, of_images=0.5)
        judged = compared(each + truth[:, None, None] - base)
        level = level_of([one.p for one in judged])
        called = np.array(
            [not low <= 0 <= high for low, high in (one.interval(level) for one in judged)]
        )
        shares.append((called & (truth == 0)).sum() / max(called.sum(), 1))
        found.append(called[truth != 0].mean())
    assert np.mean(shares) < 0.05
    assert np.mean(found) > 0.5


def test_calls():
    assert call(0.6, 0.2, 1.4, visible=0.5) == "seen here"
    assert call(0.6, 0.2, 1.4, visible=0.9) == "order holds"
    assert call(0.6, -0.2, 1.4, visible=0.5) == "inconclusive"
    assert call(0.6, -1.4, -0.2, visible=0.5) == "opposite here"
    assert call(0.0, 0.2, 1.4, visible=0.5) == "opposite here"
    assert call(-0.6, -1.4, -0.2, visible=0.5) == "seen here"
    assert {call(p, lo, lo + 1, 0.5) for p in (-1, -0.1, 0, 1) for lo in (-2, -0.5, 1)} == set(
        CALLS
    )


def test_without_scatter():
    """Ten runs that agree to the digit."""
    same = compare_runs([1.0] * 10, [1.0] * 10)
    assert same == Comparison(0, 0, 9, 10) and same.p == 1 and same.interval() == (0, 0)
    assert compare_runs([2.0] * 10, [1.0] * 10).p == 0


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (9,)])
def test_one_seed_or_one_image_is_no_comparison(shape):
    answers = {"a": np.ones(shape, bool), "b": np.zeros(shape, bool)}
    with pytest.raises(ValueError, match="two seeds"):
        compare(answers, {"a": 1, "b": -1})
    with pytest.raises(ValueError, match="two at least"):
        compare_runs([1], [2])
