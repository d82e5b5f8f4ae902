"""The body of an evaluation: draws, cells, scores, differences, what is said to be shown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tessera_cli.errors import UsageError
from tessera_cli.evaluation import cells
from tessera_cli.evaluation.compose import compose
from tessera_cli.evaluation.protocol import Settings, chosen_adapters, chosen_budgets, draws_of
from tessera_cli.evaluation.run import run_evaluation
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.scores import Score, _centred, difference
from tessera_cli.evaluation.splitting import interval_notes, split_of
from tessera_cli.evaluation.verdicts import differences, verdicts
from tessera_cli.learning.adapters import fit
from tessera_cli.learning.budgets import Budget
from tessera_cli.learning.splits import blocked, given, grouped, regions

ALL, TENTH = Budget(fraction=1.0), Budget(fraction=0.1)


def parcels_of_pixels(parcels=60, pixels=12, dims=96, classes=3, seed=0):
    """Pixels that look like their parcel, and parcels whose looks say nothing of their class."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(parcels), pixels)
    look = rng.normal(size=(parcels, dims))
    values = (look[of] + 0.1 * rng.normal(size=(len(of), dims))).astype(np.float32)
    lonlat = np.stack([4 + 0.02 * (of % 10), 50 + 0.02 * (of // 10)], axis=1) + 1e-5 * rng.normal(size=(len(of), 2))
    return LabelledSamples(
        task="classification",
        unit="pixel",
        features=(FeatureSet("looks", "embedding", values),),
        targets=(np.arange(parcels) % classes)[of],
        classes=tuple("abc"[:classes]),
        lonlat=lonlat,
        parcels=of,
        groups=of,
    )


def separable(n=400, noise=0.4, seed=1):
    """Points in two sets of features: one that tells the classes apart, and one of noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 4
    good = (np.eye(8)[targets] + noise * rng.normal(size=(n, 8))).astype(np.float32)
    nothing = rng.normal(size=(n, 8)).astype(np.float32)
    return LabelledSamples(
        task="classification",
        unit="point",
        features=(FeatureSet("good", "embedding", good), FeatureSet("nothing", "raw", nothing)),
        targets=targets,
        classes=("a", "b", "c", "d"),
        lonlat=np.full((n, 2), np.nan),
        parcels=np.arange(n),
        groups=np.arange(n),
    )


def settings(*adapters, budgets=(TENTH, ALL), draws=10):
    return Settings(adapters or ("constant", "logistic"), tuple(budgets), draws)


def test_a_random_split_of_the_pixels_of_fields_flatters_and_the_report_shows_by_how_much():
    samples = parcels_of_pixels()
    split = blocked(samples.lonlat, samples.groups, samples.targets, size=1000.0)
    (gap,) = run_evaluation(samples, split, settings(budgets=(ALL,))).random_split
    assert gap.random > 0.8
    assert gap.blocked < 0.5
    assert gap.random - gap.blocked > 0.2


def test_no_fit_sees_a_parcel_that_it_is_tested_on():
    samples = parcels_of_pixels()
    split = grouped(samples.groups, samples.targets, 5)
    for budget in (TENTH, ALL):
        draws = draws_of(samples, split, settings(), budget).draws
        assert len(draws) == (5 if budget is ALL else 10)
        for draw in draws:
            assert not set(samples.parcels[draw.train]) & set(samples.parcels[draw.test])
            assert len(np.unique(samples.parcels[draw.train])) == (48 if budget is ALL else 5)


def test_scores_are_those_of_scikit_learn_on_the_same_draws():
    samples = separable()
    split = given(np.arange(400) % 3 == 0, np.arange(400))
    made = run_evaluation(samples, split, settings(budgets=(ALL,)))
    score = next(each for each in made.scores if each.features == "good" and each.adapter == "logistic")
    train, test = np.flatnonzero(split.folds < 0), np.flatnonzero(split.folds == 0)
    values = samples.features[0].values
    found = fit("logistic", "classification", values[train], samples.targets[train], train, classes=4, seed=0)
    predicted = found.predict(values[test])
    assert score.metrics["accuracy"] == pytest.approx(accuracy_score(samples.targets[test], predicted), abs=1e-12)
    due = f1_score(samples.targets[test], predicted, average="macro")
    assert score.metrics["macro_f1"] == pytest.approx(due, abs=1e-12)
    described = score.to_dict()
    assert described["low"]["accuracy"] < described["metrics"]["accuracy"] < described["high"]["accuracy"]


def test_the_constant_is_the_same_for_all_features():
    made = run_evaluation(separable(), given(np.arange(400) % 3 == 0, np.arange(400)), settings())
    constants = [each.to_dict() for each in made.scores if each.adapter == "constant"]
    assert {each["features"] for each in constants} == {"good", "nothing"}
    assert len({each["metrics"]["accuracy"] for each in constants if each["labels"] == 1}) == 1


def test_finished_cells_are_not_computed_again(tmp_path, monkeypatch):
    samples = separable()
    split = given(np.arange(400) % 3 == 0, np.arange(400))
    first = run_evaluation(samples, split, settings(), tmp_path / "cells")
    kept = sorted((tmp_path / "cells").iterdir())
    torn = kept[0]
    torn.write_bytes(torn.read_bytes()[:100])
    seen = []
    monkeypatch.setattr(
        cells, "fit", lambda adapter, *rest, **more: seen.append(adapter) or fit(adapter, *rest, **more)
    )
    again = run_evaluation(samples, split, settings(), tmp_path / "cells")
    assert [each.to_dict() for each in again.scores] == [each.to_dict() for each in first.scores]
    assert sorted((tmp_path / "cells").iterdir()) == kept
    assert len(seen) in {1, 3, 10}  # the draws of what was torn


def test_cells_of_other_values_labels_and_draws_are_others(tmp_path):
    samples = separable()
    split = given(np.arange(400) % 3 == 0, np.arange(400))
    run_evaluation(samples, split, settings(budgets=(ALL,)), tmp_path)
    count = len(list(tmp_path.iterdir()))
    changed = samples.features[0].values.copy()
    changed[0, 0] += 1
    other = replace(samples, features=(replace(samples.features[0], values=changed), samples.features[1]))
    run_evaluation(other, split, settings(budgets=(ALL,)), tmp_path)
    assert (
        len(list(tmp_path.iterdir())) == count + 3
    )  # the constant and logistic of the first features, and their random split
    run_evaluation(replace(samples, targets=samples.targets[::-1].copy()), split, settings(budgets=(ALL,)), tmp_path)
    assert len(list(tmp_path.iterdir())) == count + 3 + count


def test_features_may_be_tested_on_another_year():
    samples = separable(noise=0.1)
    good = samples.features[0]
    turned = replace(good, name="turned", test_values=good.values[:, [3, 0, 1, 2, 4, 5, 6, 7]])
    made = run_evaluation(
        replace(samples, features=(good, turned)),
        given(np.arange(400) % 3 == 0, np.arange(400)),
        settings(budgets=(ALL,)),
    )
    found = {each.features: each.metrics["accuracy"] for each in made.scores if each.adapter == "logistic"}
    assert found["good"] > 0.99
    assert found["turned"] < 0.01  # every class is taken for the next


def test_pixels_of_parcels_vote():
    samples = parcels_of_pixels()
    rng = np.random.default_rng(0)
    noisy = np.eye(3)[samples.targets] + 0.8 * rng.normal(size=(len(samples), 3))
    samples = replace(samples, features=(FeatureSet("noisy", "embedding", noisy.astype(np.float32)),))
    made = run_evaluation(samples, grouped(samples.groups, samples.targets, 5), settings(budgets=(ALL,)))
    found = {each.unit: each.metrics["accuracy"] for each in made.scores if each.adapter == "logistic"}
    assert found["parcel vote"] > found["pixel"] + 0.1
    assert found["parcel vote"] > 0.95


def test_budgets_that_cannot_be_drawn_are_named():
    samples = separable(40)
    made = run_evaluation(
        samples, grouped(samples.groups, samples.targets, 5), settings(budgets=(Budget(fraction=0.01), ALL))
    )
    (draws,) = made.impossible
    assert draws.budget.fraction == 0.01
    assert draws.why
    assert {each.budget for each in made.scores} == {ALL}


# --- what is said ----------------------------------------------------------------------------------------------------


def score(features, values, *, adapter="logistic", metric="macro_f1", noise=0.01, seed=0):
    """A score of ten draws around a value, with an interval as wide as `noise` makes it."""
    values = values + 0.001 * np.sin(np.arange(10.0))
    spread = values.mean() + noise * np.random.default_rng(seed).normal(size=1000)
    return Score(features, adapter, TENTH, "point", 10.0, {metric: values}, {metric: spread}, {})


def told(*scores, task="classification"):
    samples = replace(separable(), task=task)
    found = differences(samples, scores)
    return verdicts(samples, scores, found)


def test_a_winner_is_named_with_its_margin():
    (said,) = told(score("a", 0.9), score("b", 0.7, seed=1), score("a", 0.1, adapter="constant", seed=2))
    assert "a is better than b in 10 of 10 draws, by +20.0 [" in said


def test_nobody_wins_within_the_interval():
    (said,) = told(score("a", 0.9, noise=0.2), score("b", 0.85, seed=1), score("a", 0.1, adapter="constant", seed=2))
    assert "no winner: a and b lie within the interval" in said


def test_nothing_is_shown_if_the_constant_lies_inside():
    constant = score("a", 0.869, adapter="constant", metric="rmse", seed=2)
    (said,) = told(score("a", 0.85, adapter="ridge", metric="rmse", noise=0.1), constant, task="regression")
    assert "nothing was shown" in said


def test_a_smaller_error_is_better():
    one, other = score("a", 0.5, metric="rmse"), score("b", 0.7, metric="rmse", seed=1)
    found = difference("regression", one, other, "b")
    assert found.value == pytest.approx(0.2)
    assert found.better == 10
    assert found.low > 0
    turned = found.turned()
    assert (turned.features, turned.against, turned.better, turned.value) == ("b", "a", 0, -found.value)


def test_options_that_are_wrong_are_named():
    assert chosen_adapters("regression", None)[0] == "constant"
    assert "logistic" in chosen_adapters("classification", ["knn"])
    with pytest.raises(UsageError, match=r"--adapter svm.*logistic"):
        chosen_adapters("classification", ["svm"])
    with pytest.raises(UsageError, match="200%"):
        chosen_budgets("1,200", None)
    with pytest.raises(UsageError, match="No budget"):
        chosen_budgets("", None)
    assert [each.name for each in chosen_budgets("1,30", "5")] == ["1 %", "30 %", "5 per class"]


def plain(report):
    return json.loads(json.dumps(report, allow_nan=False))


def test_draws_of_one_class_choose_nothing_and_test_sets_of_one_sample_have_no_r2():
    """Regions: one holds a class alone, and one a single sample."""
    samples = separable(60)
    region = np.arange(60) % 2
    classes = replace(samples, targets=np.where(region == 0, 0, np.arange(60) // 2 % 2), classes=("a", "b"))
    made = run_evaluation(classes, regions(region), settings(budgets=(ALL,)))
    logistic = next(each for each in made.scores if each.adapter == "logistic")
    assert set(logistic.chosen) == {"C"}  # of the draw that learns from both classes
    values = np.random.default_rng(0).normal(size=60)
    numbers = replace(samples, task="regression", targets=values, classes=())
    alone = np.r_[np.zeros(59, np.int64), 1]
    for region in (alone, np.arange(60)):
        made = run_evaluation(numbers, regions(region), settings("constant", "ridge", budgets=(ALL,)))
        found = [each for each in plain(compose(made, inputs={}))["results"] if each["adapter"] == "ridge"]
        assert (found[0]["metrics"]["r2"] is None) == (len(np.unique(region)) == 60)
        assert found[0]["metrics"]["rmse"] > 0


@pytest.mark.parametrize("adapter", ["knn", "logistic", "mlp", "forest"])
def test_how_many_fits_run_at_a_time_makes_no_difference(adapter):
    samples, found = separable(200), []
    split = grouped(samples.groups, samples.targets, 5)
    for threads in (1, 3):
        chosen = Settings(("constant", "logistic", adapter), (Budget(shots=5),), 5, threads=threads)
        made = run_evaluation(samples, split, chosen)
        found.append([each.by_draw["macro_f1"].tolist() for each in made.scores])
    assert found[0] == found[1]


@pytest.mark.parametrize(("sites", "resampled"), [(8, "sites"), (2, "samples")])
def test_sites_are_resampled_where_several_are_tested(sites, resampled):
    samples = separable(240)
    site = np.arange(240) // (240 // (sites + 4))
    here = replace(samples, groups=site, test=site < sites)
    split = split_of(here, block=None, folds=5, leave_out=False, seed=0)
    assert len(np.unique(split.blocks)) == (sites + 4 if resampled == "sites" else 240)
    assert bool(interval_notes(here, split)) == (resampled == "samples")
    divided = split_of(replace(here, test=None), block=None, folds=5, leave_out=True, seed=0)
    assert len(np.unique(divided.blocks)) == sites + 4


def test_an_interval_holds_its_value_though_an_r2_may_be_anything():
    numbers = np.r_[np.full(95, 0.5), np.full(5, -1e4)]
    moved = _centred(numbers, 0.4, 1.5)
    low, high = np.percentile(moved, [2.5, 97.5])
    assert low < 0.4 <= high < 1


def test_what_is_equal_but_for_rounding_shows_nothing():
    whole = Budget(fraction=1.0)
    values = np.array([1.0, 2.0, 3.0])
    one, other = (
        Score(name, "ridge", whole, "point", 9, {"rmse": values + more}, {"rmse": values + more}, {})
        for name, more in (("a", 0), ("b", 1e-13))
    )
    found = difference("regression", one, other, "b")
    assert (found.value, found.low, found.high, found.better) == (0, 0, 0, 0)


def test_regression_reaches_the_ceiling_without_noise():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 16)).astype(np.float32)
    samples = replace(
        separable(500),
        task="regression",
        features=(FeatureSet("exact", "embedding", values),),
        targets=values.astype(np.float64) @ rng.normal(size=16) + 3,
        classes=(),
    )
    made = run_evaluation(samples, grouped(samples.groups, samples.targets, 5), settings("constant", "ridge"))
    found = {each.budget: each.metrics["r2"] for each in made.scores if each.adapter == "ridge"}
    assert found[TENTH] > 0.95
    assert found[ALL] > 0.999


def test_a_few_groups_are_a_fold_each():
    samples = separable(90)
    sites = np.arange(90) // 30
    split = split_of(replace(samples, groups=sites), block=None, folds=5, leave_out=False, seed=0)
    assert split.count == 3
    assert all(len(np.unique(sites[split.test(fold)])) == 1 for fold in range(3))
