"""Inner validation: hyperparameters are chosen by folds of the training labels alone.

Where too few labels are there to hold any out, as with one sample of each class, the adapters' defaults are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.learning.folds import balanced_folds, strata_of
from tessera_cli.learning.task import Task

FOLDS = 5
"""Largest number of inner folds."""
LIMIT = 4000
"""Training samples that take part in a choice; more do not change it."""
_LEAST = 4
"""Groups that inner validation of a regression takes."""


@dataclass(frozen=True, eq=False)
class Inner:
    """Some training samples, and the folds that they are validated in."""

    numbers: np.ndarray
    """int64 (m,): the samples among the n."""
    folds: np.ndarray
    """int64 (m,)"""

    def rounds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what each round learns from and is validated on, as numbers among the n."""
        return [(self.numbers[self.folds != fold], self.numbers[self.folds == fold]) for fold in np.unique(self.folds)]


def inner_folds(
    y: np.ndarray, groups: np.ndarray, *, task: Task, seed: int, folds: int = FOLDS, limit: int = LIMIT
) -> Inner | None:
    """Divide at most `limit` training samples into folds, whole groups each; None if that is not possible.

    There are as many folds as the rarest class of two groups or more has groups, 2 to `folds`; classes of one group
    are learned in some rounds and missed in the others. Impossible: no class has two groups, or all groups but those
    of one class would be missed; for regression, fewer than 4 groups.
    """
    numbers = np.arange(len(y))
    if len(y) > limit:
        numbers = np.sort(np.random.default_rng(seed).permutation(len(y))[:limit])
    strata = strata_of(y[numbers], 5)
    if task == "regression":
        there = len(np.unique(groups[numbers]))
        if there < _LEAST:
            return None
        return Inner(numbers, balanced_folds(groups[numbers], strata, min(folds, there), seed))
    pairs = np.unique(np.stack([strata, groups[numbers]]), axis=1)
    per_class = np.unique(pairs[0], return_counts=True)[1]
    if (per_class > 1).sum() < 2:
        return None
    count = min(folds, int(per_class[per_class > 1].min()))
    return Inner(numbers, balanced_folds(groups[numbers], strata, count, seed))
