"""What embeddings of the same pixel have in common when it is seen differently: measures that need no labels.

Embeddings share a large part that says nothing of the pixel, so plain cosines between any two are near 1. The mean
embedding of the first set is therefore subtracted from both sets. It is that of the first alone: in the mean of both, a
shift of all embeddings would look like opposite directions.
"""

from __future__ import annotations

import numpy as np

from tessera_cli.pretrain.evaluation.probe import unit

ROWS = 1024
"""Pixels whose similarities are held at once."""


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Mean cosine, −1..1, between the embeddings (N, R) of each pixel, less the mean of the first; 1: the same."""
    first, second = _directions(first, second)
    return float((first * second).sum(axis=1).mean())


def retrieval(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the pixels for which, of all N second embeddings, its own has the largest cosine to its first one.

    By chance 1/N, so values for different N do not compare.
    """
    first, second = _directions(first, second)
    found = 0
    for start in range(0, len(first), ROWS):
        nearest = (first[start : start + ROWS] @ second.T).argmax(axis=1)
        found += int((nearest == np.arange(start, start + len(nearest))).sum())
    return found / len(first)


def _directions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float64 after subtraction of the mean of the first; 0 where nothing is left."""
    mean = first.mean(axis=0, dtype=np.float64)
    return unit(first - mean), unit(second - mean)
