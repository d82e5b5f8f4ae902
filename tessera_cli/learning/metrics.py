"""The measures of accuracy, as scikit-learn defines them, from sums that may be weighted.

N test samples, K classes. All follow from a few sums per class, or over all samples, so that a bootstrap has to weight
only those.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera_cli.learning.task import Task

METRICS: Mapping[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1"),
    "regression": ("rmse", "mae", "r2", "bias"),
    "segmentation": ("miou", "accuracy", "macro_f1"),
}
"""What is measured of each task; `MAIN` is what is compared first."""
MAIN: Mapping[Task, str] = {"classification": "macro_f1", "regression": "rmse", "segmentation": "miou"}
LARGER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "miou": True,
    "r2": True,
    "rmse": False,
    "mae": False,
    "bias": False,
}
"""Of `bias` the absolute value counts."""


def scores(task: Task, truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Return the metrics of `METRICS[task]`: truth and predicted (N,), class numbers below `classes`, or values.

    balanced_accuracy: over the classes that occur in the truth. macro_f1, miou: over those that occur in either. bias:
    mean of predicted less true value. r2 of fewer than 2 samples, and all of none, are NaN.
    """
    if task == "regression":
        sums = value_sums(truth, predicted, float(np.mean(truth)) if len(truth) else 0.0).sum(axis=0)
        return {name: float(value) for name, value in from_value_sums(sums).items()}
    hit = np.bincount(truth[truth == predicted], minlength=classes)
    counts = np.stack([hit, np.bincount(truth, minlength=classes), np.bincount(predicted, minlength=classes)])
    found = from_counts(counts)
    return {name: float(found[name]) for name in METRICS[task]}


def from_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of classes from counts (..., 3, K): predicted rightly, in the truth, predicted.

    Counts may be weighted; a class of weight 0 does not occur. Metrics of nothing are NaN.
    """
    hit, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    either = true + predicted
    return {
        "accuracy": _ratio(hit.sum(axis=-1), true.sum(axis=-1)),
        "balanced_accuracy": _mean(hit, true),
        "macro_f1": _mean(2 * hit, either),
        "miou": _mean(hit, either - hit, either),
    }


def value_sums(truth: np.ndarray, predicted: np.ndarray, centre: float) -> np.ndarray:
    """Return what is summed over samples, float64 (N, 6): 1, t, t², e, |e|, e²; t: truth less `centre`, e: error."""
    t, error = truth - centre, predicted - truth
    return np.stack([np.ones(len(t)), t, t**2, error, np.abs(error), error**2], axis=1)


def from_value_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of values from sums (..., 6), which may be weighted."""
    weight, t, t2, error, absolute, squares = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    spread = np.maximum(t2 - _ratio(t, weight) * t, 0)
    spread = np.where(spread <= 1e-14 * t2, 0, spread)  # what is left of equal values
    r2 = np.where(spread > 0, 1 - _ratio(squares, spread), np.where(squares > 0, 0.0, 1.0))
    return {
        "rmse": np.sqrt(_ratio(squares, weight)),
        "mae": _ratio(absolute, weight),
        "r2": np.where(weight < 2, np.nan, r2),
        "bias": _ratio(error, weight),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where there is nothing to divide by."""
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1), np.nan))


def _mean(above: np.ndarray, below: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Return the mean over K of a ratio, of the classes that are there."""
    known = (below if there is None else there) > 0
    ratios = np.where(known, above / np.where(known, below, 1), 0)
    return _ratio(ratios.sum(axis=-1), known.sum(axis=-1))
