"""The checks of the exercises of three chapters: right answers pass, usual mistakes do not."""

import math

import numpy as np
import torch
from exercises import make_tests
from scipy import stats
from torch.nn import functional as F

from paperrepro.benchmark.operators import conv_memory
from paperrepro.training.recipe import changes


def padded_by_the_layer(x, weight):
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


def padded_first(x, weight):
    margin = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, [margin] * 4), weight, groups=len(weight))


def slow(offset):
    """An answer to exercise 3 whose function is right and whose number may not be."""
    return {"first_slow_kernel": lambda strip: 2 * strip + offset, "depthwise": padded_first}


def nothing_kept(x, weight):
    return torch.zeros_like(x)


def with_permute(layers, x):
    return layers(x).permute(0, 2, 3, 1).contiguous()


def readable(factor=2**0.5, share=0.975, less=0):
    return {
        "readable": lambda spread, pairs: stats.t.ppf(share, max(pairs - less, 1)) * factor * spread
    }


def sorted_holm(p):
    kept = [value <= 0.05 / (len(p) - rank) for rank, value in enumerate(sorted(p))]
    return list(np.cumprod(kept).astype(bool))


def unstopped_holm(p):
    order = np.argsort(np.argsort(p))
    return [value <= 0.05 / (len(p) - rank) for value, rank in zip(p, order, strict=True)]


def pooled(table, a, b, whole=1.0, only=False, normal=False):
    runs = (table[table.variant.isin([a, b])] if only else table).groupby("variant").top1
    freedom = int((runs.count() - 1).sum())
    variance = ((runs.count() - 1) * runs.var()).sum() / freedom
    error = math.sqrt(variance * (1 / runs.count()[a] + 1 / runs.count()[b]))
    t = 1.96 if normal else stats.t.ppf(0.975, freedom)
    return runs.mean()[a] - runs.mean()[b], whole * t * error


def fields(experiment, label, base):
    return set(changes(experiment.recipe(label), experiment.recipe(base)))


def options(experiment, label, base, only_ours=False):
    ours, theirs = experiment.recipe(label).config, experiment.recipe(base).config
    names = ours.keys() if only_ours else ours.keys() | theirs.keys()
    return {name for name in names if ours.get(name) != theirs.get(name)}


def half_a_cosine(recipe, epoch, start, length):
    done = (epoch - start) / length
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2


def rate(recipe, epoch, begins_late=True, lasts_short=True, from_zero=False):
    """Warm-up and cosine, with the usual mistakes."""
    warm, last = recipe.warmup_epochs, recipe.epochs
    if epoch < warm:
        low = 0.0 if from_zero else recipe.warmup_lr
        return low + (recipe.lr - low) * epoch / warm
    start = warm if begins_late else 0
    return half_a_cosine(recipe, epoch, start, last - (warm if lasts_short else 0))


def parts(epochs, sizes, strength=1.0, lengths=False, late=0):
    each = len(sizes)
    firsts = [epochs // each if lengths else i * epochs // each + late for i in range(each)]
    return tuple((first, size, strength) for first, size in zip(firsts, sizes, strict=True))


BILL = (128**2 + 160**2 + 192**2 + 224**2) / (4 * 224**2)

WRONG = {
    ("why-flops-mislead", 1): [
        {"best_time": lambda m, n, p, b: m / p + n / b},
        {"best_time": lambda m, n, p, b: min(m / p, n / b)},
        {"best_time": lambda m, n, p, b: min(p, m / n * b)},
        {"best_time": lambda m, n, p, b: m / p},
        {"best_time": lambda m, n, p, b: n / b},
        {"best_time": lambda m, n, p, b: 0.0},
        {"best_time": lambda m, n, p, b: 0.01},
    ],
    ("why-flops-mislead", 2): [
        {"break_even": lambda h, w, c: 2},
        {"break_even": lambda h, w, c: 6},
        {"break_even": lambda h, w, c: 0},
        {"break_even": lambda h, w, c: conv_memory(h, w, c) / conv_memory(h, w, c, groups=c)},
        {"break_even": lambda h, w, c: conv_memory(h, w, c) // conv_memory(h, w, c, groups=c)},
        {"break_even": lambda h, w, c: conv_memory(h, w, c) // (2 * h * w * c) + 1},
        {"break_even": lambda h, w, c: c},
    ],
    ("why-flops-mislead", 3): [
        *(slow(offset) for offset in (0, 1, 2, 5)),
        slow(3) | {"depthwise": padded_by_the_layer},
        slow(3) | {"depthwise": nothing_kept},
        slow(3) | {"depthwise": lambda x, w: F.conv2d(x, w, groups=len(w))},
        slow(3) | {"depthwise": lambda x, w: padded_first(x, w.flip(2, 3))},
        slow(3) | {"depthwise": lambda x, w: x},
        {"first_slow_kernel": lambda strip: 15, "depthwise": padded_first},
    ],
    ("why-flops-mislead", 4): [{"passes": value} for value in (0, 2, 3, 8, 10, 11, 13)],
    ("why-flops-mislead", 5): [
        {"converted": lambda layers, x: layers(x)},
        {"converted": lambda layers, x: layers(x.contiguous(memory_format=torch.channels_last))},
        {"converted": with_permute},
        {"converted": lambda layers, x: torch.zeros_like(x)},
        {"converted": lambda layers, x: x},
    ],
    ("ablations", 1): [
        readable(factor=1),
        readable(factor=2),
        readable(share=0.95),
        readable(less=1),
        {"readable": lambda spread, pairs: 1.96 * 2**0.5 * spread},
        {"readable": lambda spread, pairs: 0.22},
        {"readable": lambda spread, pairs: 0.0},
    ],
    ("ablations", 2): [
        {"seeds": lambda scatter, delta: math.ceil(4 * (scatter / delta) ** 2 - 1e-9)},
        {"seeds": lambda scatter, delta: math.ceil(2 * (scatter / delta) ** 2 - 1e-9)},
        {"seeds": lambda scatter, delta: math.ceil(16 * (scatter / delta) ** 2 - 1e-9)},
        {"seeds": lambda scatter, delta: math.floor(8 * (scatter / delta) ** 2)},
        {"seeds": lambda scatter, delta: 8 * (scatter / delta) ** 2},
        {"seeds": lambda scatter, delta: 8},
        {"seeds": lambda scatter, delta: 0},
    ],
    ("ablations", 3): [
        {"holm": sorted_holm},
        {"holm": unstopped_holm},
        {"holm": lambda p: [value <= 0.05 / len(p) for value in p]},
        {"holm": lambda p: [value <= 0.05 for value in p]},
        {"holm": lambda p: [False] * len(p)},
        {"holm": lambda p: [True] * len(p)},
    ],
    ("ablations", 4): [
        {"pooled": lambda table, a, b: pooled(table, b, a)},
        {"pooled": lambda table, a, b: pooled(table, a, b, whole=2)},
        {"pooled": lambda table, a, b: pooled(table, a, b, whole=0.5**0.5)},
        {"pooled": lambda table, a, b: pooled(table, a, b, only=True)},
        {"pooled": lambda table, a, b: pooled(table, a, b, normal=True)},
        {"pooled": lambda table, a, b: (2, 0.0)},
        {"pooled": lambda table, a, b: (0, 0)},
    ],
    ("ablations", 5): [
        {"uncontrolled": fields},
        {"uncontrolled": options},
        {"uncontrolled": lambda e, a, b: options(e, a, b, True) | (fields(e, a, b) - {"config"})},
        {"uncontrolled": lambda e, a, b: set()},
        {"uncontrolled": lambda e, a, b: {"k"}},
        {"uncontrolled": lambda e, a, b: fields(e, a, b) | options(e, a, b)},
    ],
    ("training", 1): [
        {"decay_for": lambda share, steps: 1 / (share * steps)},
        {"decay_for": lambda share, steps: 1 - share},
        {"decay_for": lambda share, steps: share * steps},
        {"decay_for": lambda share, steps: 1 + 1 / (share * steps)},
        {"decay_for": lambda share, steps: 0.0},
        {"decay_for": lambda share, steps: 0.9995},
        {"decay_for": lambda share, steps: 1.0},
    ],
    ("training", 2): [
        {"rate": lambda recipe, epoch: rate(recipe, epoch, begins_late=False, lasts_short=False)},
        {"rate": lambda recipe, epoch: rate(recipe, epoch, lasts_short=False)},
        {"rate": lambda recipe, epoch: rate(recipe, epoch, from_zero=True)},
        {"rate": lambda recipe, epoch: half_a_cosine(recipe, epoch, 0, recipe.epochs)},
        {"rate": lambda recipe, epoch: recipe.lr},
        {"rate": lambda recipe, epoch: 0.0},
    ],
    ("training", 3): [
        *({"share_left": share} for share in (0.0, 1.0, 0.786, 0.617, 1 - BILL, 0.25)),
        {"schedule": lambda epochs, sizes: parts(epochs, sizes, lengths=True)},
        {"schedule": lambda epochs, sizes: parts(epochs, sizes, strength=0.5)},
        {"schedule": lambda epochs, sizes: parts(epochs, sizes, late=1)},
        {"schedule": lambda epochs, sizes: parts(epochs, sizes[::-1])},
        {"schedule": lambda epochs, sizes: parts(300, sizes)},
        {"schedule": lambda epochs, sizes: tuple(part[:2] for part in parts(epochs, sizes))},
    ],
    ("training", 4): [
        {"part_of": lambda order, rank, world, start: order[rank + start :: world]},
        {"part_of": lambda order, rank, world, start: order[start * world :: world]},
        {"part_of": lambda order, rank, world, start: order[rank::world]},
        {"part_of": lambda order, rank, world, start: order[rank * len(order) // world :]},
        {"part_of": lambda order, rank, world, start: []},
        {"part_of": lambda order, rank, world, start: order},
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)
