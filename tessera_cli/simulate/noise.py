"""Spatially correlated random fields."""

from __future__ import annotations

import numpy as np


def field(rng: np.random.Generator, shape: tuple[int, ...], scale: float, smoothness: float = 1) -> np.ndarray:
    """Return a periodic Matern field, float32 (H, W), mean 0, variance 1, with correlation length `scale` pixels."""
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    amplitude = (1 + (scale * fy[:, None]) ** 2 + (scale * fx) ** 2) ** (-(smoothness + 1) / 2)
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    values = np.fft.irfft2(white * amplitude.astype(np.float32), s=shape)
    return ((values - values.mean()) / values.std()).astype(np.float32)
