"""Sentinel-1 arithmetic of the official preprocessing: scaled decibels, mosaic of a date and orbit. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

SCALED_MAX = 32767


def scale(power: np.ndarray, arithmetic: Literal["float64", "float32"] = "float64") -> np.ndarray:
    """Linear gamma0 power, float32 -> int16: trunc(clip((20 log10(x) + 50) * 200, 0, 32767)); 0 = missing.

    The official code computes in float64 for Planetary Computer and in float32 for OPERA; every three hundredth value
    differs by 1. Values that are not finite or not positive are missing, and so is everything below about -25 dB, which
    the formula clips to 0. The factor 20 is applied to
    power although it belongs to amplitudes; the models were trained on it.
    """
    usable = np.isfinite(power) & (power > 0)
    decibel = 20.0 * np.log10(np.where(usable, power, 1.0).astype(arithmetic))
    scaled = np.clip((decibel + 50.0) * 200.0, 0, SCALED_MAX)
    return np.where(usable, scaled, 0).astype(np.int16)


def mosaic(layers: Iterable[np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """int16 (H, W, 2): per polarisation the first scene that is not 0 wins, so VV and VH may differ in origin.

    `layers`: scaled int16 (H, W, 2) per scene in mosaic order; `wanted` bool (H, W), 0 elsewhere.
    """
    merged = np.zeros((*wanted.shape, 2), np.int16)
    for layer in layers:
        np.copyto(merged, layer, where=merged == 0)
    merged[~wanted] = 0
    return merged
