"""A growing year of the fields: what was sown when, how it grew, when it was cut. Days count from 1 January."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.varied.crops import CODES, CROPS, DECIDUOUS, EVERGREEN, NEVER, NONE
from tessera_cli.simulate.varied.places import Double, Grown, Place
from tessera_cli.simulate.varied.weather import HALF_YEAR, Weather

_WINTER_SOWN = np.array([crop.before.peak > 0 for crop in CROPS])
_SPRING = np.array([crop.before.peak > 0 or crop.base > 0 for crop in CROPS])  # whose growth follows spring
_PERENNIAL = np.array([crop.base > 0 or crop.main.peak == 0 for crop in CROPS])
_MAX_CUTS = 5


@dataclass(frozen=True, eq=False)
class Season:
    """Canopies of one year's crops."""

    growths: np.ndarray
    """float (6, 4, parcels): Growth of the main crop, over winter, of a crop before, of a cover crop after."""
    base: np.ndarray
    """float (parcels,): green cover that stays."""
    cuts: np.ndarray
    """float (5, parcels): days of mowing; NEVER where there is none."""
    depth: np.ndarray
    """float (parcels,): share of the leaves that a cut takes."""
    flood: np.ndarray
    """float (2, parcels): days from and to which the ground lies under water."""

    def canopy(self, day: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of the ground under green leaves and dry matter, float (parcels,) each."""
        up, pace, peak, down, wilt, end = self.growths
        grown, ripe = peak * _logistic((day - up) / pace), _logistic((day - down) / wilt)
        standing = day < end
        green = np.where(standing, grown * (1 - ripe), 0).max(axis=0)
        stubble = 0.4 * np.exp(-(day - end).clip(0) / 25) * (peak > 0.4)
        dry = np.where(standing, 0.85 * grown * ripe * np.exp(-(day - down).clip(0) / 40), stubble).max(axis=0)
        green = np.maximum(green, self.base)
        since = day - self.cuts
        left = np.where(since >= 0, 1 - self.depth * np.exp(-since.clip(0) / 14), 1).prod(axis=0)
        return green * left, np.minimum(dry, 1 - green)

    def bloom(self, day: float) -> np.ndarray:
        """Return 0..1, float (parcels,): how far the main crop flowers, if it does: five weeks after it shot up."""
        return np.exp(-(((day - self.growths[0, 0] - 36) / 11) ** 2))

    def flooded(self, day: float) -> np.ndarray:
        """Return bool (parcels,): whether the ground lies under water."""
        return (day >= self.flood[0]) & (day < self.flood[1])


def standing(kind: np.ndarray, needle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the green cover that stays in all years, float (parcels,): meadows, needle trees, elsewhere weeds."""
    usual = np.array([crop.base for crop in CROPS])
    wood = (kind == DECIDUOUS) | (kind == EVERGREEN)
    base = np.where(wood, usual[DECIDUOUS] + (usual[EVERGREEN] - usual[DECIDUOUS]) * needle, usual[kind])
    base = base * np.exp(rng.normal(0, 0.2 - 0.15 * wood))
    return np.where(_PERENNIAL[kind], base, rng.uniform(0, 0.12, len(kind))).clip(0, 0.93)


def season(
    place: Place,
    weather: Weather,
    kind: np.ndarray,
    following: np.ndarray,
    vigour: np.ndarray,
    late: np.ndarray,
    base: np.ndarray,
    rng: np.random.Generator,
) -> Season:
    """Draw the season of parcels with crops `kind`, int (parcels,), and those of the year after, `following`.

    `vigour`: near 1, of the soil; `late`: days by which a farm is late; `base`: green cover that stays. All float
    (parcels,).
    """
    n = len(kind)
    grown = np.array([place.crops.get(crop.name, Grown(0)).shift for crop in CROPS])
    shift = grown[kind] + np.where(_SPRING[kind], weather.spring, weather.summer) + late
    variety = _varieties(place, kind, rng)
    sown = rng.normal(0, 1, n) * np.array([crop.sowing for crop in CROPS])[kind]
    preceded = (rng.random(n) < place.double.share) & ~_PERENNIAL[kind] & ~_WINTER_SOWN[kind]
    up_shift = shift + variety[0] + sown + place.double.delay * preceded
    down_shift = shift + variety[1] + 0.6 * (sown + place.double.delay * preceded) + rng.normal(0, 6, n)

    main, before = (np.array([getattr(crop, part) for crop in CROPS]).T[:, kind] for part in ("main", "before"))
    main[[0, 3]] += np.stack([up_shift, down_shift])
    main[5] += down_shift + rng.normal(0, 6, n)
    before[0] += shift / 2 + rng.normal(0, 12, n)
    before[[3, 5]] = main[[3, 5]]
    spread = np.exp(rng.normal(0, 0.25, (2, n)))
    main[[1, 4]] *= spread
    strength = (vigour * rng.normal(1, 0.09, n)).clip(0.4, 1.08)
    main[2] = (main[2] * strength).clip(0, 0.98)
    before[2] = (before[2] * np.exp(rng.normal(0, 0.35, n))).clip(0, 0.8)

    growths = np.stack(
        [main, before, _double(place.double, preceded, rng), _after(place, main, kind, following, rng)], axis=1
    )
    cuts, depth = _mowing(kind, main[0], rng)
    wet = np.array([crop.flooded for crop in CROPS])[kind]
    flood = np.where(wet, np.stack([main[0] - 24, main[0] + 4]), NEVER)
    if place.south:  # the crop of a year is that which is harvested in it
        moved = np.where(
            np.array([_harvest(code, place) > 366 for code in range(len(CROPS))])[kind], HALF_YEAR - 365, HALF_YEAR
        )
        for days in (growths[0], growths[3], growths[5], cuts, flood):
            days += np.where(days < NEVER / 2, moved, 0)
    return Season(growths, base, cuts, depth, flood)


def _harvest(code: int, place: Place) -> float:
    """Return the usual day of a crop's harvest (withering) in the south, not yet turned to the calendar year."""
    crop = CROPS[code]
    if _PERENNIAL[code]:
        return 0
    return min(crop.main.end, crop.main.down) + place.crops.get(crop.name, Grown(0)).shift + HALF_YEAR


def _varieties(place: Place, kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return by how many days varieties grow and ripen later, float (2, parcels): a place has its favourites."""
    taste = np.random.default_rng((place.key, 22))
    shares = np.cumsum(taste.dirichlet((1.2, 1.2, 1.2), len(CROPS)), axis=1)
    shifts = np.array([(crop.varieties * 3)[:3] for crop in CROPS])
    chosen = (rng.random(len(kind))[:, None] > shares[kind]).sum(axis=1).clip(0, 2)
    return shifts[kind, chosen].T


def _double(double: Double, preceded: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the Growth of a crop before the main one, float (6, parcels)."""
    n = len(preceded)
    late = rng.normal(0, 9, n)
    some = np.stack(
        [
            double.up + late,
            np.full(n, 9.0),
            rng.uniform(0.6, 0.95, n),
            double.down + 0.6 * late,
            np.full(n, 6.0),
            double.end + 0.6 * late,
        ]
    )
    return np.where(preceded, some, np.array(NONE)[:, None])


def _after(
    place: Place, main: np.ndarray, kind: np.ndarray, following: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the Growth of cover crops and volunteers, float (6, parcels): until the next sowing, or early spring."""
    n = len(kind)
    there = (rng.random(n) < place.cover_crops) & ~_PERENNIAL[kind]
    up = main[5] + rng.uniform(15, 50, n)
    end = np.where(_WINTER_SOWN[following], 285 + rng.normal(0, 12, n), 365 + rng.uniform(20, 110, n))
    some = np.stack([up, rng.uniform(6, 14, n), rng.uniform(0.2, 0.85, n), end, np.full(n, 8.0), end])
    return np.where(there & (up < end), some, np.array(NONE)[:, None])


def _mowing(kind: np.ndarray, up: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return days of cuts, float (5, parcels), and the share of the leaves that each takes: meadows, or pastures."""
    n = len(kind)
    mown = np.array([crop.cuts for crop in CROPS])[kind]
    often = np.where(
        kind == CODES["alfalfa"], rng.integers(3, 6, n), rng.choice([0, 1, 2, 3, 4], n, p=[0.25, 0.25, 0.2, 0.2, 0.1])
    )
    first, apart = up + 45 + rng.normal(0, 12, n) + 25 * (often == 1), rng.uniform(30, 50, n)
    number = np.arange(_MAX_CUTS)[:, None]
    cuts = np.where(mown & (number < often), first + number * apart + rng.normal(0, 4, (_MAX_CUTS, n)), NEVER)
    return cuts, rng.uniform(0.35, 0.8, n)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(-60, 60)))
