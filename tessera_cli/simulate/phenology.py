"""What grows on each stand through the year, and how wet the ground is. A stand is a parcel of one class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEVER = 999


class LandCover(NamedTuple):
    """One class: what grows there, green cover 0..1, days of the year, snow cover 0..1, dry matter and radar."""

    name: str
    leaf: str
    ground: str
    winter: float
    peak: float
    greenup: int
    yellowing: int
    harvest: int
    after: float
    """Green cover after harvest: catch crops, winter sowing."""
    snow: float
    biomass: float
    """Above-ground dry matter in t/ha; 0 = no figure is given."""
    canopy_db: tuple[float, float]
    """Gamma0 of a closed canopy, VV and VH."""


COVERS = (
    LandCover("winter wheat", "crop", "soil", 0.25, 0.95, 88, 182, 205, 0.5, 0.9, 13, (-12.5, -19.0)),
    LandCover("maize", "crop", "soil", 0.0, 0.95, 162, 256, 276, 0.2, 0.9, 17, (-9.5, -15.2)),
    LandCover("rapeseed", "crop", "soil", 0.45, 0.95, 82, 176, 198, 0.4, 0.9, 9, (-9.8, -14.5)),
    LandCover("potato", "crop", "soil", 0.0, 0.90, 154, 230, 262, 0.3, 0.9, 11, (-8.4, -14.8)),
    LandCover("sugar beet", "crop", "soil", 0.0, 0.92, 150, NEVER, 312, 0.0, 0.9, 20, (-8.8, -15.6)),
    LandCover("grassland", "crop", "soil", 0.60, 0.88, 85, NEVER, NEVER, 0.0, 0.9, 6, (-11.5, -18.2)),
    LandCover("deciduous forest", "broadleaf", "litter", 0.10, 0.95, 116, 302, NEVER, 0.0, 0.3, 190, (-9.0, -14.6)),
    LandCover("evergreen forest", "needleleaf", "litter", 0.86, 0.94, 120, NEVER, NEVER, 0.0, 0.2, 150, (-9.8, -15.0)),
    LandCover("water", "crop", "water", 0.0, 0.0, 100, NEVER, NEVER, 0.0, 0.0, 0, (-22.0, -28.0)),
    LandCover("town", "crop", "built", 0.18, 0.32, 95, 300, NEVER, 0.0, 0.5, 0, (-9.0, -15.0)),
)
"""The code of a class in labels.tif is its position here + 1."""
RAPESEED, GRASSLAND, DECIDUOUS, EVERGREEN, WATER, TOWN = 2, 5, 6, 7, 8, 9


class Stands(NamedTuple):
    """All stands; arrays (stands,) except `mowing` (stands, 3)."""

    cover: np.ndarray
    """int: index into COVERS."""
    vigour: np.ndarray
    """About 0.9; scales cover and biomass."""
    greenup: np.ndarray
    yellowing: np.ndarray
    harvest: np.ndarray
    regrowth: np.ndarray
    after: np.ndarray
    mowing: np.ndarray
    brightness: np.ndarray
    """Of the bare ground, about 1."""
    roughness_db: np.ndarray

    @classmethod
    def sown(cls, cover: np.ndarray, rng: np.random.Generator) -> Stands:
        """Stands of the given classes, int (stands,). Farmers differ by about a week, and in what follows harvest."""
        n = len(cover)
        harvest = per_class("harvest")[cover] + rng.normal(0, 4, n)
        mowing = np.array([138, 188, 246]) + rng.normal(0, 11, (n, 3))
        return cls(
            cover=cover,
            vigour=rng.normal(0.92, 0.1, n).clip(0.6, 1.05),
            greenup=per_class("greenup")[cover] + rng.normal(0, 7, n),
            yellowing=per_class("yellowing")[cover] + rng.normal(0, 4, n),
            harvest=harvest,
            regrowth=harvest + rng.normal(48, 12, n).clip(20),
            after=per_class("after")[cover] * rng.uniform(0, 1.5, n),
            mowing=np.where(cover[:, None] == GRASSLAND, mowing, NEVER),
            brightness=rng.normal(1, 0.12, n).clip(0.7, 1.3),
            roughness_db=rng.normal(0, 0.8, n),
        )

    def canopy(self, day: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares of the ground under green leaves, dry matter and flowers, float (stands,) each."""
        winter, peak = per_class("winter")[self.cover], per_class("peak")[self.cover]
        grown = winter + (peak * self.vigour - winter).clip(0) * _logistic((day - self.greenup) / 8)
        since_cut = day - self.mowing
        grown *= np.where(since_cut < 0, 1, 1 - 0.5 * np.exp(-since_cut.clip(0) / 16)).prod(axis=1)
        ripe = _logistic((day - self.yellowing) / 5)
        flower = np.exp(-(((day - self.greenup - 40) / 11) ** 2)) * (self.cover == RAPESEED)
        standing, since_harvest = day < self.harvest, (day - self.harvest).clip(0)
        green = np.where(standing, grown * (1 - ripe), self.after * _logistic((day - self.regrowth) / 9))
        dry = np.where(standing, 0.9 * grown * ripe, 0.35 * np.exp(-since_harvest / 20) * (1 - green))
        return green * (1 - 0.55 * flower), dry, green * 0.55 * flower


def wetness(rng: np.random.Generator) -> np.ndarray:
    """float (371,): of the soil, 0 dry .. 1 wet, per day of the year: rain, and the week in which it drains."""
    rain = rng.gamma(0.5, 1.0, 400) * (rng.random(400) < 0.3)
    return np.convolve(rain, 0.6 * np.exp(-np.arange(30) / 7), "valid").clip(0, 1)


def per_class(name: str) -> np.ndarray:
    """One column of COVERS."""
    return np.array([getattr(cover, name) for cover in COVERS], float)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(-60, 60)))
