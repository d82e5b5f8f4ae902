"""Raw composites: medians per season of a tile's clear observations, what a U-Net is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.dpixels.find import open_dpixels
from tessera_cli.embeddings.tile import Box
from tessera_cli.evaluation.raw.spread import SEASONS, season_of_dates

DIMS = len(SEASONS) * (len(S2_BANDS) + len(S1_BANDS))
NONE = np.iinfo(np.int16).min
"""No observation."""
_ROWS = 32
"""Rows that are read at a time: those of the chunks of a store."""


def composite(path: Path) -> np.ndarray:
    """Return the medians of a tile's d-pixels, int16 (DIMS, H, W), NONE where there is no clear observation.

    Of each season: the ten bands of Sentinel-2 in DN, then VV and VH as they are stored, over passes of both
    directions. A median of an even number of observations is the mean of the two in the middle, rounded down.
    """
    data = open_dpixels(path)
    height, width = data.roi.shape
    out = np.full((DIMS, height, width), NONE, np.int16)
    seasons = {name: season_of_dates(data[f"{name}_time"].values) for name in ("s2", "s1_asc", "s1_desc")}
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        part = data.isel(y=rows)
        s2, clear = part.s2.values, part.s2_mask.values != 0
        s1 = np.concatenate([part.s1_asc.values, part.s1_desc.values])
        of_s1 = np.concatenate([seasons["s1_asc"], seasons["s1_desc"]])
        asked = part.roi.values
        for season in range(len(SEASONS)):
            first = season * DIMS // len(SEASONS)
            here = seasons["s2"] == season
            bands = _medians(
                np.minimum(s2[here], 32767).astype(np.int16), np.broadcast_to(clear[here, ..., None], s2[here].shape)
            )
            radar = _medians(s1[of_s1 == season], s1[of_s1 == season] != 0)
            both = np.concatenate([bands, radar], axis=-1)
            both[~asked] = NONE
            out[first : first + DIMS // len(SEASONS), rows] = np.moveaxis(both, -1, 0)
    return out


def values(kept: np.ndarray, box: Box) -> np.ndarray:
    """Return a box of a composite: float32 (DIMS, h, w), NaN where there is no observation."""
    part = kept[:, *box]
    return np.where(part == NONE, np.float32(np.nan), part.astype(np.float32))


def _medians(observations: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the medians along time of int16 (T, ...) where bool (T, ...); NONE where there are none."""
    if not len(observations):
        return np.full(observations.shape[1:], NONE, np.int16)
    largest = np.iinfo(np.int16).max
    ordered = np.sort(np.where(there, observations, largest), axis=0)
    count = there.sum(axis=0)
    low, high = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (np.maximum(count - 1, 0) // 2, count // 2))
    middle = (low.astype(np.int32) + np.where(count > 1, high, low)) // 2
    middle = np.where(count % 2 == 1, low, middle)
    return np.where(count > 0, middle, NONE).astype(np.int16)
