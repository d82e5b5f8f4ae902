"""Put a varied scene together: a place, its fields of one year, its weather and its sky."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate import sentinel1
from tessera_cli.simulate.air import Air
from tessera_cli.simulate.area import area
from tessera_cli.simulate.landscape import Landscape, field, grain, ground_plan
from tessera_cli.simulate.orbits import Overpass, overpasses
from tessera_cli.simulate.scene import Scene
from tessera_cli.simulate.varied.changes import after, drawn
from tessera_cli.simulate.varied.crops import CODES, CROPS, EVERGREEN, GRASSLAND
from tessera_cli.simulate.varied.fields import Fields, looks
from tessera_cli.simulate.varied.places import Place
from tessera_cli.simulate.varied.season import season, standing
from tessera_cli.simulate.varied.weather import cloudiness, weather

AIR = Air(calibration=0.02, haze=0.12, glare=0.03, missed=0.12)
_MIXED = 0.2
_LASTING = ("grassland", "alfalfa")  # stay on their field from year to year


def varied_scene(place: Place, seed: int, size: int, year: int, cloud: float | None, changes: float = 0.0) -> Scene:
    """Return the scene of a place and a year; plots, soils and farms of a seed stay the same over the years.

    `changes`: share of the woods that were cleared, and of the fields that were built over, in the winter before; the
    same ones whatever the year.
    """
    key = (seed, place.key)
    grid = area(size, place.site)
    rng = np.random.default_rng((*key, 1))
    parcels, use = ground_plan(grid, rng, (0,), place.fields)
    shape, counts = parcels.shape, np.bincount(parcels.ravel(), minlength=len(use))

    def over_parcels(values: np.ndarray) -> np.ndarray:
        return np.bincount(parcels.ravel(), values.ravel(), len(use)) / np.maximum(counts, 1)

    ground = [over_parcels(field(rng, shape, 90, 1)) for _ in range(4)]  # two of soil colour, its quality, farms
    lasting, needle = rng.random(len(use)), rng.random(len(use))
    farm = 5 * ground[3] + rng.normal(0, 4, len(use))
    texture = (grain(shape, rng) - 2.2 * (field(rng, shape, 16) - 1.1).clip(0)).clip(-6, 3)  # patches of bad growth

    change = drawn(use, changes, (*key, 10))
    kinds = {each: _crops_of(place, use, lasting, (*key, each)) for each in range(year - 1, year + 3)}
    kinds = {each: kind if each < year else after(kind, change) for each, kind in kinds.items()}
    kind = kinds[year]
    share = np.where(kind == EVERGREEN, 1 - 0.42 * needle, 0.42 * needle)  # of needle trees in a wood
    vigour = (0.9 + 0.09 * ground[2]).clip(0.55, 1.05)
    base = standing(kind, share, rng)
    seasons = []
    for each in (year - 1, year, year + 1):
        draws = np.random.default_rng((*key, each, 7))
        seasons.append(season(place, weather(place, each), kinds[each], kinds[each + 1], vigour, farm, base, draws))
    watered = np.random.default_rng((*key, year, 8)).random(len(use)) < _irrigated(place)[kind]
    own = looks(_soil(place, ground), kind, share, watered, ground[2], np.random.default_rng((*key, year, 9)))
    year_weather = weather(place, year)
    fields = Fields(kind, vigour, own, (seasons[0], seasons[1], seasons[2]), year_weather)
    flown = overpasses(place.site.optical, year, days=10)
    covers = cloudiness(place, year_weather, np.array([one.day for one in flown]), cloud)
    landscape = Landscape(grid, parcels, fields, texture.astype(np.float32), _MIXED)
    radar = sentinel1.passes(year, place.site)
    passes = _drawn(flown, covers, (*key, year, 2))
    return Scene(landscape, key, passes, radar, place.site, AIR, change if changes else None)


def _crops_of(place: Place, use: np.ndarray, lasting: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """Return the class of every parcel in one year, int (parcels,): fields change, meadows and the rest do not."""
    shares = np.zeros(len(CROPS))
    for name, grown in place.crops.items():
        shares[CODES[name]] = grown.share
    stay = [CODES[name] for name in _LASTING if name in place.crops]
    limits = np.cumsum(shares[stay]) / shares.sum()
    meadow = np.searchsorted(limits, lasting)
    shares[stay] = 0
    arable = np.random.default_rng((*key, 6)).choice(len(CROPS), len(use), p=shares / shares.sum())
    chosen = np.where(meadow < len(stay), np.append(stay, 0)[meadow], arable)
    kind = np.where(use == 0, chosen, use)
    kind[0] = GRASSLAND  # the verges
    return kind


def _irrigated(place: Place) -> np.ndarray:
    return np.array([place.crops[crop.name].irrigated if crop.name in place.crops else 0.0 for crop in CROPS])


def _soil(place: Place, ground: list[np.ndarray]) -> np.ndarray:
    """Return factors on the reflectance of soil, float (parcels, 10): the place's three colours, going over."""
    weights = np.exp(1.5 * np.stack([ground[0], ground[1], -ground[0] - ground[1]]))
    visible, near, short = np.tensordot(weights / weights.sum(axis=0), np.array(place.soils), (0, 0)).T
    return np.stack([visible] * 4 + [near] * 4 + [short] * 2, axis=1)


def _drawn(flown: list[Overpass], expected: np.ndarray, key: tuple[int, ...]) -> list[tuple[Overpass, float]]:
    """Return the cover of each pass: most are nearly clear or overcast, and the mean is as expected."""
    covers = np.random.default_rng(key).beta(0.7 * expected, 0.7 * (1 - expected))
    return list(zip(flown, covers.tolist(), strict=True))
