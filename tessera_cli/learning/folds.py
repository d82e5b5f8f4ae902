"""Folds that no group is divided between, and that share every class."""

from __future__ import annotations

import numpy as np

from tessera_cli.learning.hashes import shuffled
from tessera_cli.sampling.draws import mix


def balanced_folds(groups: np.ndarray, classes: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Return the fold of each sample, int64 (N,), given groups and classes, int64 (N,) each; no group is split.

    Groups are assigned by falling size, equal ones by hash, each to the fold with the smallest share of the group's
    classes, then the fewest samples: classes are spread evenly, and no fold is empty if there are enough groups. The
    order of the samples makes no difference.
    """
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    kinds, numbers = np.unique(classes, return_inverse=True)
    shares = np.zeros((len(names), len(kinds)))  # of each class, what each group holds
    np.add.at(shares, (members, numbers), 1)
    shares /= np.bincount(numbers)
    fold_of, filled = np.empty(len(names), np.int64), np.zeros(folds, np.int64)
    filled_shares = np.zeros((folds, len(kinds)))
    order = mix(names.astype(np.uint64)) if not seed else shuffled(names, seed)
    for group in np.lexsort((order, -sizes)):
        fold = np.lexsort((filled, filled_shares @ shares[group]))[0]
        fold_of[group] = fold
        filled[fold] += sizes[group]
        filled_shares[fold] += shares[group]
    return fold_of[members]


def strata_of(targets: np.ndarray, parts: int = 10) -> np.ndarray:
    """Return what a choice should be spread evenly over, int64 (N,): the classes, or `parts` quantiles of values.

    Whole numbers are classes, others values.

    Equal values lie in one stratum.
    """
    if targets.dtype.kind != "f":
        return targets.astype(np.int64)
    values, members = np.unique(targets, return_inverse=True)
    counts = np.bincount(members)
    middle = np.cumsum(counts) - counts / 2  # the rank of each value
    strata = (middle * parts / max(len(targets), 1)).astype(np.int64) if len(values) else np.empty(0, np.int64)
    return strata[members]
