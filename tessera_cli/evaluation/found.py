"""Labelled pixels of a source, in compact arrays: millions of them, before any vector is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pyproj import Transformer

from tessera_cli.evaluation.sources.source import Source
from tessera_cli.extent.points import pixels_of_points, zones_of_points
from tessera_cli.labels.labels import Labels
from tessera_cli.labels.points import PointLabels
from tessera_cli.sampling.draws import hashed
from tessera_cli.tables.hilbert import hilbert_order

CHUNK = 1 << 16
"""Positions that are looked up at a time."""
Advance = Callable[[int], None]
"""Told of pixels that are done."""


@dataclass(frozen=True, eq=False)
class Found:
    """N labelled places."""

    values: np.ndarray
    """int64 (N,), or float64 (N,) for regression."""
    parcels: np.ndarray
    """int64 (N,), of all that the labels know."""
    codes: np.ndarray
    """int32 (N,): EPSG code of the system of `xy`."""
    xy: np.ndarray
    """float64 (N, 2)."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, kept: np.ndarray) -> Found:
        return Found(self.values[kept], self.parcels[kept], self.codes[kept], self.xy[kept])

    @property
    def keys(self) -> np.ndarray:
        """uint64 (N,): hashes of the places, to a centimetre."""
        steps = np.where(self.codes == 4326, 1e7, 100)
        keys = np.empty(len(self), np.uint64)
        for part in parts(len(self), 1 << 20):
            keys[part] = hashed(0, self.codes[part], *np.rint(self.xy[part].T * steps[part]).astype(np.int64))
        return keys

    @property
    def lonlat(self) -> np.ndarray:
        """float64 (N, 2)."""
        found = np.empty((len(self), 2))
        for code in np.unique(self.codes).tolist():
            here = self.codes == code
            moved = Transformer.from_crs(code, 4326, always_xy=True).transform(*self.xy[here].T)
            found[here] = np.stack(moved, axis=-1)
        return found


def labelled_pixels(source: Source, labels: Labels, advance: Advance | None = None) -> Found:
    """Return the pixels of a source that have an embedding and a label, block after block."""
    found: list[Found] = []
    for centres in source.centres():
        hits = labels.at(centres.places)
        codes, xy = centres.places[hits.numbers, 0].astype(np.int32), centres.places[hits.numbers, 1:]
        values = hits.values if hits.values.dtype.kind == "f" else hits.values.astype(np.int32)
        found.append(Found(values, hits.parcels.astype(np.int32), codes, xy))
        if advance:
            advance(len(centres.places))
    return _joined(found)


def labelled_points(source: Source, labels: PointLabels, advance: Advance | None = None) -> Found:
    """Return the points that lie on a pixel with an embedding, along a curve on which neighbours are neighbours."""
    order = hilbert_order(labels.lonlat)
    kept = np.zeros(len(order), bool)
    for part in parts(len(order)):
        kept[part] = ~np.isnan(source.at(labels.lonlat[order[part]])).any(axis=1)
        if advance:
            advance(part.stop - part.start)
    numbers = order[kept]
    return Found(labels.values[numbers], numbers, np.full(len(numbers), 4326, np.int32), labels.lonlat[numbers])


def pixels_under(lonlat: np.ndarray) -> np.ndarray:
    """Return the number of the pixel of 10 m that holds each point, int64 (N,): points of one share what is read."""
    zones = zones_of_points(list(map(tuple, lonlat.tolist())))
    pixels = np.zeros((len(lonlat), 3), np.int64)
    pixels[:, 0] = zones
    for zone in np.unique(zones).tolist():
        pixels[zones == zone, 1:] = pixels_of_points(lonlat[zones == zone], zone)
    return np.asarray(np.unique(pixels, axis=0, return_inverse=True)[1]).reshape(-1)


def parts(count: int, step: int = CHUNK) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _joined(found: Sequence[Found]) -> Found:
    if not found:
        return Found(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros((0, 2)))
    names = ("values", "parcels", "codes", "xy")
    return Found(*(np.concatenate([getattr(each, name) for each in found]) for name in names))
