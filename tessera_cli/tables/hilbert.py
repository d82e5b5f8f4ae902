"""The order of a Hilbert curve, along which neighbours in a table are neighbours on the ground."""

from __future__ import annotations

import numpy as np

LEVEL = 16
"""Of the curve: it passes 65,536 x 65,536 cells."""


def hilbert_order(lonlat: np.ndarray) -> np.ndarray:
    """Return int64 (N,): the positions, float64 (N, 2), along a curve over their bounding box; NaN come last."""
    there = np.flatnonzero(np.isfinite(lonlat).all(axis=1))
    low = lonlat[there].min(axis=0, initial=np.inf)
    extent = np.maximum(lonlat[there].max(axis=0, initial=-np.inf) - low, np.finfo(float).tiny)
    x, y = ((lonlat[there] - low) / extent * (2**LEVEL - 1)).astype(np.int64).T
    distance = np.zeros(len(there), np.int64)
    for bit in reversed(range(LEVEL)):  # Hilbert 1891, as in Warren, Hacker's Delight, 16-3
        side = 1 << bit
        right, upper = (x & side) > 0, (y & side) > 0
        distance = distance << 2 | (3 * right) ^ upper
        turned = ~upper & right
        x, y = np.where(turned, side - 1 - (x & (side - 1)), x), np.where(turned, side - 1 - (y & (side - 1)), y)
        x, y = np.where(upper, x, y), np.where(upper, y, x)
    missing = np.setdiff1d(np.arange(len(lonlat)), there)
    return np.concatenate([there[np.argsort(distance, kind="stable")], missing])
