"""Multinomial logistic regression on standardised features; classes count by their frequency."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.learning.inner import inner_folds
from tessera_cli.learning.model import Training
from tessera_cli.learning.scale import Scale
from tessera_cli.learning.threads import ignored, limited

logger = logging.getLogger(__name__)

CHOICES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""C, the inverse of the penalty, as scikit-learn defines it."""
DEFAULT = 0.1
"""C where inner validation is impossible."""
_FOLDS = 3
_ITERATIONS, _TOLERANCE = 300, 1e-4
_ROUGH_ITERATIONS, _ROUGH_TOLERANCE = 100, 1e-2
"""For the choice of C."""
_LEAST = 1e-6
"""Least probability in a loss, so that classes that a round has not seen cost the same for every C."""


@dataclass(frozen=True, eq=False)
class Logistic:
    scale: Scale
    fitted: Any
    """sklearn.linear_model.LogisticRegression"""

    @classmethod
    def fit(cls, training: Training, c: float | None = None) -> tuple[Logistic, dict[str, float]]:
        """Fit; `c` None: of `CHOICES` by inner validation (log loss)."""
        with limited(training.threads):
            chosen = {} if c is not None else {"C": _chosen(training)}
            scale = Scale.of(training.x)
            model = _model(_ITERATIONS, _TOLERANCE)
            _fit(model, scale.standardised(training.x), training.y, c if c is not None else chosen["C"])
            return cls(scale, model), chosen

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.probabilities(x).argmax(axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.fitted.predict_proba(self.scale.standardised(x)))


def _model(iterations: int, tolerance: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=iterations, tol=tolerance, warm_start=True)


def _fit(model: Any, x: np.ndarray, y: np.ndarray, c: float) -> None:
    from sklearn.exceptions import ConvergenceWarning

    model.set_params(C=c)
    with ignored(ConvergenceWarning):
        model.fit(x, y)
    if model.n_iter_.max() >= model.max_iter:
        logger.debug("logistic regression with C = %g was stopped after %d iterations", c, model.max_iter)


def _chosen(training: Training) -> float:
    inner = inner_folds(training.y, training.groups, task=training.task, seed=training.seed, folds=_FOLDS)
    if inner is None:
        return DEFAULT
    rounds = [_Round.of(training, *each) for each in inner.rounds()]
    best, least = DEFAULT, np.inf
    for c in CHOICES:  # from the smallest on, each beginning where the last one ended
        loss = sum(each.loss(c) for each in rounds)
        if loss < least:
            best, least = c, loss
        elif c > 10.5 * best:
            break  # twice not better: larger ones are slow and fit the training labels only
    return best


@dataclass(frozen=True, eq=False)
class _Round:
    """What one round of inner validation learns from and is validated on, on the scale of the former."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    shown: np.ndarray
    truth: np.ndarray
    classes: int

    @classmethod
    def of(cls, training: Training, known: np.ndarray, held: np.ndarray) -> _Round:
        scale = Scale.of(training.x[known])
        x, shown = scale.standardised(training.x[known]), scale.standardised(training.x[held])
        model = _model(_ROUGH_ITERATIONS, _ROUGH_TOLERANCE)
        return cls(model, x, training.y[known], shown, training.y[held], training.classes)

    def loss(self, c: float) -> float:
        """Return the log loss, summed over what is held out."""
        if len(np.unique(self.y)) < 2:
            return 0.0
        _fit(self.model, self.x, self.y, c)
        chances = np.zeros((len(self.shown), self.classes))
        chances[:, self.model.classes_] = self.model.predict_proba(self.shown)
        return float(-np.log(np.maximum(chances[np.arange(len(self.truth)), self.truth], _LEAST)).sum())
