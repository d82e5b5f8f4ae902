"""Ragged pixels as physical values by stream: reflectance, decibels, days since the window's start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import STREAMS, RaggedPixels, starts_of
from tessera_cli.series.days import days_in_window

CHUNK = 8192
"""Pixels at a time."""


@dataclass(frozen=True, eq=False)
class Observed:
    """S observations of N pixels in one stream, pixel after pixel, dates rising."""

    names: tuple[str, ...]
    """Of the C values."""
    values: np.ndarray
    """float32 (S, C), NaN where there is none."""
    days: np.ndarray
    """int64 (S,): since the window's start."""
    starts: np.ndarray
    """int64 (N + 1,)"""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def pixels(self) -> np.ndarray:
        """int64 (S,): number of each observation's pixel."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def where(self, kept: np.ndarray) -> Observed:
        """Return these observations, bool (S,), of the same pixels."""
        counts = np.bincount(self.pixels[kept], minlength=len(self))
        return replace(self, values=self.values[kept], days=self.days[kept], starts=starts_of(counts))

    def part(self, pixels: slice) -> Observed:
        """Return a range of the pixels."""
        starts = self.starts[pixels.start : pixels.stop + 1]
        rows = slice(int(starts[0]), int(starts[-1]))
        return replace(self, values=self.values[rows], days=self.days[rows], starts=starts - starts[0])

    def parts(self) -> Iterator[tuple[slice, Observed]]:
        """Yield all pixels, some thousand at a time."""
        for first in range(0, len(self), CHUNK):
            part = slice(first, min(first + CHUNK, len(self)))
            yield part, self.part(part)


def streams_of(pixels: RaggedPixels) -> tuple[str, ...]:
    """Return the streams that any pixel has: Sentinel-2, and each orbit direction of Sentinel-1."""
    return tuple(
        stream
        for modality, streams in STREAMS.items()
        for number, stream in enumerate(streams)
        if (np.asarray(pixels.series(modality).streams) == number).any()
    )


def observed(pixels: RaggedPixels, window: Window, wanted: Sequence[str] | None = None) -> tuple[Observed, ...]:
    """Return these streams, also where no pixel has any; None: those that any pixel has."""
    wanted = streams_of(pixels) if wanted is None else wanted
    found = []
    for modality in STREAMS:
        series = pixels.series(modality)
        days = days_in_window(series, window)
        streams = np.asarray(series.streams)
        for number, stream in enumerate(STREAMS[modality]):
            if stream not in wanted:
                continue
            ours = streams == number
            raw = np.asarray(series.values)
            names: tuple[str, ...] = S2_BANDS
            if modality == "s2":
                values = raw.astype(np.float32) / np.float32(10000)
            else:
                values, names = decibels(raw), tuple(f"{band} {stream.removeprefix('s1_')}" for band in S1_BANDS)
            found.append(Observed(names, values, days, np.asarray(series.starts)).where(ours))
    return tuple(found)


def decibels(scaled: np.ndarray) -> np.ndarray:
    """Return float32 decibels of scaled int16, any shape; NaN where it is 0: the inverse of `sentinel1.scale`."""
    return np.where(scaled == 0, np.nan, (scaled.astype(np.float32) / 200 - 50) / 2).astype(np.float32)
