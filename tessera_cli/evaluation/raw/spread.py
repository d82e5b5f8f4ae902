"""Statistics over time: seasonal medians, and percentiles and standard deviations of bands and indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.evaluation.raw.observed import Observed
from tessera_cli.extent.window import Window

SEASONS = ("winter", "spring", "summer", "autumn")
"""Of the northern hemisphere: December to February, and so on."""
PERCENTILES = (10, 25, 50, 75, 90)
INDICES = {"NDVI": ("B08", "B04"), "NDWI": ("B03", "B08"), "NDMI": ("B08", "B11"), "NBR": ("B08", "B12")}
"""Normalised differences (a - b) / (a + b)."""


def season_of(days: np.ndarray, window: Window) -> np.ndarray:
    """Return the number of the season, int64 (S,), of days since the window's start."""
    return season_of_dates(np.datetime64(window.start, "D") + np.asarray(days, np.int64))


def season_of_dates(dates: np.ndarray) -> np.ndarray:
    """Return the number of the season, int64 (S,), of dates."""
    months = dates.astype("datetime64[M]").astype(np.int64) % 12
    return np.asarray((months + 1) % 12 // 3)


def seasonal_medians(streams: Sequence[Observed], window: Window) -> np.ndarray:
    """Return float32 (N, 4 x C): medians of each season's values, NaN where a pixel has none in it."""
    made = []
    for stream in streams:
        seasons = season_of(stream.days, window)
        made += [_quantiles(stream.where(seasons == number), (50,)) for number in range(len(SEASONS))]
    return np.concatenate(made, axis=1)


def metrics(streams: Sequence[Observed]) -> np.ndarray:
    """Return float32 (N, 6 x C): percentiles, then the standard deviation, of each band and index over time."""
    made = []
    for stream in streams:
        full = with_indices(stream)
        made += [_quantiles(full, PERCENTILES), _deviations(full)]
    return np.concatenate(made, axis=1)


def with_indices(stream: Observed) -> Observed:
    """Return Sentinel-2 with indices beside its bands; NaN where both bands are 0. Other streams stay as they are."""
    if stream.names != S2_BANDS:
        return stream
    bands = dict(zip(S2_BANDS, stream.values.astype(np.float64).T, strict=True))
    added = []
    for one, other in INDICES.values():
        total = bands[one] + bands[other]
        with np.errstate(invalid="ignore", divide="ignore"):
            added.append(np.where(total > 0, (bands[one] - bands[other]) / total, np.nan))
    values = np.concatenate([stream.values, np.stack(added, axis=1).astype(np.float32)], axis=1)
    return replace(stream, names=(*stream.names, *INDICES), values=values)


def _quantiles(stream: Observed, percentiles: Sequence[float]) -> np.ndarray:
    """Return float32 (N, Q x C) as numpy's nanpercentile with linear interpolation, NaN where a pixel has no value."""
    made = np.empty((len(stream), len(percentiles), len(stream.names)), np.float32)
    for part, some in stream.parts():
        values = np.sort(_laid_out(some), axis=1)  # NaN last
        counts = np.isfinite(values).sum(axis=1)
        for number, percentile in enumerate(percentiles):
            position = np.maximum(counts - 1, 0) * (percentile / 100)
            low = np.floor(position).astype(np.int64)
            high = np.minimum(low + 1, np.maximum(counts - 1, 0))
            below, above = (np.take_along_axis(values, each[:, None], axis=1)[:, 0] for each in (low, high))
            made[part, number] = below + (above - below) * (position - low)
    return made.reshape(len(stream), -1)


def _deviations(stream: Observed) -> np.ndarray:
    """Return float32 (N, C): standard deviations, divided by the number; NaN where a pixel has no value."""
    made = np.full((len(stream), len(stream.names)), np.nan, np.float32)
    for part, some in stream.parts():
        values = _laid_out(some)
        there = np.isfinite(values)
        counts = there.sum(axis=1)
        some_there = np.maximum(counts, 1)
        mean = np.where(there, values, 0).sum(axis=1) / some_there
        squares = (np.where(there, values - mean[:, None], 0) ** 2).sum(axis=1) / some_there
        made[part] = np.where(counts, np.sqrt(squares), np.nan)
    return made


def _laid_out(stream: Observed) -> np.ndarray:
    """Return float64 (N, T, C), T at least 1; NaN beyond a pixel's observations."""
    counts = np.diff(stream.starts)
    made = np.full((len(stream), max(int(counts.max(initial=0)), 1), len(stream.names)), np.nan)
    pixels = stream.pixels
    made[pixels, np.arange(len(pixels)) - stream.starts[pixels]] = stream.values
    return made
