"""What a batch of embeddings says of an encoder without labels: how many of its dimensions are in use."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPS = 1e-7
"""As in the RankMe paper."""
DEAD_SHARE, DEAD_STD = 1e-3, 1e-6
"""A dimension is dead whose standard deviation is below this share of the median one, or below this number."""


def rank_me(x_NR: Tensor | np.ndarray) -> float:
    """RankMe: the exponential of the entropy of the singular values' shares, 1..min(N, R); NaN if x is not finite.

    Garrido et al., 2023 (arXiv 2210.02885), on embeddings as they are: not centred. Only runs of one method, measured
    on equally many pixels, can be compared by it.
    """
    x_NR = torch.as_tensor(x_NR).detach().double()
    if not x_NR.isfinite().all():
        return float("nan")
    singular = torch.linalg.svdvals(x_NR)
    shares = singular / singular.sum().clamp_min(torch.finfo(x_NR.dtype).tiny) + EPS
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(x_NR: Tensor | np.ndarray) -> dict[str, float]:
    """The standard deviations of the dimensions over the pixels: least, median, mean; and how many are dead."""
    std_R = torch.as_tensor(x_NR).detach().double().std(dim=0, correction=0)
    median = float(std_R.median())
    return {
        "std_min": float(std_R.min()),
        "std_median": median,
        "std_mean": float(std_R.mean()),
        "dead_dimensions": int((std_R < max(DEAD_STD, DEAD_SHARE * median)).sum()),
    }
