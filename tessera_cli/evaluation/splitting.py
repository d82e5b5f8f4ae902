"""Which split samples get: their own, regions left out in turn, or blocks of ground."""

from __future__ import annotations

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.splits import Split, blocked, given, regions


def split_of(samples: LabelledSamples, *, block: float | None, folds: int, leave_out: bool, seed: int) -> Split:
    """Return the split of samples.

    Args:
        samples: What is to be divided.
        block: Side of blocks of ground in metres; None: from the variogram of the labels.
        folds: Parts of which one at a time is tested.
        leave_out: Whether the groups are regions that are left out in turn.
        seed: Of which blocks lie in which part.

    Raises:
        UsageError: The samples cannot be divided so.
    """
    if samples.test is not None:
        return given(samples.test, _resampled(samples, block, seed))
    if leave_out:
        return regions(samples.groups, samples.parcels)
    return blocked(samples.lonlat, samples.groups, samples.targets, size=block, folds=folds, seed=seed)


def _resampled(samples: LabelledSamples, block: float | None, seed: int) -> np.ndarray:
    """Return what the bootstrap resamples under a given split: groups, else blocks of ground, else samples."""
    if len(np.unique(samples.groups)) < len(np.unique(samples.parcels)):
        return samples.groups
    try:
        return blocked(samples.lonlat, samples.groups, samples.targets, size=block, folds=2, seed=seed).blocks
    except UsageError:
        return samples.groups
