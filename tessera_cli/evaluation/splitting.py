"""Which split samples get: their own, regions left out in turn, or blocks of ground."""

from __future__ import annotations

import logging

import numpy as np

from tessera_cli.errors import UsageError, counted
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.bootstrap import FEW
from tessera_cli.learning.splits import Split, blocked, given, regions

logger = logging.getLogger(__name__)

LEAST = 3
"""Groups or blocks that must be tested to be what the bootstrap resamples."""


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
        return given(samples.test, _resampled(samples, samples.test, block, seed))
    if leave_out:
        return regions(samples.groups, _resampled(samples, np.ones(len(samples), bool), block, seed))
    groups = len(np.unique(samples.groups))
    if 2 <= groups < folds:
        logger.warning("there are %d groups, so there are %d folds in place of %d", groups, groups, folds)
        folds = groups
    return blocked(samples.lonlat, samples.groups, samples.targets, size=block, folds=folds, seed=seed)


def _resampled(samples: LabelledSamples, tested: np.ndarray, block: float | None, seed: int) -> np.ndarray:
    """Return what the bootstrap resamples where blocks of ground do not make the split, int64 (N,).

    Groups that hold more than parcels do, such as sites, else blocks of ground, else parcels: the first of which
    `LEAST` are tested, since of fewer nothing follows about others.
    """
    if len(np.unique(samples.groups)) < len(np.unique(samples.parcels)) and _count(samples.groups, tested) >= LEAST:
        return samples.groups
    try:
        ground = blocked(samples.lonlat, samples.parcels, samples.targets, size=block, folds=2, seed=seed)
    except UsageError:
        return samples.parcels
    return ground.blocks if _count(ground.blocks, tested) >= LEAST else samples.parcels


def _count(blocks: np.ndarray, tested: np.ndarray) -> int:
    return len(np.unique(blocks[tested]))


def interval_notes(samples: LabelledSamples, split: Split) -> list[str]:
    """Return a line for each thing that a reader of the intervals should know."""
    tested = split.folds >= 0
    count, lines = _count(split.blocks, tested), []
    sites = _count(samples.groups, tested)
    whole = len(np.unique(split.blocks)) <= len(np.unique(samples.groups))
    if split.kind in ("given", "regions") and sites < LEAST and not whole:
        what = counted(sites, "region" if split.kind == "regions" else "group")
        lines.append(
            f"Only {what} {'is' if sites == 1 else 'are'} tested: intervals are about other samples of the "
            "same, and say nothing of others."
        )
    if count < FEW:
        lines.append(f"Intervals rest on {counted(count, 'block')} of test samples: they are rough, and wide for that.")
    return lines
