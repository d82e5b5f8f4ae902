"""What is learned from and what is tested on: folds that keep together what belongs together.

The reported split is blocked in space, by groups, by regions or the data set's own. A random one shows only how much
neighbours give away. Targets are classes if they are whole numbers, else values.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.learning.folds import balanced_folds, strata_of
from tessera_cli.learning.ground import centroids, squares
from tessera_cli.learning.hashes import shuffled
from tessera_cli.learning.variogram import block_size

logger = logging.getLogger(__name__)

Kind = Literal["blocked", "grouped", "random", "given", "regions"]


@dataclass(frozen=True, eq=False)
class Split:
    """Which of N samples are tested together, learned from all others."""

    kind: Kind
    folds: np.ndarray
    """int64 (N,): 0..K-1; -1: never tested, always there to learn from."""
    blocks: np.ndarray
    """int64 (N,): what the bootstrap resamples: the block of ground, the group, the region or the sample."""
    size: float | None = None
    """Side of the blocks in metres; None: no blocks of ground."""

    @property
    def count(self) -> int:
        """K, the number of test sets."""
        return int(self.folds.max(initial=-1)) + 1

    def test(self, draw: int) -> np.ndarray:
        """Return the samples that a draw is tested on, int64 (M,), rising."""
        return np.flatnonzero(self.folds == draw % self.count)

    def train(self, draw: int) -> np.ndarray:
        """Return the samples that a draw may learn from, bool (N,)."""
        return np.asarray(self.folds != draw % self.count)


def blocked(
    lonlat: np.ndarray,
    groups: np.ndarray,
    targets: np.ndarray,
    *,
    size: float | None,
    folds: int = 5,
    seed: int = 0,
) -> Split:
    """Divide samples by square blocks of ground, `size` metres wide; a group lies in the block of its centre.

    `size` None: from the variogram of the labels (`variogram.py`). Classes, or deciles of values, are spread evenly
    over the folds. Samples without a place are divided by their groups, and so are all if no place is known, or if
    fewer blocks than folds hold samples at the size found.
    """
    middles, members = centroids(lonlat, groups)
    known = np.isfinite(middles).all(axis=1)
    if not known.any():
        return grouped(groups, targets, folds, seed=seed)
    side = size
    if side is None:
        values = _of_groups(members, targets)
        rows = np.flatnonzero(known)
        side = block_size(middles[rows], values[rows], classes=_are_classes(targets), folds=folds, seed=seed)
    block_of = squares(middles, side)
    block_of[~known] = -1 - np.arange((~known).sum())
    blocks = np.unique(block_of, return_inverse=True)[1][members].astype(np.int64)
    count = int(blocks.max()) + 1
    if count < folds:
        if size is None:
            logger.info("the samples lie at %d places, too few for %d blocks: split by groups", count, folds)
            return grouped(groups, targets, folds, seed=seed)
        raise UsageError(
            f"The samples lie in {count} blocks of {side:g} m, too few for {folds} folds. Give smaller blocks or "
            "fewer folds."
        )
    return Split("blocked", balanced_folds(blocks, strata_of(targets), folds, seed), blocks, side)


def grouped(groups: np.ndarray, targets: np.ndarray, folds: int = 5, *, seed: int = 0) -> Split:
    """Divide samples by their groups alone."""
    names, blocks = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise UsageError(f"There are {len(names)} groups, too few for {folds} folds. Give fewer folds.")
    fold_of = balanced_folds(groups, strata_of(targets), folds, seed)
    return Split("grouped", fold_of, blocks.astype(np.int64))


def random(targets: np.ndarray, folds: int = 5, *, seed: int = 0, keys: np.ndarray | None = None) -> Split:
    """Divide samples by chance, each class or decile evenly, whatever they belong to: what must not be reported alone.

    `keys`, whole numbers (N,), make it independent of the order of the samples.
    """
    numbers = np.arange(len(targets))
    order = np.lexsort((shuffled(numbers if keys is None else keys, seed), strata_of(targets)))
    fold_of = np.empty(len(targets), np.int64)
    fold_of[order] = numbers % folds
    return Split("random", fold_of, numbers)


def given(test: np.ndarray, blocks: np.ndarray) -> Split:
    """Take the split that the data bring, bool (N,), true: test; `blocks`, int64 (N,): what is resampled."""
    if test.all() or not test.any():
        which = "test" if test.all() else "training"
        raise UsageError(f"The split holds {which} samples only. Give a column that is true for some rows, the test.")
    return Split("given", np.where(test, 0, -1).astype(np.int64), blocks)


def regions(labels: np.ndarray, blocks: np.ndarray | None = None) -> Split:
    """Leave one region out in turn: `labels`, whole numbers (N,); `blocks`: what is resampled, None: the regions."""
    names, folds = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise UsageError("All samples lie in one region, so none can be left out. Give a column with several.")
    return Split("regions", folds.astype(np.int64), folds.astype(np.int64) if blocks is None else blocks)


def _are_classes(targets: np.ndarray) -> bool:
    return targets.dtype.kind != "f"


def _of_groups(members: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return each group's most frequent class, or mean value, (G,)."""
    count = int(members.max()) + 1
    if not _are_classes(targets):
        return np.asarray(np.bincount(members, targets, count) / np.bincount(members, minlength=count))
    pairs, counts = np.unique(np.stack([members, targets]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], counts))  # of each group the last one written is the most frequent
    found = np.empty(count, np.int64)
    found[pairs[0][order]] = pairs[1][order]
    return found
