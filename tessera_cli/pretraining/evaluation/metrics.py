"""Measures of embeddings that need no labels: how many dimensions are in use, how alike two views of a pixel are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPS = 1e-7
"""As in the paper on RankMe."""
ROWS = 1024
"""Pixels whose similarities are held at once."""
DEAD_SHARE, DEAD_STD = 1e-3, 1e-6
"""A dimension is dead if its standard deviation is below this share of the median one, or below this number."""


def rank_me(x_NR: Tensor | np.ndarray) -> float:
    """Return RankMe of embeddings (N, R): the exponential of the entropy of the normalised singular values.

    1..min(N, R); NaN if x is not finite. Garrido et al., 2023 (arXiv 2210.02885): embeddings are not centred. Compare
    runs of one method on equally many pixels only.
    """
    x_NR = torch.as_tensor(x_NR).detach().double()
    if not x_NR.isfinite().all():
        return float("nan")
    singular = torch.linalg.svdvals(x_NR)
    shares = singular / singular.sum().clamp_min(torch.finfo(x_NR.dtype).tiny) + EPS
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(x_NR: Tensor | np.ndarray) -> dict[str, float]:
    """Return least, median and mean standard deviation of the dimensions over the pixels, and the dead dimensions."""
    std_R = torch.as_tensor(x_NR).detach().double().std(dim=0, correction=0)
    median = float(std_R.median())
    return {
        "std_min": float(std_R.min()),
        "std_median": median,
        "std_mean": float(std_R.mean()),
        "dead_dimensions": int((std_R < max(DEAD_STD, DEAD_SHARE * median)).sum()),
    }


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
    """Return unit vectors, float64, after subtraction of the mean of the first; 0 where nothing is left.

    Embeddings share a large part that says nothing of the pixel, so plain cosines between any two are near 1. With the
    mean of both sets, a shift of all embeddings would look like opposite directions.
    """
    mean = first.mean(axis=0, dtype=np.float64)
    return _unit(first - mean), _unit(second - mean)


def _unit(x_NR: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; 0 stays 0."""
    return np.asarray(x_NR / np.maximum(np.linalg.norm(x_NR, axis=1, keepdims=True), np.finfo(np.float64).tiny))
