"""Random order that does not depend on the order of rows: hashes of keys."""

from __future__ import annotations

import numpy as np

from tessera_cli.sampling.draws import mix

_GAMMA = 0x9E3779B97F4A7C15


def shuffled(keys: np.ndarray, *numbers: int) -> np.ndarray:
    """Return a hash of each key and of these numbers (a seed, a draw), uint64 (N,); keys are whole numbers (N,)."""
    salt = 0
    for number in numbers:
        salt = int(mix(np.array((salt + number + 1) * _GAMMA % 2**64, np.uint64)))
    return mix(mix(keys.astype(np.uint64)) ^ np.uint64(salt))
