"""Numbers that look random and follow from a position: SplitMix64 (Steele et al., 2014).

It needs no state, so that any image can be made alone, and many at once.
"""

import numpy as np


def hash64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's scrambling of uint64 numbers, element by element."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix_seed(*parts: int) -> int:
    """One seed of 63 bits out of several numbers, different for different ones: `hash64` of each
    in turn, in Python's numbers, which are faster than arrays of one."""
    whole = (1 << 64) - 1
    state = 0
    for part in parts:
        x = (state ^ part) + 0x9E3779B97F4A7C15 & whole
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ x >> 27) * 0x94D049BB133111EB & whole
        state = x ^ x >> 31
    return state >> 1


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1) per seed and position; both are broadcast."""
    bits = hash64(seeds ^ hash64(positions.astype(np.int64).view(np.uint64)))
    return (bits >> np.uint64(40)).astype(np.float32) / (1 << 24)
