"""Random order that does not depend on the order of rows: hashes of keys."""

from __future__ import annotations

import numpy as np

_GAMMA = 0x9E3779B97F4A7C15


def mix(x: np.ndarray) -> np.ndarray:
    """Return the finaliser of SplitMix64 (Steele, Lea and Flood 2014): uint64 -> uint64."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def shuffled(keys: np.ndarray, *numbers: int) -> np.ndarray:
    """Return a hash of each key and of these numbers (a seed, a draw), uint64 (N,); keys are whole numbers (N,)."""
    salt = 0
    for number in numbers:
        salt = int(mix(np.array((salt + number + 1) * _GAMMA % 2**64, np.uint64)))
    return mix(mix(keys.astype(np.uint64)) ^ np.uint64(salt))
