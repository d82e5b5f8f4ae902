"""Pixels with fewer observations: fewer dates, no radar, one orbit, a season less, a window that begins later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tessera_cli.evaluation.raw.spread import SEASONS, season_of
from tessera_cli.extent.window import Window
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, starts_of
from tessera_cli.series.days import days_in_window

DATES = (5, 10, 20, 40)
SHIFTS = (30, 60)
"""Days."""
Kind = Literal["dates", "radar", "season", "window"]
_DRAW = 0x44415445


@dataclass(frozen=True)
class Variant:
    """What is taken away."""

    name: str
    kind: Kind
    value: int | None = None
    """Dates left of each sensor, or days by which the window is shifted."""


def fewer_dates(pixels: RaggedPixels, dates: int, seed: int = 0) -> RaggedPixels:
    """Return pixels with at most so many observations of each sensor, drawn by pixel and seed.

    Those of fewer dates are among those of more. All are kept where there are no more.
    """

    def thinned(series: RaggedSeries, number: int) -> RaggedSeries:
        owner = np.repeat(np.arange(len(pixels)), series.counts)
        position = np.arange(len(owner)) - series.starts[owner]
        drawn = hashed(_DRAW + seed, pixels.keys[owner].view(np.int64), number, position)
        order = np.lexsort((drawn, owner))
        rank = np.empty(len(owner), np.int64)
        rank[order] = np.arange(len(owner)) - series.starts[owner[order]]
        return kept(series, rank < dates)

    return replace(pixels, s2=thinned(pixels.s2, 0), s1=thinned(pixels.s1, 1))


def without_radar(pixels: RaggedPixels) -> RaggedPixels:
    """Return pixels without Sentinel-1."""
    return replace(pixels, s1=kept(pixels.s1, np.zeros(len(pixels.s1.doy), bool)))


def one_orbit(pixels: RaggedPixels, stream: int) -> RaggedPixels:
    """Return pixels with one orbit direction of Sentinel-1: 0 ascending, 1 descending."""
    return replace(pixels, s1=kept(pixels.s1, np.asarray(pixels.s1.streams) == stream))


def without_season(pixels: RaggedPixels, window: Window, season: int) -> RaggedPixels:
    """Return pixels without the observations of a season, a position in `SEASONS`."""

    def outside(series: RaggedSeries) -> RaggedSeries:
        return kept(series, season_of(days_in_window(series, window), window) != season)

    return replace(pixels, s2=outside(pixels.s2), s1=outside(pixels.s1))


def later_start(pixels: RaggedPixels, window: Window, days: int) -> RaggedPixels:
    """Return pixels without the observations of the first days of the window."""

    def after(series: RaggedSeries) -> RaggedSeries:
        return kept(series, days_in_window(series, window) >= days)

    return replace(pixels, s2=after(pixels.s2), s1=after(pixels.s1))


def variants(pixels: RaggedPixels, window: Window) -> tuple[Variant, ...]:
    """Return what can be taken away from these pixels, that is, what takes anything from any of them."""
    most = max((int(series.counts.max(initial=0)) for series in (pixels.s2, pixels.s1)), default=0)
    found = [Variant(f"{dates} dates", "dates", dates) for dates in DATES if dates < most]
    streams = np.unique(pixels.s1.streams)
    if len(streams):
        found.append(Variant("no radar", "radar"))
    if len(streams) > 1:
        found += [Variant(f"only {name}", "radar", number) for number, name in enumerate(("ascending", "descending"))]
    seasons = {
        season
        for series in (pixels.s2, pixels.s1)
        for season in np.unique(season_of(days_in_window(series, window), window)).tolist()
    }
    if len(seasons) > 1:
        found += [Variant(f"no {SEASONS[season]}", "season", season) for season in sorted(seasons)]
    found += [Variant(f"{days} days later", "window", days) for days in SHIFTS if days < window.days]
    return tuple(found)


def applied(variant: Variant, pixels: RaggedPixels, window: Window, seed: int = 0) -> RaggedPixels:
    """Return pixels from which that was taken."""
    value = variant.value
    if variant.kind == "dates":
        assert value is not None
        return fewer_dates(pixels, value, seed)
    if variant.kind == "radar":
        return without_radar(pixels) if value is None else one_orbit(pixels, value)
    assert value is not None
    if variant.kind == "season":
        return without_season(pixels, window, value)
    return later_start(pixels, window, value)


def kept(series: RaggedSeries, which: np.ndarray) -> RaggedSeries:
    """Return the observations for which bool (S,) is true, of the same pixels."""
    count = len(series.starts) - 1
    owner = np.repeat(np.arange(count), series.counts)
    starts = starts_of(np.bincount(owner[which], minlength=count))
    values, doy, streams = (np.asarray(each)[which] for each in (series.values, series.doy, series.streams))
    return RaggedSeries(values, doy, streams, starts)
