"""Draws of few labels: how many, of what, and the same whatever the order of rows."""

import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.learning.budgets import Budget, NotPossible, draw_labels


def parcels(count=200, seed=0, classes=4):
    """Pixels of parcels of many sizes, their classes, and which are there to learn from."""
    rng = np.random.default_rng(seed)
    parcel = np.repeat(np.arange(count) * 5 + 2, rng.integers(1, 30, count))
    rng.shuffle(parcel)
    targets = rng.choice(classes, count, p=[0.55, 0.3, 0.1, 0.05])[(parcel - 2) // 5]
    return parcel, targets, ((parcel - 2) // 5) % 4 != 0


def drawn(budget, parcel, targets, train, *, draw=0, seed=0, task="classification", keys=None):
    return draw_labels(budget, parcel, targets, train, task=task, seed=seed, draw=draw, keys=keys)


def of_parcels(numbers, parcel, targets):
    return targets[[np.flatnonzero(parcel == one)[0] for one in np.unique(parcel[numbers])]]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3])
def test_whole_parcels_in_proportion_to_their_classes(fraction):
    parcel, targets, train = parcels()
    found = drawn(Budget(fraction=fraction), parcel, targets, train)
    assert train[found].all()
    assert np.array_equal(found, np.flatnonzero(train & np.isin(parcel, parcel[found])))
    there = of_parcels(np.flatnonzero(train), parcel, targets)
    mine = of_parcels(found, parcel, targets)
    assert len(mine) == round(fraction * len(there))
    quota = np.bincount(there) * len(mine) / len(there)
    assert (np.abs(np.bincount(mine, minlength=4) - quota) < np.where(quota < 1, 1, 1.8)).all()
    assert np.bincount(mine).min() >= 1


def test_all_labels():
    parcel, targets, train = parcels()
    assert np.array_equal(drawn(Budget(fraction=1.0), parcel, targets, train, draw=3), np.flatnonzero(train))
    assert Budget(fraction=1.0).whole
    assert not Budget(fraction=0.3).whole
    assert not Budget(shots=5).whole


@pytest.mark.parametrize("shots", [1, 5])
def test_so_many_parcels_of_each_class(shots):
    parcel, targets, train = parcels()
    found = drawn(Budget(shots=shots), parcel, targets, train)
    assert np.bincount(of_parcels(found, parcel, targets)).tolist() == [shots] * 4


def test_draws_differ_and_are_nested():
    parcel, targets, train = parcels()
    few, more = (drawn(Budget(fraction=f), parcel, targets, train, draw=1) for f in (0.05, 0.3))
    assert set(few) <= set(more)
    assert set(drawn(Budget(shots=2), parcel, targets, train)) < set(drawn(Budget(shots=4), parcel, targets, train))
    others = [drawn(Budget(fraction=0.05), parcel, targets, train, draw=d).tolist() for d in range(10)]
    assert len({*map(tuple, others)}) == 10
    assert drawn(Budget(fraction=0.05), parcel, targets, train, draw=4).tolist() == others[4]
    assert drawn(Budget(fraction=0.05), parcel, targets, train, draw=4, seed=9).tolist() != others[4]


def test_every_parcel_is_drawn_as_often_as_others_of_its_class():
    parcel = np.arange(40)
    targets = np.arange(40) % 2
    times = np.zeros(40)
    for draw in range(1000):
        times[drawn(Budget(fraction=0.25), parcel, targets, np.ones(40, bool), draw=draw)] += 1
    assert times.mean() == pytest.approx(250)
    assert times.std() < 2 * np.sqrt(1000 * 0.25 * 0.75)
    assert np.ptp(times) < 110


def test_the_order_of_rows_makes_no_difference():
    parcel, targets, train = parcels()
    rng = np.random.default_rng(1)
    keys, order = rng.integers(0, 2**63, len(parcel)).astype(np.uint64), rng.permutation(len(parcel))
    renumbered = np.unique(parcel, return_inverse=True)[1]
    for budget in (Budget(fraction=0.1), Budget(shots=3)):
        found = drawn(budget, parcel, targets, train, keys=keys)
        other = drawn(budget, 1000 - renumbered[order], targets[order], train[order], keys=keys[order])
        assert set(keys[found]) == set(keys[order][other])


def test_values_are_drawn_evenly_over_deciles():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=1000)
    found = drawn(Budget(fraction=0.1), np.arange(1000), values, np.ones(1000, bool), task="regression")
    deciles = np.argsort(np.argsort(values)) // 100
    assert np.bincount(deciles[found]).tolist() == [10] * 10
    few = drawn(Budget(fraction=0.005), np.arange(1000), values, np.ones(1000, bool), task="regression")
    assert len(few) == 5


def test_patches_of_a_segmentation():
    patch = np.repeat(np.arange(50), 64)
    found = drawn(Budget(fraction=0.1), patch, np.zeros(3200, int), np.ones(3200, bool), task="segmentation")
    assert np.unique(patch[found], return_counts=True)[1].tolist() == [64] * 5


@pytest.mark.parametrize(
    ("budget", "task", "reason"),
    [
        (Budget(fraction=0.01), "classification", r"1 % of 150 labels are 2, for 4 classes"),
        (Budget(shots=50), "classification", r"the smallest class has \d+ of 50 labels"),
        (Budget(shots=5), "regression", "for classification"),
        (Budget(fraction=0.001), "regression", "0.1 % of 150 labels are 0, for at least 2"),
    ],
)
def test_what_is_not_possible_is_said(budget, task, reason):
    import re

    parcel, targets, train = parcels()
    targets = targets.astype(float) if task == "regression" else targets
    found = drawn(budget, parcel, targets, train, task=task)
    assert isinstance(found, NotPossible)
    assert re.search(reason, found.reason)
    assert isinstance(drawn(budget, parcel, targets, np.zeros(len(parcel), bool), task=task), NotPossible)


def test_budgets_as_they_are_written():
    assert Budget.share("5%") == Budget.share("0.05") == Budget.share(" 5 %") == Budget(fraction=0.05)
    assert Budget.share("100%").whole
    assert Budget.per_class("10") == Budget(shots=10)
    assert [b.name for b in (Budget(fraction=0.05), Budget(fraction=0.005), Budget(shots=3))] == [
        "5 %",
        "0.5 %",
        "3 per class",
    ]
    for text in ("0", "120%", "5", "x", "nan", "-1%", ""):
        with pytest.raises(UsageError, match="no share of the labels"):
            Budget.share(text)
    for text in ("0", "1.5", "-2", "all", ""):
        with pytest.raises(UsageError, match="no number of labels per class"):
            Budget.per_class(text)
    with pytest.raises(ValueError, match="either"):
        Budget()
