"""Two halves of each pixel's observations, drawn at random: what an embedding owes to which dates were clear."""

from __future__ import annotations

import dataclasses

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling.draws import hashed, pixel_keys

_HALVES = 0x48414C56
_AT_ONCE = 1 << 14
"""Pixels."""


def halves(dpixels: DPixels, draw: int, positions: np.ndarray) -> tuple[DPixels, DPixels]:
    """Share out each pixel's valid observations at random, of every sensor and orbit half to one, half to the other.

    Of an odd number either gets one more. A pixel's halves follow from the number of the draw, its place and its dates
    alone, whatever the tile and its other pixels. Values of Sentinel-2 are shared with what was given, not copied.

    `positions`: those of all pixels, as `DPixels.positions` returns them, int64 (H x W, 3).
    """
    keys = pixel_keys(_HALVES + draw, positions)
    streams = (
        (dpixels.s2_mask != 0, dpixels.s2_dates),
        (dpixels.s1_asc_valid, dpixels.s1_asc_dates),
        (dpixels.s1_desc_valid, dpixels.s1_desc_dates),
    )
    ones, others = [], []
    for sensor, (valid, dates) in enumerate(streams):
        flat = valid.reshape(len(valid), len(keys))
        one = np.zeros(flat.shape, bool)
        for start in range(0, len(keys), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            one[:, part] = _first_half(flat[:, part], keys[part], sensor, dates)
        ones.append(one.reshape(valid.shape))
        others.append((flat & ~one).reshape(valid.shape))
    return _only(dpixels, ones), _only(dpixels, others)


def _first_half(valid: np.ndarray, keys: np.ndarray, sensor: int, dates: np.ndarray) -> np.ndarray:
    """Return which of the valid observations, bool (T, N), fall to the first half: those of the smallest hashes.

    `keys`: of the pixels, uint64 (N,); `dates`: of the observations, datetime64[D] (T,).
    """
    days = dates.astype("datetime64[D]").astype(np.int64)
    earlier = np.tril(days[:, None] == days, -1).sum(axis=1)  # on the same day: in d-pixels of others
    columns = np.repeat(keys, len(days)), *(np.tile(each, len(keys)) for each in (days, earlier))
    hashes = hashed(sensor, *columns).reshape(len(keys), len(days))
    hashes[~valid.T] = np.iinfo(np.uint64).max
    count = valid.sum(axis=0)
    taken = (count + (hashed(sensor, keys) & np.uint64(1)).astype(np.int64)) // 2
    ordered = np.sort(hashes, axis=1)
    least = np.take_along_axis(ordered, np.maximum(taken - 1, 0)[:, None], axis=1) if len(days) else ordered
    return np.asarray((valid.T & (hashes <= least) & (taken > 0)[:, None]).T)


def _only(dpixels: DPixels, kept: list[np.ndarray]) -> DPixels:
    """Return d-pixels that hold these observations alone, bool (T, H, W) of each sensor."""
    s2, asc, desc = kept
    return dataclasses.replace(
        dpixels,
        s2_mask=s2.astype(np.uint8),
        s1_asc=dpixels.s1_asc * asc[..., None],
        s1_desc=dpixels.s1_desc * desc[..., None],
    )
