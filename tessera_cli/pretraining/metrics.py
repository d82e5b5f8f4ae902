"""Measures of embeddings that need no labels: how many dimensions are in use."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPS = 1e-7
"""As in the paper on RankMe."""
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
