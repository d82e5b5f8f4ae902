"""What is said of each pixel: class and confidence, or value and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.evaluation.mapping.legend import Legend
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.adapters import Fitted, fit
from tessera_cli.learning.forest import Forest
from tessera_cli.outputs.layers import Layer

ROWS = 32768
"""Pixels that are predicted at a time."""


@dataclass(frozen=True, eq=False)
class MapModel:
    """A light model fitted on all labels, and how a map of it looks."""

    fitted: Fitted
    legend: Legend | None
    """None for values."""

    @classmethod
    def fit(cls, samples: LabelledSamples, adapter: str, *, seed: int, threads: int) -> MapModel:
        """Fit on all samples, by their first set of features."""
        fitted = fit(
            adapter,
            samples.task,
            samples.features[0].values,
            samples.targets,
            samples.groups,
            classes=len(samples.classes),
            seed=seed,
            threads=threads,
        )
        return cls(fitted, None if samples.task == "regression" else Legend(samples.classes))

    @property
    def layer(self) -> Layer:
        """Return type, nodata value and bands of the map."""
        if self.legend is not None:
            return Layer("map", "map", "Map", self.legend.dtype, 0, ("data",), ("class", "confidence"))
        names = ("value", "spread") if self._trees else ("value",)
        return Layer("map", "map", "Map", "float32", float("nan"), ("data",), names)

    @property
    def _trees(self) -> list[Any]:
        model = self.fitted.model
        return list(model.fitted.estimators_) if isinstance(model, Forest) and self.legend is None else []

    def bands(self, values: np.ndarray) -> np.ndarray:
        """Return the bands of the map, (2 or 1, h, w), of embeddings float32 (R, h, w), NaN where there is none.

        Confidence is the probability that the model gives to the class, in percent, at least 1. Spread is the standard
        deviation of the trees of a forest.
        """
        layer = self.layer
        out = np.full((len(layer.names), *values.shape[1:]), layer.nodata, layer.dtype)
        there = ~np.isnan(values[0])
        vectors = np.ascontiguousarray(values[:, there].T)
        if len(vectors):
            parts = [self._told(vectors[start : start + ROWS]) for start in range(0, len(vectors), ROWS)]
            out[:, there] = np.concatenate(parts, axis=1)
        return out

    def _told(self, vectors: np.ndarray) -> np.ndarray:
        """Return the bands of rows (N, R): (bands, N)."""
        if self.legend is not None:
            probabilities = self.fitted.probabilities(vectors)
            assert probabilities is not None
            found = probabilities.argmax(axis=1)
            confidence = np.rint(100 * probabilities[np.arange(len(found)), found]).clip(1, 100)
            return np.stack([self.legend.codes(found), confidence.astype(self.legend.dtype)])
        value = self.fitted.predict(vectors).astype(np.float32)
        if not self._trees:
            return value[None]
        assert isinstance(self.fitted.model, Forest)
        filled = self.fitted.model.scale.filled(vectors)
        spread = np.std([tree.predict(filled) for tree in self._trees], axis=0)
        return np.stack([value, spread.astype(np.float32)])
