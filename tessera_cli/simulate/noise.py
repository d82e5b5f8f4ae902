"""Spatially correlated random fields, and an independent random stream for each thing simulated."""

from __future__ import annotations

import numpy as np


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one named part of the simulation: the same whatever was drawn before it, and in any thread."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def field(rng: np.random.Generator, shape: tuple[int, int], scale: float, smoothness: float = 1) -> np.ndarray:
    """float32 (H, W), mean 0 and variance 1, Matern correlated over `scale` pixels; opposite edges join.

    `smoothness` 1 is ragged as a cloud, 6 is smooth.
    """
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    amplitude = (1 + (scale * fy[:, None]) ** 2 + (scale * fx) ** 2) ** (-(smoothness + 1) / 2)
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    values = np.fft.irfft2(white * amplitude.astype(np.float32), s=shape)
    result: np.ndarray = ((values - values.mean()) / values.std()).astype(np.float32)
    return result
