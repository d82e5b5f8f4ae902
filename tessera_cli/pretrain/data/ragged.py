"""Pixels with all their valid observations, as raw integers, one pixel after the other: what shards hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.sampling import BANDS, Modality

STREAMS: dict[Modality, tuple[str, ...]] = {"s2": ("s2",), "s1": ("s1_asc", "s1_desc")}
"""What `Series.streams` counts: which statistics standardise an observation."""


@dataclass(frozen=True, eq=False)
class Series:
    """One sensor's valid observations of N pixels, S in all. Arrays may be memory-mapped."""

    values: np.ndarray
    """uint16 (S, 10) or int16 (S, 2): raw DN, or scaled VV and VH."""
    doy: np.ndarray
    """uint16 (S,): days of year 1..366; dates rise within a pixel and stream."""
    streams: np.ndarray
    """uint8 (S,): number of the stream among `STREAMS`; ascending passes come before descending ones."""
    starts: np.ndarray
    """int64 (N + 1,): where each pixel begins; the last one is S."""

    @property
    def counts(self) -> np.ndarray:
        """int64 (N,): observations of each pixel."""
        return np.diff(self.starts)

    def take(self, numbers: np.ndarray) -> Series:
        """The series of these pixels, int (M,), in this order; in memory."""
        counts = self.starts[numbers + 1] - self.starts[numbers]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(starts[-1]) + np.repeat(self.starts[numbers] - starts[:-1], counts)
        # `take` on plain arrays is several times as quick as indexing memory maps
        values, doy, streams = (np.asarray(a).take(rows, axis=0) for a in (self.values, self.doy, self.streams))
        return Series(values, doy, streams, starts)


@dataclass(frozen=True, eq=False)
class Ragged:
    """N pixels, each with both sensors' observations and its place."""

    s2: Series
    s1: Series
    keys: np.ndarray
    """uint64 (N,): a hash of the d-pixels' name and the pixel's place in it: who the pixel is, whatever its number."""
    places: np.ndarray
    """int32 (N, 3): EPSG code, easting and northing in metres of the pixel's centre, as `grid.pixel_positions`."""
    origins: np.ndarray
    """int32 (N,): number of the d-pixels it came from, among those that the header of its shards lists."""

    def __len__(self) -> int:
        return len(self.keys)

    def series(self, modality: Modality) -> Series:
        return self.s2 if modality == "s2" else self.s1

    def take(self, numbers: np.ndarray) -> Ragged:
        """These pixels, int (M,), in this order; in memory."""
        return Ragged(
            self.s2.take(numbers),
            self.s1.take(numbers),
            self.keys[numbers],
            self.places[numbers],
            self.origins[numbers],
        )


def concatenated(parts: Sequence[Ragged]) -> Ragged:
    """Pixels of several, at least one, in this order."""

    def series(modality: Modality) -> Series:
        found = [part.series(modality) for part in parts]
        counts = np.concatenate([one.counts for one in found])
        return Series(
            np.concatenate([one.values for one in found]),
            np.concatenate([one.doy for one in found]),
            np.concatenate([one.streams for one in found]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "places", "origins"))
    return Ragged(series("s2"), series("s1"), *rest)


def no_pixels() -> Ragged:
    """None at all."""
    types = {"s2": np.uint16, "s1": np.int16}

    def series(modality: Modality) -> Series:
        values = np.empty((0, BANDS[modality]), types[modality])
        return Series(values, np.empty(0, np.uint16), np.empty(0, np.uint8), np.zeros(1, np.int64))

    empty = np.empty((0, 3), np.int32), np.empty(0, np.int32)
    return Ragged(series("s2"), series("s1"), np.empty(0, np.uint64), *empty)
