"""Sentinel-2 arithmetic of the official preprocessing: clear pixels, mosaic of a date, offset. Pure numpy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np

CLOUDED_CLASSES = (0, 1, 2, 3, 8, 9)
"""SCL: no data, saturated, dark, shadow, cloud medium and high. Cirrus 10 and snow 11 count as clear."""
NO_SCENE = -1
OFFSET = 1000
_CLEAR = ~np.isin(np.arange(256), CLOUDED_CLASSES)


def clear(scl: np.ndarray) -> np.ndarray:
    """Return bool, true where a pixel is usable, from SCL classes uint8 of the same shape."""
    return _CLEAR[scl]


def winners(scl: Sequence[np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Return int16 (H, W): index of the first scene that is clear, NO_SCENE where none is or not wanted.

    `scl`: one (H, W) uint8 per scene of the date, in mosaic order; `wanted` bool (H, W). The winner supplies all ten
    bands, whatever they hold.
    """
    winner = np.full(wanted.shape, NO_SCENE, np.int16)
    for index, layer in enumerate(scl):
        winner[wanted & (winner == NO_SCENE) & clear(layer)] = index
    return winner


def remove_offset(dn: np.ndarray, date: dt.date, offset_after: dt.date | None) -> np.ndarray:
    """Return uint16 DN less 1000 where they are >= 1000, if the date is after 2022-01-25 (official rule).

    It goes by date, not by processing baseline, and acts on the resampled values: the released models were trained on
    exactly this.
    """
    if offset_after is None or date <= offset_after:
        return dn
    return np.where(dn >= OFFSET, dn - np.uint16(OFFSET), dn)


def subtract_offset(dn: np.ndarray) -> np.ndarray:
    """Return uint16 DN without ESA's offset: max(DN - 1000, 1); 0 means no data and stays 0.

    1 is the floor because 0 would turn the darkest water into missing data; the provider of the harmonised files does
    the same.
    """
    return np.where(dn == 0, dn, np.maximum(dn, np.uint16(OFFSET + 1)) - np.uint16(OFFSET))
