"""Embeddings and raw features side by side: told whether an embedding lost something, and never the winner."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tessera_cli.evaluation.compose import compose
from tessera_cli.evaluation.labelled import with_prefixes
from tessera_cli.evaluation.protocol import Settings
from tessera_cli.evaluation.run import run_evaluation
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.together import with_raw
from tessera_cli.learning.budgets import Budget
from tessera_cli.learning.splits import grouped

ALL = Budget(fraction=1.0)
BOTH = "emb + raw-series"


def samples_of(lost, *, count=600, task="classification", seed=0):
    """Two hidden numbers decide; a series of 360 values has both, the embedding of 64 one of them if one was lost.

    Reflectance is small and decibels are large, and a tenth of the series' values are missing.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 2))
    known = hidden[:, :1] if lost else hidden
    mixed = known @ rng.normal(size=(known.shape[1], 64)) / 2
    embedding = mixed + 0.1 * rng.normal(size=(count, 64))
    series = hidden @ rng.normal(size=(2, 360)) / 2 + rng.normal(size=(count, 360))
    series = series * np.where(np.arange(360) < 240, 0.05, 10) - np.where(np.arange(360) < 240, 0, 15)
    series[rng.random(series.shape) < 0.1] = np.nan
    value = hidden.sum(axis=1)
    return LabelledSamples(
        task=task,
        unit="point",
        features=(
            FeatureSet("emb", "embedding", embedding.astype(np.float32)),
            FeatureSet("raw-series", "raw", series.astype(np.float32)),
            FeatureSet("raw-pca", "raw", series[:, :8].astype(np.float32)),
        ),
        targets=(value > 0).astype(np.int64) if task == "classification" else value,
        classes=("low", "high") if task == "classification" else (),
        lonlat=np.full((count, 2), np.nan),
        parcels=np.arange(count),
        groups=np.arange(count),
    )


def evaluated(samples, *adapters, budgets=(ALL,)):
    split = grouped(samples.groups, samples.targets, 3)
    return run_evaluation(samples, split, Settings(("constant", *adapters), budgets, 3))


@pytest.mark.parametrize(("task", "adapter"), [("classification", "logistic"), ("regression", "ridge")])
@pytest.mark.parametrize("lost", [True, False])
def test_it_is_said_whether_an_embedding_lost_something(task, adapter, lost):
    made = evaluated(with_raw(samples_of(lost, task=task)), adapter)
    said = compose(made, inputs={})["verdicts"]
    (line,) = [each for each in said if "adding raw-series to emb is worth" in each]
    assert line.startswith("100 % of the labels, ")
    due = "the embedding lost something that raw-series holds." if lost else "nothing was shown to be lost."
    assert line.endswith(due)
    assert not any(BOTH in each for each in said)  # it takes part in no contest


def test_it_is_said_of_an_embedding_and_its_series_alone_and_with_the_most_labels():
    samples = samples_of(lost=True)
    alone = replace(samples, features=samples.features[:2])
    shots = Budget(shots=2), Budget(shots=10)
    for budgets, due in (((ALL,), "100 % of the labels"), (shots, "10 per class"), (shots[::-1], "10 per class")):
        said = compose(evaluated(with_raw(alone), "logistic", budgets=budgets), inputs={})["verdicts"]
        assert [each.split(",")[0] for each in said if "adding raw-series to emb is worth" in each] == [due]
        assert not any("against: raw-series" in each for each in said)  # of two the verdict says it


def test_both_are_held_against_their_parts_alone():
    report = compose(evaluated(with_raw(samples_of(lost=True)), "logistic", "knn"), inputs={})
    pairs = {(each["features"], each["against"]) for each in report["comparisons"]}
    assert {pair for pair in pairs if BOTH in pair} == {(BOTH, "emb"), (BOTH, "raw-series")}
    assert len(pairs) == 3 + 3 + 2
    entry = next(each for each in report["features"] if each["name"] == BOTH)
    assert (entry["kind"], entry["dims"], entry["parts"]) == ("both", 64 + 360, ["emb", "raw-series"])
    assert {each["features"] for each in report["results"]} >= {BOTH}
    without = compose(evaluated(samples_of(lost=True), "logistic", "knn"), inputs={})
    others = [each for each in report["comparisons"] if each["features"] != BOTH]
    assert others == without["comparisons"]  # nothing else moves


def test_the_columns_are_on_one_scale_as_a_pipeline_of_scikit_learn_has_them():
    """Whole columns side by side, means for what is missing: its score is that of a second implementation."""
    samples = with_raw(samples_of(lost=True))
    both = next(each for each in samples.features if each.name == BOTH)
    np.testing.assert_array_equal(both.values[:, :64], samples.features[0].values)
    np.testing.assert_array_equal(both.values[:, 64:], samples.features[1].values)
    split = grouped(samples.groups, samples.targets, 3)
    made = evaluated(samples, "logistic")
    score = next(each for each in made.scores if (each.features, each.adapter) == (BOTH, "logistic"))
    found = []
    for fold in range(3):
        train, test = split.train(fold), split.test(fold)
        x = both.values.astype(np.float64)
        x = np.where(np.isnan(x), np.nanmean(x[train], axis=0), x)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=score.chosen["C"], max_iter=2000))
        predicted = model.fit(x[train], samples.targets[train]).predict(x[test])
        found.append(f1_score(samples.targets[test], predicted, average="macro"))
    assert score.metrics["macro_f1"] == pytest.approx(np.mean(found), abs=0.01)


@pytest.mark.parametrize("adapter", ["logistic", "ridge", "forest", "mlp", "knn"])
def test_a_longer_series_that_says_nothing_does_not_drown_the_embedding(adapter):
    """kNN looks at all columns alike, so it alone may lose much beside 360 of them."""
    samples = samples_of(lost=False)
    noise = np.random.default_rng(1).normal(size=(600, 360)).astype(np.float32)
    raw = replace(samples.features[1], values=noise)
    made = evaluated(with_raw(replace(samples, features=(samples.features[0], raw))), "logistic", adapter)
    score = {each.features: each.metrics["macro_f1"] for each in made.scores if each.adapter == adapter}
    assert score["emb"] > 0.9
    assert score[BOTH] > (0.75 if adapter == "knn" else score["emb"] - 0.1)


def test_prefixes_and_other_precisions_stay_alone_and_other_years_come_along():
    samples = with_prefixes(samples_of(lost=True))
    names = [each.name for each in with_raw(samples).features if each.kind == "both"]
    assert names == [BOTH]
    emb, raw, _ = samples_of(lost=True).features
    tested = replace(emb, test_values=emb.values + 1)
    both = with_raw(replace(samples_of(lost=True), features=(tested, raw))).features[-1]
    np.testing.assert_array_equal(both.tested, np.concatenate([emb.values + 1, raw.values], axis=1))
    assert both.take(np.arange(3)).parts == ("emb", "raw-series")


def test_without_a_raw_series_nothing_is_added():
    samples = samples_of(lost=True)
    some = replace(samples, features=(samples.features[0], samples.features[2]))
    assert with_raw(some) is some
