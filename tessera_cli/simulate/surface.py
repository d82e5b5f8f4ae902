"""Noise-free surface signal on a day: reflectance in ten bands, radar backscatter."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.phenology import COVERS

SURFACE_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SPECTRA = {
    "wheat": np.array((0.024, 0.058, 0.028, 0.090, 0.310, 0.410, 0.440, 0.460, 0.205, 0.098)),
    "maize": np.array((0.026, 0.060, 0.032, 0.098, 0.285, 0.370, 0.400, 0.420, 0.225, 0.108)),
    "rapeseed": np.array((0.030, 0.088, 0.055, 0.128, 0.315, 0.405, 0.430, 0.450, 0.205, 0.098)),
    "potato": np.array((0.028, 0.068, 0.032, 0.108, 0.345, 0.450, 0.480, 0.500, 0.220, 0.102)),
    "beet": np.array((0.025, 0.064, 0.026, 0.098, 0.360, 0.480, 0.515, 0.535, 0.195, 0.084)),
    "grass": np.array((0.030, 0.064, 0.038, 0.100, 0.280, 0.360, 0.390, 0.410, 0.225, 0.115)),
    "broadleaf": np.array((0.018, 0.040, 0.021, 0.068, 0.250, 0.345, 0.370, 0.390, 0.170, 0.075)),
    "needleleaf": np.array((0.016, 0.030, 0.018, 0.045, 0.135, 0.175, 0.195, 0.205, 0.090, 0.042)),
    "dry": np.array((0.075, 0.115, 0.165, 0.200, 0.235, 0.260, 0.285, 0.305, 0.370, 0.260)),
    "soil": np.array((0.068, 0.097, 0.135, 0.165, 0.185, 0.205, 0.225, 0.245, 0.315, 0.275)),
    "litter": np.array((0.030, 0.043, 0.055, 0.085, 0.120, 0.140, 0.160, 0.180, 0.190, 0.120)),
    "water": np.array((0.040, 0.045, 0.028, 0.024, 0.017, 0.015, 0.013, 0.012, 0.007, 0.005)),
    "built": np.array((0.115, 0.130, 0.145, 0.155, 0.165, 0.175, 0.190, 0.195, 0.215, 0.200)),
}
"""Reflectance 0..1 per band of pure surfaces."""
# Gamma0 of VV and VH.
_GROUND_DB = {"soil": (-11.5, -20.0), "litter": (-10.5, -16.5), "water": (-22.0, -28.0), "built": (-7.0, -13.5)}


def reflectance(landscape: Landscape, day: int) -> np.ndarray:
    """Return reflectance, float32 (10, H, W) in the order of SURFACE_BANDS, on a day of year."""
    stands, uneven = landscape.stands, COVERS.uneven[landscape.stands.cover, None]
    green, dry = (share[:, None] for share in stands.canopy(day))
    leaf = np.array([SPECTRA[name] for name in COVERS.leaf])[stands.cover]
    ground = np.array([SPECTRA[name] for name in COVERS.ground])[stands.cover] * stands.brightness[:, None]
    mean = green * leaf + dry * SPECTRA["dry"] + (1 - green - dry) * ground
    # One more standard deviation of texture: more leaves instead of ground, and brighter ground.
    slope = 0.08 * green * (leaf - ground) + uneven * (1 - green - dry) * ground
    means, slopes = (table.T.astype(np.float32)[:, landscape.parcels] for table in (mean, slope))
    return means + slopes * landscape.texture


def backscatter(landscape: Landscape, day: int) -> np.ndarray:
    """Return gamma0 of VV and VH as linear power, float32 (2, H, W), on a day of year, by the water-cloud model."""
    stands, own = landscape.stands, COVERS[landscape.stands.cover]
    ground = 10 ** (np.array([_GROUND_DB[name] for name in COVERS.ground]).T[:, stands.cover] / 10) * stands.brightness
    canopy = 10 ** (np.stack([own.vv, own.vh]) / 10)
    green, dry = stands.canopy(day)
    through = np.exp(-2.5 * (green + 0.5 * dry))
    power = (through * ground + (1 - through) * canopy).astype(np.float32)[:, landscape.parcels]
    return power * (1 + own.uneven.astype(np.float32)[landscape.parcels] * landscape.texture)
