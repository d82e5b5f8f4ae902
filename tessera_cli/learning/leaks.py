"""What a test set has in common with the training samples although it should not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera_cli.learning.ground import nearest
from tessera_cli.learning.splits import Split

NEAR = 0.2
"""A median distance below this share of what keeps samples apart is near."""

COARSE = 4
"""Equal values in fewer columns are no sign of the same sample."""


def leaks(
    split: Split,
    *,
    features: Mapping[str, np.ndarray],
    lonlat: np.ndarray,
    groups: np.ndarray,
    reach: float | None = None,
) -> tuple[str, ...]:
    """Return a line for each way in which test samples are known from training; nothing for a split that is sound.

    `features`: name -> float32 (N, D); `lonlat` (N, 2); `groups` (N,). `reach`: metres over which labels resemble each
    other (`variogram.label_range`); None: the side of the split's blocks, if it has any.
    """
    if split.kind == "random":
        return ()  # it is there to leak
    lines = []
    for name, values in features.items():
        if _varied(values) < COARSE:
            continue
        shared, tested = _shared(values, split)
        if shared:
            what = f"have exactly the features ({name}) of a training sample"
            lines.append(f"{shared} of {tested} test samples {what}: they are remembered, not predicted.")
    known = np.isfinite(lonlat).all(axis=1)
    if known.any():
        shared, tested = _shared(np.where(known[:, None], lonlat, np.nan), split, known)
        if shared:
            lines.append(f"{shared} of {tested} test samples lie at the place of a training sample.")
    divided = _divided(groups, split)
    if divided:
        lines.append(f"{divided} groups lie on both sides of the split, which should leave groups whole.")
    reach = split.size if reach is None else reach
    if reach is not None:
        distances = _distances(lonlat, split, known)
        if len(distances) and np.median(distances) < NEAR * reach:
            lines.append(
                f"Half of the test samples have a training sample within {np.median(distances):.0f} m, where labels "
                f"resemble each other up to {reach:.0f} m: neighbours give the answer away."
            )
    return tuple(lines)


def _varied(values: np.ndarray) -> int:
    """Count the columns that hold different values."""
    first = values[:1]
    return int(((values != first) & ~(np.isnan(values) & np.isnan(first))).any(axis=0).sum())


def _shared(rows: np.ndarray, split: Split, there: np.ndarray | None = None) -> tuple[int, int]:
    """Count the test samples with a training sample of equal rows (N, D), and the test samples."""
    numbers = np.arange(len(rows)) if there is None else np.flatnonzero(there)
    plain = np.ascontiguousarray(rows[numbers]) + 0.0  # one zero
    kinds = np.unique(plain.view(f"V{plain.dtype.itemsize * plain.shape[1]}").ravel(), return_inverse=True)[1]
    folds = split.folds[numbers]
    tested = folds >= 0
    first, last = np.full(kinds.max(initial=-1) + 1, np.iinfo(np.int64).max), np.full(kinds.max(initial=-1) + 1, -2)
    np.minimum.at(first, kinds, folds)
    np.maximum.at(last, kinds, folds)
    return int((tested & (first < last)[kinds]).sum()), int(tested.sum())


def _divided(groups: np.ndarray, split: Split) -> int:
    """Count the groups in several folds."""
    pairs = np.unique(np.stack([groups, split.folds]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


def _distances(lonlat: np.ndarray, split: Split, known: np.ndarray) -> np.ndarray:
    """Return how far each test sample with a place is from the nearest training sample."""
    found = []
    for fold in range(split.count):
        asked, others = known & (split.folds == fold), known & (split.folds != fold)
        if asked.any() and others.any():
            found.append(nearest(lonlat[asked], lonlat[others]))
    return np.concatenate(found) if found else np.empty(0)
