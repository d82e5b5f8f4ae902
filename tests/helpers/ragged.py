"""Ragged pixels for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, starts_of

Day = tuple[int, Sequence[float]]
"""A day of year and the values of all bands."""


def series_of(pixels: Sequence[Sequence[Sequence[Day]]], bands: int, dtype: type) -> RaggedSeries:
    """One sensor's observations: for each pixel those of each stream."""
    flat = [(doy, stream, values) for pixel in pixels for stream, days in enumerate(pixel) for doy, values in days]
    counts = [sum(map(len, pixel)) for pixel in pixels]
    values = np.array([np.broadcast_to(values, bands) for *_, values in flat], dtype).reshape(-1, bands)
    doy, streams = (np.array([each[i] for each in flat], dt) for i, dt in ((0, np.uint16), (1, np.uint8)))
    return RaggedSeries(values, doy, streams, starts_of(np.array(counts)))


def pixels_of(
    s2: Sequence[Sequence[Day]], asc: Sequence[Sequence[Day]] | None = None, desc: Sequence[Sequence[Day]] | None = None
) -> RaggedPixels:
    """Pixels with these observations of each stream; a single value stands for all bands."""
    count = len(s2)
    nothing: list[list[Day]] = [[] for _ in range(count)]
    optical = series_of([[each] for each in s2], 10, np.uint16)
    radar = series_of(list(zip(asc or nothing, desc or nothing, strict=True)), 2, np.int16)
    keys = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return RaggedPixels(optical, radar, keys, np.zeros((count, 3), np.int32), np.zeros(count, np.int32))


def random_pixels(count: int, seed: int = 0, *, most: int = 30) -> RaggedPixels:
    """Pixels with 0 to `most` observations of each stream on random days of 2023."""
    rng = np.random.default_rng(seed)

    def stream(bands: int, low: int, high: int) -> list[list[Day]]:
        made = []
        for _ in range(count):
            days = np.sort(rng.choice(365, rng.integers(0, most + 1), replace=False)) + 1
            made.append([(int(day), rng.integers(low, high, bands)) for day in days])
        return made

    return pixels_of(stream(10, 1, 9000), stream(2, 0, 9000), stream(2, 0, 9000))
