"""How far an embedding would move if other dates had been clear: embeddings of halves of its observations differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.inference.encode import encode
from tessera_cli.sampling.halves import halves

if TYPE_CHECKING:
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.models.load import Model

AT_ONCE = 1 << 16
"""Pixels whose embeddings are held, of both halves in float32."""


def uncertainty(
    dpixels: DPixels,
    model: Model,
    pixels: np.ndarray,
    *,
    draws: int,
    dims: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Return the uncertainty of the embeddings of some pixels, float32 (N,), in row-major order.

    It is the expected cosine distance between a pixel's embedding and the one that endlessly many dates like its own
    would give. A quarter of the mean distance between embeddings of two random halves: with dates drawn independently
    the variance of an embedding falls as 1/n, halves have twice that of the whole, and differ by two of them. So two
    embeddings of unchanged ground are the sum of their uncertainties apart on average, as far as dates are the cause.

    Args:
        dpixels: The tile's observations.
        model: A loaded model with statistics.
        pixels: bool (H, W), as for `encode`.
        draws: How many times observations are halved: each costs about as much as the embedding.
        dims: How many leading values of the embeddings count; None for all.
        seed: Random seed of v1.0 models.
        threads: As for `encode`.
        progress: Called with the pixels finished since its last call: each counts once per draw.

    Returns:
        At least 0; NaN where no draw gave both halves an observation.
    """
    if not model.spec.use_ascending and len(dpixels.s1_asc):
        dpixels = dpixels.without_ascending()
    rule, numbers = model.spec.observations, np.flatnonzero(pixels)
    total, count = np.zeros(len(numbers)), np.zeros(len(numbers), np.int64)
    for draw in range(draws):
        both = halves(dpixels, draw)
        seen = np.logical_and(*(half.counts.any(axis=0) & rule.valid_pixels(half) for half in both))[pixels]
        for start in range(0, len(numbers), AT_ONCE):
            part = np.arange(start, min(start + AT_ONCE, len(numbers)))
            there = part[seen[part]]
            if len(there):
                wanted = np.zeros(pixels.size, bool)
                wanted[numbers[there]] = True
                one, other = (
                    encode(half, model, wanted.reshape(pixels.shape), dims=dims, seed=seed, threads=threads).values
                    for half in both
                )
                total[there] += cosine_distance(one, other)
                count[there] += 1
            if progress:
                progress(len(part))
    with np.errstate(invalid="ignore"):
        return (total / count / 4).astype(np.float32)


def cosine_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 1 - cosine of the angle between rows, (N, R) each: float64 (N,), 0 to 2; NaN where one is zero."""
    a, b = (np.asarray(each, np.float64) for each in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray(1 - np.clip(cosine, -1, 1))
