"""Labelled pixels -> the ones that are used, with their vectors: pixels themselves, or the means of their parcels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.evaluation.choice import choose, first_of_each
from tessera_cli.evaluation.found import Advance, Found
from tessera_cli.evaluation.sources.source import Source
from tessera_cli.evaluation.vectors import read_means, read_vectors_at
from tessera_cli.sampling.draws import hashed

PIXELS = 256
"""Pixels of a parcel that its mean vector is made of, at most."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """N places; of parcels one of their pixels stands for them."""

    found: Found
    keys: np.ndarray
    """uint64 (N,)."""
    lonlat: np.ndarray
    """float64 (N, 2)."""
    values: list[np.ndarray]
    """float32 (N, D) of each source."""
    there: np.ndarray
    """bool (N, S): which source has which."""
    total: int
    """Of how many they were chosen."""


def read_pixels(
    sources: Sequence[Source], found: Found, most: int, seed: int, advance: Advance | None = None
) -> Chosen:
    """Choose at most so many pixels, and read them."""
    keys = found.keys
    kept = choose(_shuffled(seed, keys), _strata(found.values), most, found.parcels)
    chosen = found.take(kept)
    lonlat = chosen.lonlat
    return Chosen(chosen, keys[kept], lonlat, *read_vectors_at(sources, lonlat, advance), len(found))


def read_parcels(
    sources: Sequence[Source], found: Found, most: int, seed: int, advance: Advance | None = None
) -> Chosen:
    """Choose at most so many parcels, and read the means over up to 256 pixels of each."""
    keys = found.keys
    numbers, first, of = np.unique(found.parcels, return_index=True, return_inverse=True)
    of = of.reshape(-1)
    own = np.full(len(numbers), np.iinfo(np.uint64).max)
    np.minimum.at(own, of, keys)
    kept = choose(_shuffled(seed, own), _strata(found.values[first]), most)
    position = np.full(len(numbers), -1)
    position[kept] = np.arange(len(kept))
    pixels = np.flatnonzero(position[of] >= 0)
    pixels = pixels[first_of_each(_shuffled(seed, keys[pixels]), of[pixels], PIXELS)]
    lonlat, of = found.take(pixels).lonlat, position[of[pixels]]
    values, there = read_means(sources, lonlat, of, len(kept), advance)
    return Chosen(found.take(first[kept]), own[kept], _middles(lonlat, of, len(kept)), values, there, len(numbers))


def _shuffled(seed: int, keys: np.ndarray) -> np.ndarray:
    return hashed(seed, keys.view(np.int64))


def _strata(values: np.ndarray) -> np.ndarray:
    """Return the class of each, numbered from 0, int64 (N,); values have one stratum."""
    if values.dtype.kind == "f":
        return np.zeros(len(values), np.int64)
    return np.asarray(np.unique(values, return_inverse=True)[1]).reshape(-1)


def _middles(lonlat: np.ndarray, parcels: np.ndarray, count: int) -> np.ndarray:
    """Return the mean position of the pixels of each parcel, also across the antimeridian."""
    first = np.zeros(count, np.int64)
    first[parcels[::-1]] = np.arange(len(parcels))[::-1]
    start = lonlat[first]
    apart = lonlat - start[parcels]
    apart[:, 0] = (apart[:, 0] + 180) % 360 - 180
    sums = np.stack([np.bincount(parcels, each, count) for each in apart.T], axis=-1)
    middle = start + sums / np.bincount(parcels, minlength=count)[:, None]
    middle[:, 0] = (middle[:, 0] + 180) % 360 - 180
    return np.asarray(middle)
