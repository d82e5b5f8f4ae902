"""Metrics against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as theirs

from tessera_cli.learning.metrics import (
    LARGER_IS_BETTER,
    MAIN,
    METRICS,
    from_counts,
    from_value_sums,
    scores,
    value_sums,
)


def by_scikit_learn(truth, predicted, weights=None):
    return {
        "accuracy": theirs.accuracy_score(truth, predicted, sample_weight=weights),
        "balanced_accuracy": np.mean(
            theirs.recall_score(
                truth, predicted, labels=np.unique(truth), average=None, sample_weight=weights, zero_division=0
            )
        ),
        "macro_f1": theirs.f1_score(truth, predicted, average="macro", sample_weight=weights),
        "miou": theirs.jaccard_score(truth, predicted, average="macro", sample_weight=weights),
    }


def values_by_scikit_learn(truth, predicted, weights=None):
    return {
        "rmse": theirs.mean_squared_error(truth, predicted, sample_weight=weights) ** 0.5,
        "mae": theirs.mean_absolute_error(truth, predicted, sample_weight=weights),
        "r2": theirs.r2_score(truth, predicted, sample_weight=weights),
        "bias": np.average(predicted - truth, weights=weights),
    }


def test_every_metric_has_a_direction():
    assert {name for names in METRICS.values() for name in names} == set(LARGER_IS_BETTER)
    assert all(MAIN[task] in METRICS[task] for task in METRICS)


@pytest.mark.parametrize("seed", range(8))
def test_metrics_of_classes(seed):
    """Also with classes that are only in the truth, only predicted, or nowhere."""
    rng = np.random.default_rng(seed)
    truth, predicted = rng.choice([0, 2, 3, 6], 50, p=[0.6, 0.2, 0.15, 0.05]), rng.choice([0, 2, 4, 6], 50)
    predicted[:25] = truth[:25]
    expected = by_scikit_learn(truth, predicted)
    for task in ("classification", "segmentation"):
        found = scores(task, truth, predicted, 8)
        assert tuple(found) == METRICS[task]
        for name, value in found.items():
            assert type(value) is float
            assert value == pytest.approx(expected[name], abs=1e-12)
    if set(predicted) <= set(truth):
        assert found["balanced_accuracy"] == pytest.approx(theirs.balanced_accuracy_score(truth, predicted), abs=1e-12)


def test_balanced_accuracy_is_scikit_learns():
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    expected = theirs.balanced_accuracy_score(truth, predicted)
    assert scores("classification", truth, predicted, 3)["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_weighted_counts(seed):
    rng = np.random.default_rng(seed)
    truth, predicted, weights = rng.integers(0, 5, 80), rng.integers(0, 5, 80), rng.uniform(0.1, 3, 80)
    counts = np.zeros((3, 6))
    np.add.at(counts[0], truth[truth == predicted], weights[truth == predicted])
    np.add.at(counts[1], truth, weights)
    np.add.at(counts[2], predicted, weights)
    found, expected = from_counts(counts), by_scikit_learn(truth, predicted, weights)
    assert {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()} == found


@pytest.mark.parametrize("offset", [0, 1e4])
def test_metrics_of_values(offset):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200) * 3 + offset
    predicted = truth + rng.normal(size=200) + 0.3
    found = scores("regression", truth, predicted, 0)
    assert tuple(found) == METRICS["regression"]
    assert found == {
        n: pytest.approx(v, rel=1e-12, abs=1e-10) for n, v in values_by_scikit_learn(truth, predicted).items()
    }
    weights = rng.uniform(0, 2, 200)
    sums = weights @ value_sums(truth, predicted, float(truth.mean()))
    expected = values_by_scikit_learn(truth, predicted, weights)
    assert {n: float(v) for n, v in from_value_sums(sums).items()} == {
        n: pytest.approx(v, rel=1e-10) for n, v in expected.items()
    }


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_r2_of_equal_values(value):
    truth = np.full(7, value)
    assert scores("regression", truth, truth, 0)["r2"] == theirs.r2_score(truth, truth) == 1
    assert scores("regression", truth, truth + 1, 0)["r2"] == 0  # also where scikit-learn's mean is not exact
    assert np.isnan(scores("regression", truth[:1], truth[:1], 0)["r2"])


def test_nothing_has_no_metrics():
    nothing = np.empty(0, np.int64)
    for task in METRICS:
        assert all(np.isnan(value) for value in scores(task, nothing, nothing, 3).values())
