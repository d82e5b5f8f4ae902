"""Folds: groups whole, classes spread, and the order of rows without effect."""

import numpy as np

from tessera_cli.learning.folds import balanced_folds, strata_of


def test_groups_are_never_split_and_folds_are_even():
    rng = np.random.default_rng(0)
    groups = rng.choice(rng.integers(-(2**62), 2**62, 40), 2000, p=rng.dirichlet(np.ones(40)))
    classes = rng.integers(0, 3, 2000)
    folds = balanced_folds(groups, classes, 5)
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= np.unique(groups, return_counts=True)[1].max()
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    order = rng.permutation(2000)
    assert np.array_equal(balanced_folds(groups[order], classes[order], 5), folds[order])
    assert sorted(balanced_folds(np.arange(5), np.zeros(5, int), 5)) == [0, 1, 2, 3, 4]
    assert sorted(balanced_folds(np.arange(5), np.arange(5), 5)) == [0, 1, 2, 3, 4]


def test_folds_share_every_class():
    """A class of two parcels is in two folds, so that it is learned from one when the other is asked for."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(5, 60, 40))
    classes = (np.arange(40) // 2)[groups]  # 20 classes of two parcels each
    folds = balanced_folds(groups, classes, 4)
    assert all(len(np.unique(folds[classes == one])) == 2 for one in range(20))
    assert np.ptp(np.bincount(folds)) < 60


def test_equally_large_groups_go_into_folds_by_hash():
    """Else neighbouring numbers would always take turns."""
    folds = balanced_folds(np.arange(100), np.zeros(100, int), 2)
    assert 20 < (np.diff(folds) != 0).sum() < 80
    assert not np.array_equal(balanced_folds(np.arange(100), np.zeros(100, int), 2, seed=1), folds)


def test_strata_are_classes_or_quantiles():
    assert strata_of(np.array([3, 1, 3])).tolist() == [3, 1, 3]
    values = np.random.default_rng(0).exponential(size=1000)
    strata = strata_of(values)
    assert np.bincount(strata).tolist() == [100] * 10
    assert np.array_equal(np.argsort(values), np.lexsort((values, strata)))
    ties = strata_of(np.array([0.0] * 60 + [1.0] * 40), 10)
    assert len(set(ties[:60])) == len(set(ties[60:])) == 1
    assert ties[0] != ties[-1]
    assert strata_of(np.empty(0)).tolist() == []
