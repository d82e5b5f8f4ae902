"""Light models against scikit-learn's, and on what is too little or too odd to learn from."""

import sys

import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.learning import knn, logistic, mlp, ridge
from tessera_cli.learning.adapters import ALLOWED, HEADLINE, NAMES, fit
from tessera_cli.learning.inner import inner_folds
from tessera_cli.learning.scale import Scale

PAIRS = [(task, adapter) for task, adapters in ALLOWED.items() for adapter in adapters]


def problem(n=300, dims=6, classes=3, seed=0, task="classification"):
    """Rows of which some features tell the class or the value, on different scales."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dims))
    if task == "regression":
        y = x[:, 0] * 3 - x[:, dims // 2] + 0.1 * rng.normal(size=n) + 40
    else:
        y = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)).astype(np.int64)
        x[np.arange(n), y % dims] += 2.5
    return (x * 10.0 ** rng.integers(-2, 3, dims) + 7).astype(np.float32), y


def standardised(x, *others):
    """The rows on scikit-learn's scale."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipe = make_pipeline(SimpleImputer(), StandardScaler()).fit(x.astype(np.float64))
    return tuple(pipe.transform(each.astype(np.float64)) for each in (x, *others))


def test_the_names_of_the_contract():
    assert NAMES["classification"] == ("constant", "knn", "logistic", "mlp", "forest")
    assert NAMES["regression"] == ("constant", "ridge", "mlp", "forest")
    assert HEADLINE == {"classification": "logistic", "regression": "ridge", "segmentation": "decoder"}
    x, y = problem()
    with pytest.raises(
        UsageError, match=r"svm is no adapter for regression. There are: constant, ridge, mlp, forest, knn"
    ):
        fit("svm", "regression", x, y.astype(float), np.arange(len(y)), classes=0, seed=0)


# --- scale ------------------------------------------------------------------------------------------------------------


def test_the_scale_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, other = (rng.normal(size=(n, 5)).astype(np.float32) * 100 + 5000 for n in (20_000, 50))
    x[rng.random(x.shape) < 0.2] = np.nan
    other[3, 2] = np.nan
    expected = standardised(x, other)
    scale = Scale.of(x)
    for found, wanted in zip((scale.standardised(x), scale.standardised(other)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(scale.filled(other)[3, 2], np.nanmean(x[:, 2].astype(float)), rtol=1e-6)


def test_constant_and_missing_columns_tell_nothing():
    x = np.column_stack([np.full(9, 0.1), np.full(9, np.nan), np.arange(9), np.full(9, 4e6)]).astype(np.float32)
    found = Scale.of(x).standardised(x + np.float32(1))
    assert (found[:, [0, 1, 3]] == 0).all()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 2].std(), 1, rtol=1e-6)


# --- each model -------------------------------------------------------------------------------------------------------


def test_constant():
    y = np.array([4, 4, 2, 2, 2, 7])
    x = np.zeros((6, 3), np.float32)
    fitted = fit("constant", "classification", x, y, np.arange(6), classes=9, seed=0)
    assert fitted.predict(x).tolist() == [2] * 6
    np.testing.assert_allclose(fitted.probabilities(x[:1])[0], [0, 0, 1 / 2, 0, 1 / 3, 0, 0, 1 / 6, 0], rtol=1e-6)
    values = fit("constant", "regression", x, y / 2, np.arange(6), classes=0, seed=0)
    assert values.predict(x).tolist() == pytest.approx([y.mean() / 2] * 6)


@pytest.mark.parametrize("k", [1, 4, 7, 500])
def test_knn_by_hand(k):
    x, y = problem(110, classes=4)
    y += 3
    known, asked = np.arange(80), np.arange(80, 110)
    fitted = fit("knn", "classification", x[known], y[known], known, classes=9, seed=0, fixed={"k": k})
    a, b = standardised(x[known], x[asked])
    chances = fitted.probabilities(x[asked])
    for i, predicted in enumerate(fitted.predict(x[asked])):
        nearest = y[known][np.argsort(((a - b[i]) ** 2).sum(axis=1))][:k]
        counts = np.bincount(nearest, minlength=9)
        assert predicted == next(one for one in nearest if counts[one] == counts.max())
        np.testing.assert_allclose(chances[i], counts / counts.sum(), atol=1e-6)
    values = fit("knn", "regression", x[known], y[known] / 3, known, classes=0, seed=0, fixed={"k": k})
    nearest = np.argsort(((a[None] - b[:, None]) ** 2).sum(axis=2), axis=1)[:, :k]
    np.testing.assert_allclose(values.predict(x[asked]), (y[known] / 3)[nearest].mean(axis=1))


def test_k_is_the_best_one_of_inner_validation():
    x, y = problem(240, dims=3, classes=3)
    groups = np.arange(240) // 4
    fitted = fit("knn", "classification", x, y, groups, classes=3, seed=5)
    folds = inner_folds(y, groups, task="classification", seed=5).folds
    right = dict.fromkeys(knn.CHOICES, 0)
    for fold in range(folds.max() + 1):
        a, b = standardised(x[folds != fold], x[folds == fold])
        order = np.argsort(((a[None] - b[:, None]) ** 2).sum(axis=2), axis=1)
        for k in knn.CHOICES:
            for i, row in enumerate(order):
                nearest = y[folds != fold][row[:k]]
                counts = np.bincount(nearest, minlength=3)
                guess = next(one for one in nearest if counts[one] == counts.max())
                right[k] += guess == y[folds == fold][i]
    assert right[int(fitted.chosen["k"])] == max(right.values())


def test_logistic_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    x, y = problem(400, classes=4)
    fitted = fit("logistic", "classification", x[:300], y[:300], np.arange(300), classes=4, seed=0)
    assert fitted.chosen["C"] in logistic.CHOICES
    a, b = standardised(x[:300], x[300:])
    direct = LogisticRegression(C=fitted.chosen["C"], max_iter=5000, tol=1e-8).fit(a, y[:300])
    np.testing.assert_allclose(fitted.probabilities(x[300:]), direct.predict_proba(b), atol=0.01)
    assert (fitted.predict(x[300:]) == direct.predict(b)).mean() > 0.98


def test_c_is_the_best_one_of_inner_validation():
    """Directly with scikit-learn, to convergence: no C is clearly better than the one chosen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 40)).astype(np.float32), rng.integers(0, 2, 90)
    x[:, 0] += 2 * y
    fitted = fit("logistic", "classification", x, y, np.arange(90), classes=2, seed=0)
    folds = inner_folds(y, np.arange(90), task="classification", seed=0, folds=3).folds
    losses = {}
    for c in logistic.CHOICES:
        losses[c] = 0
        for fold in range(3):
            a, b = standardised(x[folds != fold], x[folds == fold])
            model = LogisticRegression(C=c, max_iter=5000).fit(a, y[folds != fold])
            losses[c] += log_loss(y[folds == fold], model.predict_proba(b), normalize=False)
    assert losses[fitted.chosen["C"]] < min(losses.values()) + 1
    assert max(losses.values()) > min(losses.values()) + 10


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
@pytest.mark.parametrize("dims", [6, 150])
def test_ridge_is_scikit_learns_with_every_class_counting_equally(penalty, dims):
    from sklearn.linear_model import Ridge

    x, y = problem(130, dims=dims)
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]  # the penalty decides how such features share their weight
    fitted = fit(
        "ridge", "classification", x[:100], y[:100], np.arange(100), classes=3, seed=0, fixed={"penalty": penalty}
    )
    weights = (1 / np.bincount(y[:100]) / 3)[y[:100]]
    mean = np.average(x[:100].astype(float), axis=0, weights=weights)
    spread = np.sqrt(np.average((x[:100] - mean) ** 2, axis=0, weights=weights))
    direct = Ridge(alpha=penalty, solver="svd").fit(
        (x[:100] - mean) / spread, np.eye(3)[y[:100]], sample_weight=weights
    )
    scores = direct.predict((x[100:] - mean) / spread)
    assert np.array_equal(fitted.predict(x[100:]), scores.argmax(axis=1))
    clipped = np.maximum(scores, 0)
    np.testing.assert_allclose(fitted.probabilities(x[100:]), clipped / clipped.sum(axis=1, keepdims=True), atol=1e-3)

    values = fit(
        "ridge", "regression", x[:100], x[:100, 2] - 5.0, np.arange(100), classes=0, seed=0, fixed={"penalty": penalty}
    )
    a, b = standardised(x[:100], x[100:])
    direct = Ridge(alpha=100 * penalty, solver="svd").fit(a, x[:100, 2] - 5.0)
    np.testing.assert_allclose(values.predict(x[100:]), direct.predict(b), rtol=1e-3, atol=1e-3)


def test_the_penalty_is_the_best_one_of_inner_validation():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 40)).astype(np.float32)
    y = x[:, 0] + 0.8 * rng.normal(size=60)
    groups = np.arange(60) // 2
    fitted = fit("ridge", "regression", x, y, groups, classes=0, seed=2)
    folds = inner_folds(y, groups, task="regression", seed=2).folds
    losses = {}
    for penalty in ridge.PENALTIES:
        losses[penalty] = 0
        for fold in range(5):
            known = folds != fold
            a, b = standardised(x[known], x[~known])
            model = Ridge(alpha=penalty * known.sum(), solver="svd").fit(a, y[known])
            losses[penalty] += ((model.predict(b) - y[~known]) ** 2).sum()
    assert fitted.chosen == {"penalty": min(losses, key=losses.get)}


def test_forests_are_scikit_learns():
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    x, y = problem(400)
    fitted = fit("forest", "classification", x[:300], y[:300], np.arange(300), classes=3, seed=3)
    direct = RandomForestClassifier(100, max_samples=300, random_state=3).fit(x[:300], y[:300])
    assert (fitted.predict(x[300:]) == direct.predict(x[300:])).all()
    x, y = problem(400, task="regression")
    fitted = fit("forest", "regression", x[:300], y[:300], np.arange(300), classes=0, seed=3)
    direct = RandomForestRegressor(100, max_samples=300, max_features=1.0, min_samples_leaf=5, random_state=3)
    np.testing.assert_allclose(fitted.predict(x[300:]), direct.fit(x[:300], y[:300]).predict(x[300:]))


@pytest.mark.parametrize(("task", "adapter"), [pair for pair in PAIRS if pair[1] != "constant"])
def test_what_can_be_learned_is_learned_and_noise_is_not(task, adapter):
    x, y = problem(600, task=task, seed=4)
    if task == "regression":
        fitted = fit(adapter, task, x[:400], y[:400], np.arange(400), classes=0, seed=0)
        error = np.mean((fitted.predict(x[400:]) - y[400:]) ** 2) / y[400:].var()
        assert error < {"knn": 0.3, "forest": 0.35, "mlp": 0.1, "ridge": 0.01}[adapter]
        noise = np.random.default_rng(0).permutation(y[:400])
        fitted = fit(adapter, task, x[:400], noise, np.arange(400), classes=0, seed=0)
        assert np.mean((fitted.predict(x[400:]) - y[400:]) ** 2) / y[400:].var() > 0.9
    else:
        fitted = fit(adapter, task, x[:400], y[:400], np.arange(400), classes=3, seed=0)
        assert (fitted.predict(x[400:]) == y[400:]).mean() > 0.8
        noise = np.random.default_rng(0).permutation(y[:400])
        fitted = fit(adapter, task, x[:400], noise, np.arange(400), classes=3, seed=0)
        assert (fitted.predict(x[400:]) == y[400:]).mean() < 0.6


def test_a_perceptron_learns_what_no_linear_model_can():
    x = np.random.default_rng(0).uniform(-1, 1, (1500, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    right = {
        name: (
            fit(name, "classification", x[:1000], y[:1000], np.arange(1000), classes=2, seed=0).predict(x[1000:])
            == y[1000:]
        ).mean()
        for name in ("mlp", "logistic")
    }
    assert right["mlp"] > 0.9
    assert right["logistic"] < 0.6


# --- for all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "adapter"), PAIRS)
def test_the_same_seed_gives_the_same_whatever_the_threads(task, adapter):
    x, y = problem(300, task=task)
    arguments = adapter, task, x[:200], y[:200], np.arange(200) // 2
    first, second = (fit(*arguments, classes=3, seed=7, threads=n) for n in (1, 2))
    assert first.chosen == second.chosen
    assert np.array_equal(first.predict(x[200:]), second.predict(x[200:]))
    if adapter in ("mlp", "forest"):
        other = fit(*arguments, classes=3, seed=8)
        assert not np.array_equal(
            other.probabilities(x[200:]) if task == "classification" else other.predict(x[200:]),
            first.probabilities(x[200:]) if task == "classification" else first.predict(x[200:]),
        )


TINY = [
    [0, 0, 1, 1],
    [0, 1],
    [0, 1, 2, 3, 3],
    [2, 2, 2, 2],
    [5],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 1, 1, 2, 2],
]


@pytest.mark.parametrize("adapter", ALLOWED["classification"])
@pytest.mark.parametrize("dims", [1, 2000])
@pytest.mark.parametrize("labels", TINY, ids=str)
def test_a_handful_of_labels(adapter, dims, labels):
    y = np.array(labels)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(y), dims)).astype(np.float32)
    x[:, 0] = 10 * y
    x[0, dims // 2] = np.nan
    for groups in (np.arange(len(y)), np.zeros(len(y), np.int64)):
        fitted = fit(adapter, "classification", x, y, groups, classes=7, seed=0)
        predicted, chances = fitted.predict(x), fitted.probabilities(x)
        assert set(predicted) <= set(labels)
        assert predicted.dtype == np.int64
        assert chances.shape == (len(y), 7)
        assert chances.dtype == np.float32
        np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
        assert (chances[:, ~np.isin(np.arange(7), labels)] == 0).all()
        assert fitted.predict(x[:0]).shape == (0,)
        assert fitted.probabilities(x[:0]).shape == (0, 7)
        if adapter != "constant":
            np.testing.assert_array_equal(predicted, chances.argmax(axis=1)) if adapter != "knn" else None


@pytest.mark.parametrize("adapter", ALLOWED["regression"])
@pytest.mark.parametrize("dims", [1, 2000])
@pytest.mark.parametrize("values", [[1.5], [1.0, 2.0], [3.0, 3.0, 3.0, 3.0, 3.0], [1, 2, 3, 4, 5, 6, 7, 8]], ids=str)
def test_a_handful_of_values(adapter, dims, values):
    y = np.array(values, float)
    x = np.random.default_rng(0).normal(size=(len(y), dims)).astype(np.float32)
    x[-1] = x[0]  # duplicates
    x[0, dims // 2] = np.nan
    fitted = fit(adapter, "regression", x, y, np.arange(len(y)), classes=0, seed=0)
    assert fitted.predict(x).dtype == np.float64
    assert np.isfinite(fitted.predict(x)).all()
    assert fitted.probabilities(x) is None
    if y.std() == 0:
        np.testing.assert_allclose(fitted.predict(x), y, atol=0.5)
    assert fitted.predict(x[:0]).shape == (0,)


@pytest.mark.parametrize(("task", "adapter"), PAIRS)
def test_features_that_tell_nothing(task, adapter):
    _, y = problem(60, task=task)
    x = np.full((60, 4), 3.3, np.float32)
    fitted = fit(adapter, task, x, y, np.arange(60), classes=3, seed=0)
    assert len(np.unique(fitted.predict(x))) == 1


@pytest.mark.parametrize(
    ("adapter", "name", "default"),
    [
        ("knn", "k", knn.DEFAULT),
        ("logistic", "C", logistic.DEFAULT),
        ("ridge", "penalty", ridge.DEFAULT),
        ("mlp", "epochs", mlp.DEFAULT),
    ],
)
def test_defaults_where_nothing_can_be_held_out(adapter, name, default):
    x = np.array([[0.0], [1.0]], np.float32)
    assert fit(adapter, "classification", x, np.array([0, 1]), np.arange(2), classes=2, seed=0).chosen == {
        name: default
    }


def test_predictions_of_many_rows_are_made_in_parts(monkeypatch):
    from tessera_cli.learning import adapters

    x, y = problem(300)
    for name in ALLOWED["classification"]:
        fitted = fit(name, "classification", x, y, np.arange(300), classes=3, seed=0)
        whole = fitted.predict(x), fitted.probabilities(x)
        monkeypatch.setattr(adapters, "_ROWS", 37)
        assert np.array_equal(fitted.predict(x), whole[0])
        np.testing.assert_allclose(fitted.probabilities(x), whole[1], atol=1e-5)
        monkeypatch.undo()


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        UsageError, match=r'adapter knn needs another package. Run: pip install "tessera-embed\[evaluate\]"\.'
    ):
        fit("knn", "classification", *problem(9), np.arange(9), classes=3, seed=0)


# --- inner validation -------------------------------------------------------------------------------------------------


def test_inner_validation_leaves_groups_whole_and_every_class_on_both_sides():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    y = (np.arange(30) % 3)[groups]
    found = inner_folds(y, groups, task="classification", seed=1)
    assert len(found.rounds()) == 5
    for known, held in found.rounds():
        assert not set(groups[known]) & set(groups[held])
        assert set(y[known]) == set(y[held]) == {0, 1, 2}
    assert sorted(np.concatenate([held for _, held in found.rounds()])) == list(range(len(y)))


@pytest.mark.parametrize(
    ("y", "groups", "rounds"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], 2),
        ([0, 1, 2], [0, 1, 2], 0),
        ([0, 0, 1, 1], [0, 0, 1, 1], 0),
        ([0, 0, 0, 1], [0, 1, 2, 3], 0),
        ([0] * 9 + [1] * 3 + [2], range(13), 3),
    ],
)
def test_how_many_rounds_the_labels_allow(y, groups, rounds):
    found = inner_folds(np.array(y), np.array(groups), task="classification", seed=0)
    assert (0 if found is None else len(found.rounds())) == rounds


def test_of_many_labels_some_take_part():
    y = np.random.default_rng(0).integers(0, 3, 9000)
    found = inner_folds(y, np.arange(9000), task="classification", seed=0)
    assert len(found.numbers) == len(np.unique(found.numbers)) == 4000
    assert set(found.numbers) >= set(found.rounds()[0][0])
