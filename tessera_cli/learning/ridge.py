"""Ridge regression, in closed form for all penalties at once; to one-hot classes, in which classes count equally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.learning.inner import inner_folds
from tessera_cli.learning.model import Training, one_hot
from tessera_cli.learning.scale import Scale

PENALTIES = 10.0 ** np.arange(-5, 3.5, 0.5)
"""Added to the variance (1) of every feature, so that they mean the same for any number of rows."""
DEFAULT = 0.1
"""Penalty where inner validation is impossible."""


@dataclass(frozen=True, eq=False)
class Ridge:
    scale: Scale
    coefficients: np.ndarray
    """float64 (D, K) on standardised features; K = 1 for regression."""
    intercepts: np.ndarray
    """float64 (K,)"""
    regression: bool

    @classmethod
    def fit(cls, training: Training, penalty: float | None = None) -> tuple[Ridge, dict[str, float]]:
        """Fit; `penalty` None: of `PENALTIES` by inner validation (weighted squared error)."""
        chosen = {} if penalty is not None else {"penalty": _chosen(training)}
        penalties = np.array([penalty if penalty is not None else chosen["penalty"]])
        scale, paths, intercepts = _path(training, penalties)
        return cls(scale, paths[0], intercepts, training.task == "regression"), chosen

    def predict(self, x: np.ndarray) -> np.ndarray:
        scores = self._scores(x)
        return scores[:, 0] if self.regression else scores.argmax(axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        """Return the regressed classes, which sum to 1, without what is below 0: an order, not a calibrated chance."""
        if self.regression:
            return None
        scores = np.maximum(self._scores(x), 0)
        return scores / scores.sum(axis=1, keepdims=True)

    def _scores(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.scale.standardised(x) @ self.coefficients + self.intercepts)


def _path(training: Training, penalties: np.ndarray) -> tuple[Scale, np.ndarray, np.ndarray]:
    """Return the scale, the coefficients float64 (P, D, K) for each penalty, and the intercepts (K,) of all."""
    weights, targets = _weights(training), _targets(training)
    scale = Scale.of(training.x, weights)
    root = np.sqrt(weights)[:, None]
    intercepts = weights @ targets  # standardised features have the weighted mean 0
    x, y = root * scale.standardised(training.x), root * (targets - intercepts)
    if len(x) < x.shape[1]:  # fewer rows than features: the same solution, found among the rows
        values, vectors = np.linalg.eigh(x @ x.T)
        basis, projected = x.T @ vectors, vectors.T @ y
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        basis, projected = vectors, vectors.T @ (x.T @ y)
    shrunk = projected[None] / (np.maximum(values, 0)[None, :, None] + penalties[:, None, None])
    return scale, basis @ shrunk, intercepts


def _chosen(training: Training) -> float:
    inner = inner_folds(training.y, training.groups, task=training.task, seed=training.seed)
    if inner is None:
        return DEFAULT
    weights, targets = _weights(training), _targets(training)
    losses = np.zeros(len(PENALTIES))
    for known, held in inner.rounds():
        scale, path, intercepts = _path(training.take(known), PENALTIES)
        shown = scale.standardised(training.x[held])
        errors = shown[None] @ path + intercepts - targets[held]
        losses += ((errors**2).sum(axis=2) * weights[held]).sum(axis=1)
    return float(PENALTIES[losses.argmin()])


def _weights(training: Training) -> np.ndarray:
    """Return weights float64 (n,) of sum 1 by which classes that occur count equally."""
    if training.task == "regression":
        return np.full(len(training.y), 1 / len(training.y))
    counts = np.bincount(training.y)
    return (1 / np.maximum(counts, 1) / (counts > 0).sum())[training.y]


def _targets(training: Training) -> np.ndarray:
    if training.task == "regression":
        return training.y[:, None].astype(np.float64)
    return one_hot(training.y, training.classes)
