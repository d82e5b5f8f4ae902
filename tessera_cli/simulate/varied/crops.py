"""Crops of the varied landscapes: when they grow at the mean place and in the mean year, and how they look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tessera_cli.simulate.spectra import SPECTRA


class Growth(NamedTuple):
    """A canopy that comes and goes: the double logistic of Beck et al. (2006), cut off at harvest. Days of the season.

    `up`: half of the leaves are out, within `pace` days; `down`: half have withered; `end`: harvest.
    """

    up: float
    pace: float
    peak: float
    down: float
    wilt: float
    end: float


NEVER = 9999.0
NONE = Growth(NEVER, 1, 0, NEVER, 1, NEVER)


class Crop(NamedTuple):
    """A class of cover. Days are those of the season: of the year in the north, half a year later in the south."""

    name: str
    leaf: str
    main: Growth
    before: Growth
    """What stands over winter, of what was sown in autumn."""
    sowing: float
    """Days, standard deviation between fields."""
    varieties: tuple[tuple[float, float], ...]
    """Days by which varieties grow and ripen later."""
    vv: float
    vh: float
    """Gamma0 of a closed canopy in dB."""
    biomass: float
    """Dry matter in t/ha."""
    base: float = 0.0
    """Green cover through the year, of what stays for years."""
    ground: str = "soil"
    cuts: bool = False
    flooded: bool = False
    """Stands in water from three weeks before it grows until the canopy closes."""


_WHEAT = ((0.0, 0.0), (-7.0, -6.0), (6.0, 6.0))
_MAIZE = ((0.0, 0.0), (-4.0, -16.0), (5.0, 16.0))
_SPRING = ((0.0, 0.0), (-8.0, -12.0), (8.0, 10.0))
_POTATO = ((0.0, 0.0), (-18.0, -45.0), (6.0, 12.0))
_SAME = ((0.0, 0.0),)
CROPS = (
    Crop("winter wheat", "wheat",
         Growth(88, 9, 0.95, 184, 6, 207), Growth(-55, 12, 0.28, 184, 6, 207), 9, _WHEAT, -12.5, -19.0, 13),
    Crop("maize", "maize", Growth(162, 9, 0.95, 256, 9, 276), NONE, 12, _MAIZE, -9.5, -15.2, 17),
    Crop("rapeseed", "rapeseed",
         Growth(80, 8, 0.95, 176, 7, 198), Growth(-85, 13, 0.5, 176, 7, 198), 9, _WHEAT, -9.8, -14.5, 9),
    Crop("potato", "potato", Growth(154, 8, 0.90, 230, 9, 262), NONE, 12, _POTATO, -8.4, -14.8, 11),
    Crop("sugar beet", "beet",
         Growth(150, 10, 0.92, NEVER, 9, 305), NONE, 11, ((0.0, 0.0), (0.0, -25.0), (4.0, 15.0)), -8.8, -15.6, 20),
    Crop("grassland", "grass",
         Growth(85, 10, 0.88, 310, 20, NEVER), NONE, 8, _SAME, -11.5, -18.2, 6, base=0.5, cuts=True),
    Crop("deciduous forest", "broadleaf",
         Growth(116, 8, 0.95, 302, 6, NEVER), NONE, 5, _SAME, -9.0, -14.6, 190, base=0.1, ground="litter"),
    Crop("evergreen forest", "needleleaf",
         Growth(120, 8, 0.94, 300, 20, NEVER), NONE, 5, _SAME, -9.8, -15.0, 150, base=0.86, ground="litter"),
    Crop("water", "grass", NONE, NONE, 0, _SAME, -22.0, -28.0, 0, ground="water"),
    Crop("town", "grass",
         Growth(95, 8, 0.36, 300, 10, NEVER), NONE, 5, _SAME, -7.0, -13.0, 0, base=0.18, ground="built"),
    Crop("winter barley", "barley",
         Growth(82, 9, 0.93, 162, 6, 184), Growth(-60, 12, 0.32, 162, 6, 184), 9, _WHEAT, -12.2, -18.4, 11),
    Crop("spring barley", "barley", Growth(118, 8, 0.88, 190, 6, 212), NONE, 10, _SPRING, -12.0, -18.5, 8),
    Crop("soybean", "soybean", Growth(172, 10, 0.93, 258, 7, 280), NONE, 12, _MAIZE, -9.6, -16.0, 7),
    Crop("sunflower", "sunflower", Growth(158, 9, 0.85, 236, 9, 262), NONE, 12, _SPRING, -9.4, -15.0, 8),
    Crop("rice", "rice", Growth(200, 10, 0.93, 282, 8, 304), NONE, 12, _SPRING, -10.5, -17.0, 12, flooded=True),
    Crop("alfalfa", "alfalfa",
         Growth(82, 9, 0.94, 305, 18, NEVER), NONE, 8, _SAME, -11.0, -17.4, 9, base=0.35, cuts=True),
    Crop("clearing", "grass",
         Growth(105, 14, 0.45, 285, 20, NEVER), NONE, 8, _SAME, -12.5, -19.5, 0, base=0.08, ground="litter"),
)  # fmt: skip
"""The code of a class in labels.tif is its place here + 1. The first ten are those of the plain landscape; numbers are
rounded from calendars of the crops' main regions and otherwise invented."""
CODES = {crop.name: code for code, crop in enumerate(CROPS)}
NAMES = np.array([crop.name for crop in CROPS])
GRASSLAND, DECIDUOUS, EVERGREEN, WATER, TOWN, CLEARING = 5, 6, 7, 8, 9, 16

# Near relatives, by factors on spectra of the plain landscape: B02 B03 B04 B05 B06 B07 B08 B8A B11 B12.
_LEAVES = {
    **SPECTRA,
    "barley": SPECTRA["wheat"] * (1.03, 1.06, 1.05, 1.05, 1.00, 0.99, 0.98, 0.98, 1.05, 1.06),
    "soybean": SPECTRA["potato"] * (0.95, 0.92, 0.92, 0.92, 1.02, 1.04, 1.03, 1.03, 1.02, 1.00),
    "sunflower": SPECTRA["maize"] * (1.05, 1.10, 1.12, 1.08, 1.05, 1.06, 1.06, 1.06, 1.04, 1.05),
    "rice": SPECTRA["wheat"] * (0.95, 0.97, 0.95, 0.96, 0.90, 0.90, 0.90, 0.90, 0.80, 0.75),
    "alfalfa": SPECTRA["grass"] * (0.93, 0.96, 0.88, 0.95, 1.12, 1.16, 1.15, 1.15, 0.97, 0.94),
}
_FIELDS = sorted({crop.leaf for crop in CROPS if crop.ground == "soil"})


def leaves(alike: float) -> np.ndarray:
    """Return the reflectance of leaves, float (crops, 10); field crops are `alike`, 0..1, brought to their mean."""
    mean = np.exp(np.mean([np.log(_LEAVES[leaf]) for leaf in _FIELDS], axis=0))
    own = np.array([_LEAVES[crop.leaf] for crop in CROPS])
    nearer = own ** (1 - alike) * mean**alike
    return np.where(np.array([crop.ground == "soil" for crop in CROPS])[:, None], nearer, own)


def canopies(alike: float) -> np.ndarray:
    """Return gamma0 in dB of closed canopies, VV and VH, float (2, crops), likewise brought nearer to each other."""
    own = np.array([(crop.vv, crop.vh) for crop in CROPS]).T
    of_fields = np.array([crop.ground == "soil" for crop in CROPS])
    mean = own[:, of_fields].mean(axis=1, keepdims=True)
    return np.where(of_fields, own + alike * (mean - own), own)
