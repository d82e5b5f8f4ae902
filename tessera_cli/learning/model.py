"""What every adapter gives: a model of features, and the hyperparameters that were chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tessera_cli.learning.task import Task


class Model(Protocol):
    """A light model, fitted. K counts the classes that were in its training labels."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return classes 0..K-1, int64 (m,), or values, float64 (m,), for raw rows, float32 (m, D)."""
        ...

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        """Return (m, K), rows of sum 1; None for values."""
        ...


@dataclass(frozen=True, eq=False)
class Training:
    """Labelled rows to fit one model on."""

    task: Task
    x: np.ndarray
    """float32 (n, D), NaN where a value is missing."""
    y: np.ndarray
    """int64 (n,), classes 0..K-1; or float64 (n,)."""
    groups: np.ndarray
    """int64 (n,): samples of one group are never on both sides of inner validation."""
    classes: int
    """K; 0 for regression."""
    seed: int
    threads: int

    def take(self, numbers: np.ndarray) -> Training:
        """Return these rows; classes keep their numbers, so some may be missing."""
        return replace(self, x=self.x[numbers], y=self.y[numbers], groups=self.groups[numbers])


def one_hot(y: np.ndarray, classes: int) -> np.ndarray:
    """Classes int64 (n,) -> float64 (n, K)."""
    return np.eye(classes)[y]
