"""What needs no features: the most frequent class, or the mean. Whatever is not better has learned nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.learning.model import Training


@dataclass(frozen=True, eq=False)
class Constant:
    frequencies: np.ndarray | None
    """float64 (K,), shares of the classes; None for regression."""
    mean: float

    @classmethod
    def fit(cls, training: Training) -> Constant:
        if training.task == "regression":
            return cls(None, float(training.y.mean()))
        return cls(np.bincount(training.y, minlength=training.classes) / len(training.y), 0.0)

    def predict(self, x: np.ndarray) -> np.ndarray:
        if self.frequencies is None:
            return np.full(len(x), self.mean)
        return np.full(len(x), int(self.frequencies.argmax()), np.int64)  # of equally frequent ones the first

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        return None if self.frequencies is None else np.tile(self.frequencies, (len(x), 1))
