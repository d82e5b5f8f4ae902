"""What changes for good, in the winter before the simulated year: woods are cleared, fields are built over."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate.varied.crops import CLEARING, DECIDUOUS, EVERGREEN, TOWN

NONE, CLEARED, BUILT = 0, 1, 2
NAMES = ("none", "cleared", "built")


def drawn(use: np.ndarray, share: float, key: tuple[int, ...]) -> np.ndarray:
    """Return what happens to each parcel, uint8 (parcels,): to this share of the woods, and of the fields.

    `use`: 0 for fields, else the class, int (parcels,).
    """
    order = np.random.default_rng(key).random(len(use))
    change = np.zeros(len(use), np.uint8)
    for what, where in ((CLEARED, (use == DECIDUOUS) | (use == EVERGREEN)), (BUILT, use == 0)):
        where[0] = False  # the verges
        candidates = np.flatnonzero(where)
        change[candidates[order[candidates].argsort()][: round(share * len(candidates))]] = what
    return change


def after(kind: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the classes of parcels, int (parcels,), once all has happened."""
    return np.where(change == BUILT, TOWN, np.where(change == CLEARED, CLEARING, kind))
