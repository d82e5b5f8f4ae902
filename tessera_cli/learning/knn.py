"""The k nearest neighbours: Euclidean distance between standardised features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.learning.inner import inner_folds
from tessera_cli.learning.model import Training
from tessera_cli.learning.scale import Scale
from tessera_cli.learning.threads import limited

CHOICES = (1, 3, 5, 10, 20)
_LIMIT = 2000
"""Training rows that are asked for to choose k."""
DEFAULT = 1
"""k where inner validation is impossible."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    scale: Scale
    index: Any
    """sklearn.neighbors.NearestNeighbors"""
    y: np.ndarray
    """(n,), of the training rows."""
    classes: int
    """0 for regression."""
    k: int
    threads: int

    @classmethod
    def fit(cls, training: Training, k: int | None = None) -> tuple[Neighbours, dict[str, float]]:
        """Learn the rows by heart; `k` None: of `CHOICES` by inner validation (accuracy, or squared error)."""
        chosen = {} if k is not None else {"k": float(_chosen(training))}
        k = k if k is not None else int(chosen["k"])
        return cls._of(training, min(k, len(training.y))), chosen

    @classmethod
    def _of(cls, training: Training, k: int) -> Neighbours:
        from sklearn.neighbors import NearestNeighbors

        scale = Scale.of(training.x)
        index = NearestNeighbors(algorithm="brute").fit(scale.standardised(training.x))
        return cls(scale, index, training.y, training.classes, k, training.threads)

    def nearest(self, x: np.ndarray, k: int) -> np.ndarray:
        """Return the labels of the k nearest training rows, nearest first, (m, k); of equally near ones the first."""
        with limited(self.threads):
            distances, numbers = self.index.kneighbors(self.scale.standardised(x), n_neighbors=k)
        order = np.lexsort((numbers, distances), axis=1)
        return self.y[np.take_along_axis(numbers, order, axis=1)]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return vote(self.nearest(x, self.k), self.classes)

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        if not self.classes:
            return None
        return _counts(self.nearest(x, self.k), self.classes) / self.k


def vote(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels of neighbours, nearest first, (m, k) -> the most frequent class (m,), or the mean where `classes` is 0.

    Between equally frequent classes the nearest neighbour of any of them decides.
    """
    if not classes:
        return np.asarray(labels.mean(axis=1))
    frequency = np.take_along_axis(_counts(labels, classes), labels, axis=1)
    return labels[np.arange(len(labels)), frequency.argmax(axis=1)]


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Count the neighbours of each class, int64 (m, K)."""
    cells = np.arange(len(labels))[:, None] * classes + labels
    return np.bincount(cells.ravel(), minlength=len(labels) * classes).reshape(len(labels), classes)


def _chosen(training: Training) -> int:
    inner = inner_folds(training.y, training.groups, task=training.task, seed=training.seed, limit=_LIMIT)
    if inner is None:
        return DEFAULT
    losses = np.zeros(len(CHOICES))
    for _, held in inner.rounds():
        # the density of neighbours decides about k: all other rows are known, also those that are never asked for
        known = np.flatnonzero(~np.isin(training.groups, training.groups[held]))
        labels = Neighbours._of(training.take(known), 1).nearest(training.x[held], min(max(CHOICES), len(known)))
        losses += [_loss(labels[:, :k], training.y[held], training.classes) for k in CHOICES]
    return CHOICES[int(losses.argmin())]  # of equally good ones the smallest


def _loss(labels: np.ndarray, truth: np.ndarray, classes: int) -> float:
    predicted = vote(labels, classes)
    return float((predicted != truth).sum() if classes else ((predicted - truth) ** 2).sum())
