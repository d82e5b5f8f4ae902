"""Parcels of a varied landscape through a year, as sensors see them: optics and radar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.spectra import GROUND_DB, SPECTRA
from tessera_cli.simulate.varied.crops import CROPS, DECIDUOUS, EVERGREEN, NAMES, canopies, leaves
from tessera_cli.simulate.varied.season import Season
from tessera_cli.simulate.varied.weather import Weather

ALIKE = 0.4
"""How much nearer to each other the spectra of field crops are than in the plain landscape: the finest difference
between crops is their calendar, and leaves of one crop differ by variety and nutrition."""
_MODES = np.array(
    (
        (0.5, 0.8, 1.0, 0.9, 0.35, 0.1, 0.0, 0.0, 0.0, 0.0),  # pigments
        (0.0, 0.0, 0.0, 0.2, 0.8, 1.0, 1.0, 1.0, 0.3, 0.2),  # structure of the canopy
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05, 0.1, 1.0, 1.2),  # water in the leaves
    )
)
"""What a leaf's spectrum varies by, as relative change per band."""
_BLOOMING = np.array([crop.name == "rapeseed" for crop in CROPS])
_BLOOM = np.array((0.1, 0.6, 1.3, 0.6, 0.1, 0.05, 0.05, 0.05, 0.0, 0.0))
"""What yellow flowers add to a leaf's spectrum, relative to it (near d'Andrimont et al. 2020)."""
_SATURATED, _DARKENING = 0.45, 2.4


@dataclass(frozen=True, eq=False)
class Looks:
    """How parcels look beside their canopy; arrays (parcels, ...)."""

    soil: np.ndarray
    """float (parcels, 10): reflectance of the dry ground."""
    leaf: np.ndarray
    """float (parcels, 10): of closed green leaves."""
    rough: np.ndarray
    """dB that the radar echo of the ground is higher."""
    dense: np.ndarray
    """dB that that of the canopy is higher."""
    rows: np.ndarray
    """-1..1: how much brighter one side looks, to either sensor."""
    thirsty: np.ndarray
    """0..1: how far the dry season reaches it."""


def looks(
    soil_tint: np.ndarray,
    kind: np.ndarray,
    needle: np.ndarray,
    watered: np.ndarray,
    quality: np.ndarray,
    rng: np.random.Generator,
) -> Looks:
    """Draw how parcels look: `soil_tint` float (parcels, 10), `needle` share of needle trees, `watered` bool."""
    n = len(kind)
    ground = np.array([SPECTRA[crop.ground] for crop in CROPS])[kind]
    of_soil = np.array([crop.ground == "soil" for crop in CROPS])[kind, None]
    ground = ground * np.where(of_soil, soil_tint, 1) * rng.normal(1, 0.13, (n, 1)).clip(0.6, 1.4)
    leaf = leaves(ALIKE)[kind]
    wood = ((kind == DECIDUOUS) | (kind == EVERGREEN))[:, None]
    share = needle[:, None]
    leaf = np.where(wood, (1 - share) * SPECTRA["broadleaf"] + share * SPECTRA["needleleaf"], leaf)
    leaf = leaf * np.exp(rng.normal(0, (0.13, 0.10, 0.09), (n, 3)) @ _MODES)
    thirsty = np.where(watered, 0.1, (1.0 - 0.25 * quality).clip(0.4, 1.2)) * np.where(wood[:, 0], 0.35, 1)
    return Looks(ground, leaf, rng.normal(0, 1.2, n), rng.normal(0, 0.8, n), rng.uniform(-1, 1, n), thirsty)


@dataclass(frozen=True, eq=False)
class Fields:
    """Parcels in one calendar year, of three seasons: last year's crops, this year's, what is sown for the next."""

    cover: np.ndarray
    """int (parcels,): rows of CROPS."""
    vigour: np.ndarray
    looks: Looks
    seasons: tuple[Season, Season, Season]
    weather: Weather

    @property
    def names(self) -> np.ndarray:
        """Return the name of each parcel's class, str (parcels,)."""
        return NAMES[self.cover]

    @property
    def biomass(self) -> np.ndarray:
        """Return t/ha, float (parcels,); 0 of water and town."""
        return np.array([crop.biomass for crop in CROPS])[self.cover] * self.vigour

    def canopy(self, day: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of the ground under green leaves and dry matter, float (parcels,) each."""
        seen = [one.canopy(day + 365 * back) for one, back in zip(self.seasons, (1, 0, -1), strict=True)]
        green, dry = (np.max(shares, axis=0) for shares in zip(*seen, strict=True))
        withered = green * (self.looks.thirsty * self.weather.stress[day - 1]).clip(0, 0.92)
        green = green - withered
        return green, np.minimum(dry + 0.7 * withered, 1 - green)

    def flooded(self, day: int) -> np.ndarray:
        """Return bool (parcels,): whether the ground lies under water."""
        seen = [one.flooded(day + 365 * back) for one, back in zip(self.seasons, (1, 0, -1), strict=True)]
        return np.any(seen, axis=0)

    def optics(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean reflectance and its change per standard deviation of texture, float (parcels, 10) each.

        Soil darkens with moisture m as R (s + (1 - s) exp(-k m)) (Lobell and Asner 2002, s and k rounded). Tracks see
        the ground from either side: up to 6 % brighter or darker, about what Roy et al. (2017) report across swaths.
        """
        green, dry = (share[:, None] for share in self.canopy(day))
        moisture = self.weather.moisture[day - 1]
        soil = self.looks.soil * (_SATURATED + (1 - _SATURATED) * np.exp(-_DARKENING * moisture))
        soil = np.where(self.flooded(day)[:, None], SPECTRA["water"] * 1.3, soil)
        side = (-1, 1)[track % 2] * (0.03 + 0.03 * self.looks.rows[:, None])
        bare = 1 - green - dry
        leaf = self.looks.leaf * np.where(
            _BLOOMING[self.cover][:, None], 1 + self.seasons[1].bloom(day)[:, None] * _BLOOM, 1
        )
        mean = (green * leaf + dry * SPECTRA["dry"] + bare * soil) * (1 + side)
        uneven = np.where(self.cover == 9, 0.28, 0.08)[:, None]
        return mean, 0.12 * green * (self.looks.leaf - soil) + uneven * bare * soil

    def radar(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return gamma0 of VV and VH as linear power, float (2, parcels), and its unevenness, float (parcels,).

        The water-cloud model (Attema and Ulaby 1978) over ground whose echo rises by 5 dB (VH 4) from dry to wet, near
        the 0.2 to 0.3 dB per percent by volume that are usually reported; tracks differ by their angle of incidence.
        """
        green, dry = self.canopy(day)
        moist = np.array(((5.0,), (4.0,))) * (self.weather.moisture[day - 1] - 0.5)
        wetted = np.array([crop.ground == "soil" for crop in CROPS])[self.cover]
        angle = (0.0, 0.9, -0.8)[track % 3] + 0.6 * self.looks.rows * (-1, 1)[track % 2]
        ground_db = (
            np.array([GROUND_DB[crop.ground] for crop in CROPS]).T[:, self.cover] + moist * wetted + self.looks.rough
        )
        ground_db = np.where(self.flooded(day), np.array(GROUND_DB["water"])[:, None] + 4, ground_db)
        ground = 10 ** ((ground_db + angle) / 10)
        canopy = 10 ** ((canopies(ALIKE)[:, self.cover] + self.looks.dense + 0.4 * angle) / 10)
        through = np.exp(-2.2 * (green + 0.5 * dry))
        return through * ground + (1 - through) * canopy, np.where(self.cover == 9, 0.28, 0.08)
