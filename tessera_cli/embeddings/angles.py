"""Directions of embeddings: what is left of them once their length plays no part."""

from __future__ import annotations

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows (N, R) of length 1, float64; those of length 0 stay."""
    rows = vectors.astype(np.float64)
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
