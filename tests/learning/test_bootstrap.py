"""Intervals: weights against scikit-learn, coverage where the truth is known."""

import time

import numpy as np
import pytest
from scipy.stats import beta

from tessera_cli.learning.bootstrap import Bootstrap, binomial, interval, stretch
from tessera_cli.learning.metrics import METRICS, scores
from tests.learning.test_metrics import by_scikit_learn, values_by_scikit_learn


def case(task, n=300, draws=4, folds=2, seed=0):
    """Blocks, test sets of draws, the truth and predictions."""
    rng = np.random.default_rng(seed)
    blocks = np.sort(rng.integers(0, 20, n)) * 7 - 3
    fold = (blocks // 7) % folds
    tests = [np.flatnonzero(fold == draw % folds) for draw in range(draws)]
    truth = rng.normal(size=n) if task == "regression" else rng.integers(0, 4, n)
    noisy = [
        truth[t] + rng.normal(size=len(t)) if task == "regression" else np.where(rng.random(len(t)) < 0.6, truth[t], 2)
        for t in tests
    ]
    return blocks, tests, truth, noisy


@pytest.mark.parametrize("task", METRICS)
def test_every_resample_is_scikit_learns_weighted_metric(task):
    blocks, tests, truth, predictions = case(task)
    bootstrap = Bootstrap(blocks, 4, resamples=30, seed=3)
    found = bootstrap.distribution(task, tests, truth, predictions, 4)
    members = np.unique(blocks, return_inverse=True)[1]
    of_draws = bootstrap.draw_weights(tests)
    assert set(found) == set(METRICS[task])
    for resample in range(30):
        sums, weights = dict.fromkeys(METRICS[task], 0.0), of_draws[resample].copy()
        for draw, test in enumerate(tests):
            weights[draw] *= bootstrap._weights_BR[:, resample][members[test]].mean()
        for draw, (test, predicted) in enumerate(zip(tests, predictions, strict=True)):
            weight = bootstrap._weights_BR[:, resample][members[test]]
            there = weight > 0
            by = values_by_scikit_learn if task == "regression" else by_scikit_learn
            expected = by(truth[test][there], predicted[there], weight[there])
            for name in sums:
                sums[name] += weights[draw] * expected[name]
        for name, total in sums.items():
            assert found[name][resample] == pytest.approx(total / weights.sum(), abs=1e-10)


def test_weights_are_those_of_rao_and_wu():
    blocks = np.repeat(np.arange(6), 3)
    bootstrap = Bootstrap(blocks, 1, resamples=20_000, seed=0)
    weights = bootstrap._weights_BR
    np.testing.assert_allclose(weights.sum(axis=0), 6)
    values = np.arange(6.0) ** 2
    means = (weights * values[:, None]).sum(axis=0) / 6
    assert means.mean() == pytest.approx(values.mean(), rel=0.02)
    assert means.var() == pytest.approx(values.var(ddof=1) / 6, rel=0.05)  # the unbiased variance of a mean


def test_draws_are_resampled_among_those_of_one_test_set():
    tests = [np.arange(5), np.arange(5, 10), np.arange(5), np.arange(5, 10), np.arange(10, 12)]
    weights = Bootstrap(np.arange(12), 5, resamples=500, seed=0).draw_weights(tests)
    np.testing.assert_allclose(weights[:, [0, 2]].sum(axis=1), 2)
    np.testing.assert_allclose(weights[:, [1, 3]].sum(axis=1), 2)
    assert (weights[:, 4] == 1).all()
    assert set(weights[:, 0]) == {0, 2}
    assert 0.3 < (weights[:, 0] == weights[:, 1]).mean() < 0.7


def test_everything_has_the_same_weights():
    """So that the difference of two equal predictions is 0 in every resample."""
    blocks, tests, truth, predictions = case("classification")
    one, other = (Bootstrap(blocks, 4, resamples=50, seed=1) for _ in range(2))
    a = one.distribution("classification", tests, truth, predictions, 4)
    b = other.distribution("classification", tests, truth, predictions, 4)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    c = Bootstrap(blocks, 4, resamples=50, seed=2).distribution("classification", tests, truth, predictions, 4)
    assert not np.array_equal(a["accuracy"], c["accuracy"])


def test_a_draw_of_which_nothing_is_left_does_not_count():
    blocks = np.array([0, 0, 1, 1])
    tests = [np.array([0, 1]), np.array([2, 3])]
    truth = np.array([0, 1, 0, 1])
    predictions = [np.array([0, 1]), np.array([1, 0])]
    found = Bootstrap(blocks, 2, resamples=100, seed=0).distribution("classification", tests, truth, predictions, 2)
    assert set(found["accuracy"]) == {0, 1}  # of two blocks one is drawn each time


@pytest.mark.parametrize("folds", [1, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(folds):
    """Blocks of different difficulty, a few draws of labels per test set, both of which the interval must know."""
    rng = np.random.default_rng(folds)
    blocks = np.repeat(np.arange(60), 8)
    tests = [np.flatnonzero(blocks % folds == draw % folds) for draw in range(10)]
    truth, held = np.ones(480, np.int64), 0
    for seed in range(300):
        hardness = rng.normal(0, 0.12, 60)[blocks]
        predictions = [(rng.random(len(t)) < 0.7 + hardness[t] + rng.normal(0, 0.05)).astype(np.int64) for t in tests]
        found = Bootstrap(blocks, 10, resamples=300, seed=seed).distribution(
            "classification", tests, truth, predictions, 2
        )
        low, high = interval(found["accuracy"])
        held += low <= 0.7 <= high
    assert 0.9 <= held / 300 <= 0.98


def test_samples_that_are_resampled_alone_would_promise_too_much():
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(40), 25)
    right = (rng.random(1000) < np.clip(0.7 + rng.normal(0, 0.25, 40), 0, 1)[blocks]).astype(np.int64)
    widths = []
    for by in (blocks, np.arange(1000)):
        found = Bootstrap(by, 1, seed=0).distribution(
            "classification", [np.arange(1000)], np.ones(1000, np.int64), [right], 2
        )
        widths.append(np.ptp(interval(found["accuracy"])))
    assert widths[0] > 2 * widths[1]


def test_one_block_alone_says_nothing_of_others():
    alone = Bootstrap(np.zeros(9, np.int64), 1, resamples=5, seed=0)
    truth = np.zeros(9, np.int64)
    found = alone.distribution("classification", [np.arange(9)], truth, [truth], 1)
    assert interval(found["accuracy"]) == (1, 1)
    assert alone.tested([np.arange(9)]) == 1


def test_blocks_are_counted_where_they_are_tested():
    bootstrap = Bootstrap(np.array([4, 4, 2, 9, 9]), 2, resamples=5, seed=0)
    assert bootstrap.count == 3
    assert bootstrap.tested([np.array([0, 1])]) == 1
    assert bootstrap.tested([np.array([0]), np.array([2, 1])]) == 2


def test_a_region_that_is_drawn_twice_counts_twice():
    """The spread of the mean over regions left out in turn is that of a mean of so many."""
    blocks = np.repeat(np.arange(6), 50)
    right = (np.arange(300) % 50 < np.repeat([10, 20, 25, 30, 40, 45], 50)).astype(np.int64)
    tests = [np.flatnonzero(blocks == region) for region in range(6)]
    found = Bootstrap(blocks, 6, resamples=4000, seed=0).distribution(
        "classification", tests, np.ones(300, np.int64), [right[test] for test in tests], 2
    )
    means = np.array([right[test].mean() for test in tests])
    assert found["accuracy"].std() == pytest.approx(means.std(ddof=1) / np.sqrt(6), rel=0.05)


def test_deviations_of_few_blocks_are_stretched_as_by_student():
    assert stretch(3) == pytest.approx(4.3027 / 1.95996, rel=1e-4)  # of tables
    assert stretch(21) == pytest.approx(2.0860 / 1.95996, rel=1e-4)
    assert stretch(10_000) == pytest.approx(1, abs=1e-3)
    assert stretch(1) == 1


@pytest.mark.parametrize("count", [3, 6])
def test_intervals_of_few_blocks_hold_the_truth(count):
    rng, held = np.random.default_rng(count), 0
    blocks, truth = np.repeat(np.arange(count), 30), np.ones(30 * count, np.int64)
    for seed in range(300):
        right = (rng.random(len(blocks)) < 0.7 + rng.normal(0, 0.08, count)[blocks]).astype(np.int64)
        bootstrap = Bootstrap(blocks, 1, resamples=200, seed=seed)
        found = bootstrap.distribution("classification", [np.arange(len(blocks))], truth, [right], 2)["accuracy"]
        low, high = interval(right.mean() + stretch(count) * (found - right.mean()))
        held += low <= 0.7 <= high
    assert 0.89 <= held / 300 <= 0.98  # without: 0.75 and 0.87


def test_of_very_many_blocks_several_are_resampled_as_one():
    rng = np.random.default_rng(0)
    right = (rng.random(40_000) < 0.8).astype(np.int64)
    bootstrap = Bootstrap(np.arange(40_000), 1, resamples=400, seed=0)
    found = bootstrap.distribution("classification", [np.arange(40_000)], np.ones(40_000, np.int64), [right], 2)
    assert found["accuracy"].std() == pytest.approx(0.4 / 200, rel=0.15)  # the binomial standard error
    assert bootstrap.count == 40_000


@pytest.mark.parametrize("task", METRICS)
def test_a_thousand_resamples_are_quick(task):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20_000) if task == "regression" else rng.integers(0, 10, 20_000)
    fold = np.arange(20_000) % 5
    tests = [np.flatnonzero(fold == draw % 5) for draw in range(10)]
    predictions = [np.roll(truth[t], 1) for t in tests]
    bootstrap = Bootstrap(np.arange(20_000) // 50, 10, seed=0)
    began = time.process_time()
    bootstrap.distribution(task, tests, truth, predictions, 10)
    assert time.process_time() - began < 1.5  # well below half a second on a quiet machine


def test_intervals_of_nothing():
    assert all(np.isnan(interval(np.full(9, np.nan))))
    assert interval(np.append(np.arange(101.0), np.nan)) == (2.5, 97.5)


def test_binomial_intervals_are_exact():
    for successes, n in ((0, 10), (10, 10), (7, 23), (480, 500)):
        low, high = binomial(successes, n)
        assert low == pytest.approx(beta.ppf(0.025, successes, n - successes + 1) if successes else 0)
        assert high == pytest.approx(beta.ppf(0.975, successes + 1, n - successes) if successes < n else 1)
    assert binomial(0, 0) == (0, 1)


def test_the_metrics_themselves_lie_within():
    blocks, tests, truth, predictions = case("classification")
    found = Bootstrap(blocks, 4, seed=0).distribution("classification", tests, truth, predictions, 4)
    for name, values in found.items():
        plain = np.mean(
            [scores("classification", truth[t], p, 4)[name] for t, p in zip(tests, predictions, strict=True)]
        )
        low, high = interval(values)
        assert low < plain < high
