"""Sentinel-1 arithmetic of the official preprocessing: scaled decibels, mosaic of a date and orbit. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

SCALED_MAX = 32767


def scale(power: np.ndarray, arithmetic: Literal["float64", "float32"] = "float64") -> np.ndarray:
    """Return int16 trunc(clip((20 log10(x) + 50) * 200, 0, 32767)) of linear gamma0 float32; 0 is missing.

    The official code computes in float64 for Planetary Computer and in float32 for OPERA; every three hundredth value
    differs by 1. Values that are not finite or not positive are missing, and so is everything below about -25 dB, which
    the formula clips to 0. The factor 20 is applied to
    power although it belongs to amplitudes; the models were trained on it.
    """
    usable = np.isfinite(power) & (power > 0)
    values = np.where(usable, power, 1).astype(arithmetic)
    np.log10(values, out=values)
    for operate, number in ((np.multiply, 20.0), (np.add, 50.0), (np.multiply, 200.0)):
        operate(values, number, out=values)
    values.clip(0, SCALED_MAX, out=values)
    return np.where(usable, values.astype(np.int16), np.int16(0))


def mosaic(layers: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return int16 (N, 2), `shape`: the first scene that is not 0, for VV and VH independently.

    `layers`: scaled int16 (N, 2) per scene in mosaic order.
    """
    merged = np.zeros(shape, np.int16)
    for layer in layers:
        np.copyto(merged, layer, where=merged == 0)
    return merged
