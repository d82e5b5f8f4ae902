"""Noise-free signal of every pixel in one overpass: reflectance in ten bands, radar backscatter."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.spectra import SURFACE_BANDS as SURFACE_BANDS


def reflectance(landscape: Landscape, day: int, track: int = 0) -> np.ndarray:
    """Return reflectance, float32 (10, H, W) in the order of SURFACE_BANDS, on a day of year, seen from a track."""
    tables = landscape.stands.optics(day, track)
    means, slopes = (table.T.astype(np.float32)[:, landscape.parcels] for table in tables)
    scene = means + slopes * landscape.texture
    return _mixed(scene, landscape.mixing) if landscape.mixing else scene


def backscatter(landscape: Landscape, day: int, track: int = 0) -> np.ndarray:
    """Return gamma0 of VV and VH as linear power, float32 (2, H, W), on a day of year, seen from a track."""
    power, uneven = landscape.stands.radar(day, track)
    return power.astype(np.float32)[:, landscape.parcels] * (
        1 + uneven.astype(np.float32)[landscape.parcels] * landscape.texture
    )


def _mixed(scene: np.ndarray, share: float) -> np.ndarray:
    """Return float32 (10, H, W) where each pixel has a share of its four neighbours."""
    mixed = np.float32(1 - share) * scene
    part = np.float32(share / 4) * scene
    for axis in (1, 2):
        low, high = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        first, last = (slice(None),) * axis + (slice(None, 1),), (slice(None),) * axis + (slice(-1, None),)
        mixed[low] += part[high]
        mixed[high] += part[low]
        mixed[first] += part[first]
        mixed[last] += part[last]
    return mixed
