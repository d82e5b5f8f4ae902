"""Pixels with all their valid observations as raw integers, in ragged arrays: the content of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.sampling.series import BAND_COUNTS, Modality

STREAMS: dict[Modality, tuple[str, ...]] = {"s2": ("s2",), "s1": ("s1_asc", "s1_desc")}
"""The streams of each sensor. Those of Sentinel-1 are its orbit directions; each has band statistics of its own."""


@dataclass(frozen=True, eq=False)
class RaggedSeries:
    """One sensor's valid observations of N pixels, S in all, one pixel after the other. Arrays may be memory maps."""

    values: np.ndarray
    """uint16 (S, 10) or int16 (S, 2): raw DN, or scaled VV and VH."""
    doy: np.ndarray
    """uint16 (S,): day of year 1..366; dates rise within a pixel and stream."""
    streams: np.ndarray
    """uint8 (S,): number of the stream in `STREAMS`; ascending passes come before descending ones."""
    starts: np.ndarray
    """int64 (N + 1,): first observation of each pixel; the last number is S."""

    @property
    def counts(self) -> np.ndarray:
        """int64 (N,): observations of each pixel."""
        return np.diff(self.starts)

    def take(self, numbers: np.ndarray) -> RaggedSeries:
        """Copy the series of these pixels, int (M,), in this order."""
        counts = self.starts[numbers + 1] - self.starts[numbers]
        starts = starts_of(counts)
        rows = np.arange(starts[-1]) + np.repeat(self.starts[numbers] - starts[:-1], counts)
        # `take` on plain arrays is several times as quick as indexing memory maps
        values, doy, streams = (np.asarray(a).take(rows, axis=0) for a in (self.values, self.doy, self.streams))
        return RaggedSeries(values, doy, streams, starts)


@dataclass(frozen=True, eq=False)
class RaggedPixels:
    """N pixels with the observations of both sensors and their places."""

    s2: RaggedSeries
    s1: RaggedSeries
    keys: np.ndarray
    """uint64 (N,): hash of the d-pixels' name and the pixel's position in them: the identity of the pixel."""
    places: np.ndarray
    """int32 (N, 3): EPSG code, easting and northing of the pixel's centre in metres, as `grid.pixel_positions`; of
    training pixels of tables without a place -1 and two numbers for the name of their group, else for their own."""
    tile_index: np.ndarray
    """int32 (N,): which of the d-pixels in the header of the shards the pixel came from."""

    def __len__(self) -> int:
        return len(self.keys)

    def series(self, modality: Modality) -> RaggedSeries:
        return self.s2 if modality == "s2" else self.s1

    def take(self, numbers: np.ndarray) -> RaggedPixels:
        """Copy these pixels, int (M,), in this order."""
        rest = (array[numbers] for array in (self.keys, self.places, self.tile_index))
        return RaggedPixels(self.s2.take(numbers), self.s1.take(numbers), *rest)


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Counts (N,) -> the starts of a `RaggedSeries`, int64 (N + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def concatenated(parts: Sequence[RaggedPixels]) -> RaggedPixels:
    """Return the pixels of several parts, in this order."""
    parts = parts or (no_pixels(),)

    def joined(name: str, of: Sequence[object] = parts) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in of])

    def series(modality: Modality) -> RaggedSeries:
        of = [part.series(modality) for part in parts]
        starts = starts_of(joined("counts", of))
        return RaggedSeries(joined("values", of), joined("doy", of), joined("streams", of), starts)

    return RaggedPixels(series("s2"), series("s1"), joined("keys"), joined("places"), joined("tile_index"))


def no_pixels() -> RaggedPixels:
    """Return a value without pixels."""

    def series(modality: Modality) -> RaggedSeries:
        values = np.empty((0, BAND_COUNTS[modality]), np.uint16 if modality == "s2" else np.int16)
        return RaggedSeries(values, np.empty(0, np.uint16), np.empty(0, np.uint8), np.zeros(1, np.int64))

    places, tile_index = np.empty((0, 3), np.int32), np.empty(0, np.int32)
    return RaggedPixels(series("s2"), series("s1"), np.empty(0, np.uint64), places, tile_index)
