"""The frames of a tile by sensor, with the statistics that standardise them: optical, and radar of both orbits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, DPixels
from tessera_cli.sampling.statistics import Statistics

Modality = Literal["s2", "s1"]
"""The input of one backbone: Sentinel-2, or Sentinel-1 of both orbits."""
BAND_COUNTS: dict[Modality, int] = {"s2": len(S2_BANDS), "s1": len(S1_BANDS)}


@dataclass(frozen=True, eq=False)
class SensorSeries:
    """Frames of one kind that share statistics: all Sentinel-2, or one orbit direction of Sentinel-1."""

    frames: np.ndarray
    """integer (T, P, C): raw values; P = H x W pixels in row-major order."""
    valid: np.ndarray
    """bool (T, P)"""
    doy: np.ndarray
    """uint16 (T,): day of year 1..366."""
    mean: np.ndarray
    """float32 (C,)"""
    std: np.ndarray
    """float32 (C,)"""


SensorSeriesByModality = dict[Modality, tuple[SensorSeries, ...]]


def sensor_series(dpixels: DPixels, statistics: Statistics) -> SensorSeriesByModality:
    """Return the series of both sensors.

    A Sentinel-2 frame is valid at a pixel where its mask is not 0, whatever the bands hold. Sentinel-1 has one series
    per orbit direction, each with its own statistics: ascending frames come before descending ones, unsorted by date.
    """
    asc = statistics.s1_asc_mean, statistics.s1_asc_std
    desc = statistics.s1_desc_mean, statistics.s1_desc_std
    return {
        "s2": (_series(dpixels.s2, dpixels.s2_mask != 0, dpixels.s2_doy, statistics.s2_mean, statistics.s2_std),),
        "s1": (
            _series(dpixels.s1_asc, dpixels.s1_asc_valid, dpixels.s1_asc_doy, *asc),
            _series(dpixels.s1_desc, dpixels.s1_desc_valid, dpixels.s1_desc_doy, *desc),
        ),
    }


def _series(
    frames: np.ndarray, valid: np.ndarray, doy: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> SensorSeries:
    count, height, width, bands = frames.shape
    pixels = height * width
    return SensorSeries(
        frames.reshape(count, pixels, bands),
        valid.reshape(count, pixels),
        doy,
        np.array(mean, np.float32),
        np.array(std, np.float32),
    )
