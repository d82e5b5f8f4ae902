"""Random forests. Their settings are fixed: more trees or other leaves change little, and no choice is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.learning.model import Training
from tessera_cli.learning.scale import Scale

TREES = 100
ROWS = 4000
"""Training rows that a tree draws at most: of more, trees become slow, and more alike."""
SHARE, LEAF = 1 / 3, 5
"""Of regression: the share of the features that each split chooses from, and the least number of rows in a leaf, as The
Elements of Statistical Learning (Hastie, Tibshirani and Friedman), 15.3, recommend. Of classification: the square root
of the number of features, and 1, which are scikit-learn's."""
SMALL = 250_000
"""Values, rows times features, up to which splits of a regression choose from all features, scikit-learn's default.
With few labels it errs less (biomass of a simulated landscape from 128 dimensions, 100 samples: 10.4 against 13.3); of
many it would take three times as long and err as much (1,500 samples: 6.5 against 6.6)."""


@dataclass(frozen=True, eq=False)
class Forest:
    scale: Scale
    fitted: Any
    """sklearn.ensemble.RandomForestClassifier or RandomForestRegressor"""
    regression: bool

    @classmethod
    def fit(cls, training: Training) -> tuple[Forest, dict[str, float]]:
        """Fit `TREES` trees; how many threads do so makes no difference."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        regression, scale = training.task == "regression", Scale.of(training.x)
        common = {
            "n_estimators": TREES,
            "max_samples": min(ROWS, len(training.y)),
            "random_state": training.seed % 2**32,
            "n_jobs": training.threads,
        }
        share = 1.0 if training.x.size <= SMALL else SHARE
        model = (
            RandomForestRegressor(max_features=share, min_samples_leaf=LEAF, **common)
            if regression
            else RandomForestClassifier(max_features="sqrt", **common)
        )
        model.fit(scale.filled(training.x), training.y)
        model.set_params(n_jobs=1)  # threads would add up the trees in the order in which they finish
        return cls(scale, model, regression), {}

    def predict(self, x: np.ndarray) -> np.ndarray:
        if self.regression:
            return np.asarray(self.fitted.predict(self.scale.filled(x)))
        return self.probabilities(x).argmax(axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.fitted.predict_proba(self.scale.filled(x)))
