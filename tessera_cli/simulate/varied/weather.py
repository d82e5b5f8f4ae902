"""The weather of a place in a year: how early it grows, when it rains, how wet the soil is, what suffers drought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.varied.places import Place

HALF_YEAR = 183
_PERSISTENCE = 0.35  # of wet and dry spells: lag-1 correlation of days with rain
_MEAN_RAIN = 6.0  # mm on a day with rain
_MEMORY = 0.88  # of yesterday's rain in the soil


@dataclass(frozen=True, eq=False)
class Weather:
    """One year at one place; arrays (366,) by day of the year less 1."""

    spring: float
    """Days by which growth of spring is late."""
    summer: float
    """Days by which crops sown in spring are late."""
    rain: np.ndarray
    """mm a day."""
    moisture: np.ndarray
    """Of the topsoil, 0 dry to 1 saturated."""
    stress: np.ndarray
    """0..1: how far the dry season or a drought withers what is not irrigated."""


def weather(place: Place, year: int) -> Weather:
    """Return the weather of a place in a year: the same for all landscapes there, whatever their seed.

    Days with rain follow a two-state Markov chain and its amounts an exponential distribution (Richardson 1981); soil
    moisture is a saturating function of the antecedent precipitation index (Kohler and Linsley 1951).
    """
    rng = np.random.default_rng((place.key, year, 21))
    spring, summer = rng.normal(0, 9), rng.normal(0, 7)
    drought, begins, lasts = rng.uniform(0.3, 0.7) * (rng.random() < 0.35), rng.uniform(110, 190), rng.uniform(35, 75)
    wetness = np.exp(rng.normal(0, 0.2)).item()
    days = np.arange(366)
    season = (days - HALF_YEAR) % 365 if place.south else days
    strength, first, last = place.dry
    dry = strength * _plateau(season, first + rng.normal(0, 8), last + rng.normal(0, 8), 12)
    struck = drought * _plateau(season, begins, begins + lasts, 8)
    stress = np.maximum(dry, struck)
    month = np.minimum(days // 30.5, 11).astype(int)
    chance = (np.array(place.rain)[month] * wetness * (1 - 0.7 * struck)).clip(0.01, 0.9)
    wet, draws = rng.random() < chance[-1], rng.random(366)
    rain = np.zeros(366)
    for day in days.tolist():
        wet = draws[day] < (1 - _PERSISTENCE) * chance[day] + _PERSISTENCE * wet
        rain[day] = wet
    rain *= rng.exponential(_MEAN_RAIN, 366)
    index, level = np.zeros(366), _MEAN_RAIN * chance[0] / (1 - _MEMORY)
    for day in days.tolist():
        index[day] = level = _MEMORY * level + rain[day]
    return Weather(spring, summer, rain, 1 - np.exp(-index / 25), stress)


def cloudiness(place: Place, weather: Weather, days: np.ndarray, mean: float | None) -> np.ndarray:
    """Return the expected cloud cover on days of the year: the month's, more on days with rain. `mean`: as asked."""
    months = np.array(place.cloud)[np.minimum((days - 1) // 30.5, 11).astype(int)]
    usual = np.array(place.rain)[np.minimum((days - 1) // 30.5, 11).astype(int)]
    covers = (months + 0.3 * ((weather.rain[days - 1] > 0) - usual)).clip(0.03, 0.97)
    if mean is None:
        return covers
    odds, low, high = np.log(covers / (1 - covers)), -12.0, 12.0
    for _ in range(40):  # the shift of the odds that makes the mean
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-odds - middle))) < mean else (low, middle)
    return 1 / (1 + np.exp(-odds - (low + high) / 2))


def _plateau(days: np.ndarray, first: float, last: float, ramp: float) -> np.ndarray:
    return np.minimum((days - first) / ramp, (last - days) / ramp).clip(0, 1)
