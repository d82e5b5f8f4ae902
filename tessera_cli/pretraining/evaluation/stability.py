"""Stability: how alike the embeddings of two views of the same pixel are; no labels are needed.

Embeddings share a large part that says nothing of the pixel, so plain cosines between any two are near 1. The mean
embedding of the first set is therefore subtracted from both sets. With the mean of both sets, a shift of all embeddings
would look like opposite directions.
"""

from __future__ import annotations

import numpy as np

from tessera_cli.pretraining.evaluation.probe import unit

ROWS = 1024
"""Pixels whose similarities are held at once."""


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean cosine, −1..1, of each pixel's two embeddings (N, R) less the mean of the first; 1: the same."""
    first, second = _directions(first, second)
    return float((first * second).sum(axis=1).mean())


def retrieval(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of pixels whose own second embedding is, of all N, nearest by cosine to their first one.

    Chance is 1/N, so compare values for the same N only.
    """
    first, second = _directions(first, second)
    found = 0
    for start in range(0, len(first), ROWS):
        nearest = (first[start : start + ROWS] @ second.T).argmax(axis=1)
        found += int((nearest == np.arange(start, start + len(nearest))).sum())
    return found / len(first)


def _directions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors, float64, after subtraction of the mean of the first; 0 where nothing is left."""
    mean = first.mean(axis=0, dtype=np.float64)
    return unit(first - mean), unit(second - mean)
