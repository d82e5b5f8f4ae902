"""The vectors of chosen places from all sources; places that any of them lacks are left out for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_cli.evaluation.found import Advance, parts
from tessera_cli.evaluation.sources.source import Source

Read = tuple[list[np.ndarray], np.ndarray]
"""float32 (N, D) of each source, and bool (N, S): which source has which."""


def read_vectors_at(sources: Sequence[Source], lonlat: np.ndarray, advance: Advance | None = None) -> Read:
    """Return the vectors at positions, float64 (N, 2)."""
    values = [np.empty((len(lonlat), source.dims), np.float32) for source in sources]
    there = np.zeros((len(lonlat), len(sources)), bool)
    for part in parts(len(lonlat)):
        for number, source in enumerate(sources):
            values[number][part] = source.at(lonlat[part])
            there[part, number] = np.isfinite(values[number][part]).all(axis=1)
        if advance:
            advance(part.stop - part.start)
    return values, there


def read_means(
    sources: Sequence[Source], lonlat: np.ndarray, parcels: np.ndarray, count: int, advance: Advance | None = None
) -> Read:
    """Return the mean vectors of `count` parcels over pixels that all sources have: int64 (N,), each pixel's parcel."""
    sums = [np.zeros((count, source.dims)) for source in sources]
    sizes, seen = np.zeros(count, np.int64), np.zeros((count, len(sources)), bool)
    for part in parts(len(lonlat)):
        values, there = read_vectors_at(sources, lonlat[part])
        mine = parcels[part]
        kept = np.flatnonzero(there.all(axis=1))
        kept = kept[np.argsort(mine[kept], kind="stable")]
        here, starts, many = np.unique(mine[kept], return_index=True, return_counts=True)
        sizes[here] += many
        for number, each in enumerate(values):
            seen[mine[there[:, number]], number] = True
            if len(here):
                sums[number][here] += np.add.reduceat(each[kept], starts, axis=0, dtype=np.float64)
        if advance:
            advance(part.stop - part.start)
    with np.errstate(invalid="ignore"):
        means = [(each / sizes[:, None]).astype(np.float32) for each in sums]
    seen[(sizes == 0) & seen.all(axis=1)] = False  # each has some pixels, and none all have
    return means, seen
