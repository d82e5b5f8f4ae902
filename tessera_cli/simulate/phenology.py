"""Land-cover classes, and the canopy of each stand through the year. A stand is a parcel of one class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tessera_cli.simulate.spectra import GROUND_DB, SPECTRA

_NEVER = 999
_COLUMNS = "name,leaf,ground,winter,peak,greenup,yellowing,harvest,after,biomass,uneven,vv,vh"
_CLASSES = [
    ("winter wheat", "wheat", "soil", 0.25, 0.95, 88, 182, 205, 0.5, 13, 0.06, -12.5, -19.0),
    ("maize", "maize", "soil", 0.0, 0.95, 162, 256, 276, 0.2, 17, 0.06, -9.5, -15.2),
    ("rapeseed", "rapeseed", "soil", 0.45, 0.95, 82, 176, 198, 0.4, 9, 0.06, -9.8, -14.5),
    ("potato", "potato", "soil", 0.0, 0.90, 154, 230, 262, 0.3, 11, 0.06, -8.4, -14.8),
    ("sugar beet", "beet", "soil", 0.0, 0.92, 150, _NEVER, 312, 0.0, 20, 0.06, -8.8, -15.6),
    ("grassland", "grass", "soil", 0.60, 0.88, 85, _NEVER, _NEVER, 0.0, 6, 0.06, -11.5, -18.2),
    ("deciduous forest", "broadleaf", "litter", 0.10, 0.95, 116, 302, _NEVER, 0.0, 190, 0.08, -9.0, -14.6),
    ("evergreen forest", "needleleaf", "litter", 0.86, 0.94, 120, _NEVER, _NEVER, 0.0, 150, 0.08, -9.8, -15.0),
    ("water", "grass", "water", 0.0, 0.0, 100, _NEVER, _NEVER, 0.0, 0, 0.03, -22.0, -28.0),
    ("town", "grass", "built", 0.18, 0.32, 95, 300, _NEVER, 0.0, 0, 0.28, -7.0, -13.0),
]
COVERS = np.rec.array(_CLASSES, formats="U16,U10,U6" + 10 * ",f8", names=_COLUMNS)
"""The code of a class in labels.tif is its row here + 1. `leaf` and `ground` name spectra; green cover 0..1 in winter,
at its peak and after harvest (catch crops, winter sowing); days of the year; dry matter in t/ha, 0 = no figure;
standard deviation of the brightness within a stand; gamma0 of a closed canopy in dB."""
GRASSLAND, DECIDUOUS, EVERGREEN, WATER, TOWN = 5, 6, 7, 8, 9


class Stands(NamedTuple):
    """Classes of the stands, and the variation between stands of one class; arrays (stands,)."""

    cover: np.ndarray  # int rows of COVERS
    vigour: np.ndarray  # near 1; scales green cover and biomass
    brightness: np.ndarray  # near 1; of the bare ground, optical and radar
    late: np.ndarray  # (2, stands), days: growth, harvest
    after: np.ndarray  # green cover after harvest

    @classmethod
    def sown(cls, cover: np.ndarray, rng: np.random.Generator) -> Stands:
        """Draw stands of the classes `cover`, int (stands,)."""
        n = len(cover)
        vigour, brightness = rng.normal(0.92, 0.1, n).clip(0.6, 1.05), rng.normal(1, 0.12, n).clip(0.7, 1.3)
        after = COVERS.after[cover] * rng.uniform(0, 1.5, n)
        return cls(cover, vigour, brightness, rng.normal(0, [[7], [5]], (2, n)), after)

    @property
    def names(self) -> np.ndarray:
        """Return the name of each stand's class, str (stands,)."""
        return np.asarray(COVERS.name)[self.cover]

    @property
    def biomass(self) -> np.ndarray:
        """Return t/ha, float (stands,); 0 of water and town."""
        return COVERS.biomass[self.cover] * self.vigour**1.5

    def canopy(self, day: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of the ground under green leaves and under dry matter, float (stands,) each."""
        own, (growing, ripening) = COVERS[self.cover], day - self.late
        grown = own.winter + (own.peak * self.vigour - own.winter).clip(0) * _logistic((growing - own.greenup) / 8)
        ripe, stubble = _logistic((ripening - own.yellowing) / 5), ripening - own.harvest
        green = np.where(stubble < 0, grown * (1 - ripe), self.after * _logistic((stubble - 48) / 9))
        dry = np.where(stubble < 0, 0.9 * grown * ripe, 0.35 * np.exp(-stubble.clip(0) / 20) * (1 - green))
        return green, dry

    def optics(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean reflectance and its change per standard deviation of texture, float (stands, 10) each."""
        uneven = COVERS.uneven[self.cover, None]
        green, dry = (share[:, None] for share in self.canopy(day))
        leaf = np.array([SPECTRA[name] for name in COVERS.leaf])[self.cover]
        ground = np.array([SPECTRA[name] for name in COVERS.ground])[self.cover] * self.brightness[:, None]
        mean = green * leaf + dry * SPECTRA["dry"] + (1 - green - dry) * ground
        # One more standard deviation of texture: more leaves instead of ground, and brighter ground.
        return mean, 0.08 * green * (leaf - ground) + uneven * (1 - green - dry) * ground

    def radar(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return gamma0 of VV and VH as linear power, float (2, stands), and its unevenness: the water-cloud model."""
        own = COVERS[self.cover]
        ground = 10 ** (np.array([GROUND_DB[name] for name in COVERS.ground]).T[:, self.cover] / 10) * self.brightness
        canopy = 10 ** (np.stack([own.vv, own.vh]) / 10)
        green, dry = self.canopy(day)
        through = np.exp(-2.5 * (green + 0.5 * dry))
        return through * ground + (1 - through) * canopy, own.uneven


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(-60, 60)))
