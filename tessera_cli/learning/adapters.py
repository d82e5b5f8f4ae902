"""Light models by name: fitted on labelled features, then asked for predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.learning.constant import Constant
from tessera_cli.learning.forest import Forest
from tessera_cli.learning.knn import Neighbours
from tessera_cli.learning.logistic import Logistic
from tessera_cli.learning.mlp import Perceptron
from tessera_cli.learning.model import Model, Training
from tessera_cli.learning.needed import check_packages
from tessera_cli.learning.ridge import Ridge
from tessera_cli.learning.task import Task

NAMES: Mapping[Task, tuple[str, ...]] = {
    "classification": ("constant", "knn", "logistic", "mlp", "forest"),
    "regression": ("constant", "ridge", "mlp", "forest"),
}
"""What is fitted unless asked otherwise."""
ALLOWED: Mapping[Task, tuple[str, ...]] = {
    "classification": (*NAMES["classification"], "ridge"),
    "regression": (*NAMES["regression"], "knn"),
}
HEADLINE: Mapping[Task, str] = {"classification": "logistic", "regression": "ridge", "segmentation": "decoder"}
"""The adapter whose numbers are compared, declared before any is known."""
_ROWS = 16384


@dataclass(frozen=True, eq=False)
class Fitted:
    """A light model that has learned."""

    adapter: str
    task: Task
    present: np.ndarray
    """int64 (K,): the classes in the training labels, rising; empty for regression."""
    classes: int
    """Of the task; 0 for regression."""
    model: Model
    chosen: dict[str, float]
    """Hyperparameters that inner validation on the training labels chose."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Rows, float32 (m, D), NaN for missing values -> classes, int64 (m,), or values, float64 (m,)."""
        nothing = np.empty(0, np.float64 if self.task == "regression" else np.int64)
        found = np.concatenate([nothing, *(self.model.predict(part) for part in _parts(x))])
        return found if self.task == "regression" else self.present[found]

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        """Return float32 (m, classes): 0 for classes that were not in the training labels; None for regression."""
        if self.task == "regression":
            return None
        found = np.zeros((len(x), self.classes), np.float32)
        for start, part in zip(range(0, len(x), _ROWS), _parts(x), strict=True):
            found[start : start + _ROWS, self.present] = self.model.probabilities(part)
        return found


def fit(
    adapter: str,
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    seed: int,
    threads: int = 1,
    fixed: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit `adapter` on rows float32 (n, D), NaN for missing values, with their labels.

    `y`: class numbers below `classes`, int64 (n,), or values, float64 (n,). Missing values become the mean of the
    rows, which also set the scale of the features. Hyperparameters are chosen by inner validation that leaves
    `groups`, int64 (n,), whole, unless `fixed` (knn: `k`; ridge: `penalty`; logistic: `c`). Labels of one class or
    value give a constant.
    """
    if adapter not in ALLOWED.get(task, ()):
        known = ", ".join(ALLOWED.get(task, ()))
        raise UsageError(f"{adapter} is no adapter for {task}. There are: {known}.")
    check_packages(f"The adapter {adapter}")
    x = np.ascontiguousarray(x, np.float32)
    if task == "regression":
        training = Training(task, x, y.astype(np.float64), groups, 0, seed, threads)
        model, chosen = _fit(adapter if np.ptp(training.y) > 0 else "constant", training, fixed or {})
        return Fitted(adapter, task, np.empty(0, np.int64), 0, model, chosen)
    present, numbers = np.unique(y, return_inverse=True)
    training = Training(task, x, numbers.astype(np.int64), groups, len(present), seed, threads)
    model, chosen = _fit(adapter if len(present) > 1 else "constant", training, fixed or {})
    return Fitted(adapter, task, present.astype(np.int64), classes, model, chosen)


def _fit(adapter: str, training: Training, fixed: Mapping[str, Any]) -> tuple[Model, dict[str, float]]:
    if adapter == "constant":
        return Constant.fit(training), {}
    if adapter == "knn":
        return Neighbours.fit(training, **fixed)
    if adapter == "ridge":
        return Ridge.fit(training, **fixed)
    if adapter == "logistic":
        return Logistic.fit(training, **fixed)
    if adapter == "mlp":
        return Perceptron.fit(training)
    return Forest.fit(training)


def _parts(x: np.ndarray) -> list[np.ndarray]:
    """Cut rows into parts that models take at once."""
    return [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]
