"""Surface reflectance in the ten bands: endmembers mixed by what covers the ground on the day."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.phenology import COVERS

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SPECTRA = {
    "soil": np.array((0.068, 0.097, 0.135, 0.165, 0.185, 0.205, 0.225, 0.245, 0.315, 0.275)),
    "litter": np.array((0.030, 0.043, 0.055, 0.085, 0.120, 0.140, 0.160, 0.180, 0.190, 0.120)),
    "water": np.array((0.040, 0.045, 0.028, 0.024, 0.017, 0.015, 0.013, 0.012, 0.007, 0.005)),
    "built": np.array((0.115, 0.130, 0.145, 0.155, 0.165, 0.175, 0.190, 0.195, 0.215, 0.200)),
    "crop": np.array((0.024, 0.058, 0.028, 0.090, 0.310, 0.410, 0.440, 0.460, 0.205, 0.098)),
    "broadleaf": np.array((0.018, 0.040, 0.021, 0.068, 0.250, 0.345, 0.370, 0.390, 0.170, 0.075)),
    "needleleaf": np.array((0.016, 0.030, 0.018, 0.045, 0.135, 0.175, 0.195, 0.205, 0.090, 0.042)),
    "dry": np.array((0.075, 0.115, 0.165, 0.200, 0.235, 0.260, 0.285, 0.305, 0.370, 0.260)),
    "flower": np.array((0.045, 0.175, 0.160, 0.215, 0.330, 0.390, 0.410, 0.430, 0.210, 0.115)),
    "snow": np.array((0.800, 0.810, 0.800, 0.780, 0.760, 0.740, 0.720, 0.690, 0.090, 0.070)),
    "cloud": np.array((0.580, 0.570, 0.570, 0.580, 0.590, 0.600, 0.610, 0.610, 0.430, 0.330)),
    "cirrus": np.array((0.062, 0.058, 0.056, 0.056, 0.055, 0.054, 0.053, 0.052, 0.030, 0.020)),
}
"""Reflectance 0..1 per band of pure surfaces; `cirrus` is what a thin veil adds."""
_UNEVEN = {"built": 0.28, "soil": 0.05, "litter": 0.03, "water": 0.03}


def reflectance(landscape: Landscape, day: int) -> np.ndarray:
    """float32 (10, H, W) in the order of BANDS, on the day of the year, without atmosphere."""
    stands = landscape.stands
    green, dry, flower = (share[:, None] for share in stands.canopy(day))
    bare = 1 - green - dry - flower
    leaf = np.array([SPECTRA[c.leaf] for c in COVERS])[stands.cover]
    dark = np.array([1 - 0.4 * landscape.moisture[day] * (c.ground == "soil") for c in COVERS])[stands.cover]
    ground = np.array([SPECTRA[c.ground] for c in COVERS])[stands.cover] * (stands.brightness * dark)[:, None]
    mean = green * leaf + dry * SPECTRA["dry"] + flower * SPECTRA["flower"] + bare * ground
    # One more standard deviation of texture: more leaves instead of ground, and a ground that is less even.
    uneven = np.array([_UNEVEN[c.ground] for c in COVERS])[stands.cover, None]
    slope = 0.08 * green * (leaf - ground) + bare * ground * uneven
    means, slopes = (table.T.astype(np.float32)[:, landscape.parcels] for table in (mean, slope))
    result: np.ndarray = means + slopes * landscape.texture.clip(-3, 3)
    return result
