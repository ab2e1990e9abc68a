"""The checks of the exercises: right answers pass, usual mistakes and nonsense do not."""

import math

import torch
from exercises import make_tests, solved
from torch import nn


def conv(c_in, c_out, kernel, fill=0.0, **options):
    """A convolution whose every number is the same."""
    layer = nn.Conv2d(c_in, c_out, kernel, **options)
    for tensor in layer.parameters():
        nn.init.constant_(tensor, fill)
    return layer


def with_zero_bias(chapter, number, name):
    """The solution's answer with its bias lost."""

    def answer(*arguments):
        layer = solved(chapter, number)[name](*arguments)
        nn.init.zeros_(layer.bias)
        return layer

    return answer


def odd(side):
    """The largest odd number that is not above it."""
    return (int(side) - 1) // 2 * 2 + 1


@torch.no_grad()
def spread(dilated, step, padding=None, fill=0.0):
    """A kernel without dilation, its nine values `step` apart."""
    layer = conv(8, 8, 2 * step + 1, fill, padding=step if padding is None else padding, groups=8)
    layer.weight[:, :, ::step, ::step] = dilated.weight
    layer.bias.copy_(dilated.bias)
    return layer


@torch.no_grad()
def cropped(layer, side, padding=None, corner=False):
    """The middle (or the first corner) of a kernel of 27."""
    side = min(side, 27)
    start = 0 if corner else (27 - side) // 2
    inside = slice(start, start + side)
    small = conv(4, 4, side, padding=side // 2 if padding is None else padding, groups=4)
    small.weight.copy_(layer.weight[:, :, inside, inside])
    small.bias.copy_(layer.bias)
    return small


def by_fft(x, weight, flip=False, roll=True, room=30):
    size = x.shape[2] + room, x.shape[3] + room
    kernel = weight.flip(2, 3) if flip else weight
    product = torch.fft.rfft2(x, size) * torch.fft.rfft2(kernel[:, 0], size).conj()
    found = torch.fft.irfft2(product, size)
    return (found.roll((15, 15), (2, 3)) if roll else found)[..., : x.shape[2], : x.shape[3]]


def brightest(x, k, own):
    shifted = [torch.roll(x, step, dim) for dim in (2, 3) for step in (k, -k)]
    return torch.stack(shifted + [x] * own).amax(0)


WRONG = {
    ("replknet", 1): [
        {"in_training": a, "merged": b}
        for a, b in (
            (0, 0),
            (192, 29),
            (241920 - 384, 236160),
            (241920 - 5 * 384, 236160),
            (241920 + 4 * 192, 236160),
            (241920, 236160 - 384),
            (241920, 236160 - 3 * 192),
            (241920, 236160 + 192 * 26),
            (236160, 241920),
        )
    ],
    ("replknet", 2): [
        {"largest_kernel": lambda c, s: 31},
        {"largest_kernel": lambda c, s: 0},
        {"largest_kernel": lambda c, s: odd((10 * c * s) ** 0.5)},
        {"largest_kernel": lambda c, s: odd((2 * c * s / (1 - s)) ** 0.5)},
        {"largest_kernel": lambda c, s: odd(10 * c * s / (1 - s))},
        {"largest_kernel": lambda c, s: int((10 * c * s / (1 - s)) ** 0.5)},
    ],
    ("replknet", 3): [
        {"dense": lambda dilated: dilated},
        {"dense": lambda dilated: spread(dilated, 1)},
        {"dense": lambda dilated: spread(dilated, dilated.dilation[0], padding=1)},
        {"dense": lambda dilated: spread(dilated, dilated.dilation[0], fill=1e-3)},
        {"dense": with_zero_bias("replknet", 3, "dense")},
    ],
    ("replknet", 4): [
        {"crop": lambda layer, size: layer},
        {"crop": lambda layer, size: cropped(layer, 2 * size + 1)},
        {"crop": lambda layer, size: cropped(layer, max(size - 1 + size % 2, 1))},
        {"crop": lambda layer, size: cropped(layer, 2 * size - 1, padding=13)},
        {"crop": lambda layer, size: cropped(layer, 2 * size - 1, corner=True)},
        {"crop": with_zero_bias("replknet", 4, "crop")},
    ],
    ("replknet", 5): [
        {"fft_depthwise": lambda x, weight: torch.zeros_like(x)},
        {"fft_depthwise": lambda x, weight: x},
        {"fft_depthwise": lambda x, weight: by_fft(x, weight, flip=True)},
        {"fft_depthwise": lambda x, weight: by_fft(x, weight, roll=False)},
        {"fft_depthwise": lambda x, weight: by_fft(x, weight, room=8)},
    ],
    ("mobilevigv2", 1): [
        {"svga_20x15": a, "mgc_20x20": b}
        for a, b in ((0, 0), (7, 3), (9, 3), (20, 3), (8, 2), (8, 5), (8, 10))
    ],
    ("mobilevigv2", 2): [
        {"true_price": a, "paper_price": b}
        for a, b in (
            (0, 0),
            (44800, 131721),
            (131712, 131721),
            (144000, 131721),
            (134400, 134400),
            (134400, 131712),
            (134400, 0),
        )
    ],
    ("mobilevigv2", 3): [
        {"subtract_once": lambda x, k: torch.zeros_like(x)},
        {"subtract_once": lambda x, k: x},
        {"subtract_once": lambda x, k: x.amax((2, 3), keepdim=True) - x},
        {"subtract_once": lambda x, k: brightest(x, k, own=True)},
        {"subtract_once": lambda x, k: brightest(x, k, own=False) - x},
        {"subtract_once": lambda x, k: brightest(-x, k, own=True) + x},
    ],
    ("mobilevigv2", 4): [{"smallest": size} for size in (0, 33, 64, 72, 96, 128, 224)],
    ("mobilevigv2", 5): [
        {"islands": lambda side, k: 0},
        {"islands": lambda side, k: 1},
        {"islands": lambda side, k: k**2},
        {"islands": lambda side, k: math.gcd(side, k)},
        {"islands": lambda side, k: (side // math.gcd(side, k)) ** 2},
    ],
}


test_right, test_wrong, test_tried = make_tests(WRONG)
