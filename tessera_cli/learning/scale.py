"""Features on one scale: missing values replaced, every column of mean 0 and standard deviation 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FLAT = 1e-9
"""A column whose standard deviation is below this share of its largest number is constant."""
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Scale:
    """What training rows say about D columns. Test rows have no part in it."""

    mean: np.ndarray
    """float64 (D,): of the values that are there; 0 for columns without any."""
    spread: np.ndarray
    """float64 (D,): standard deviation, missing values counted as the mean; infinite for constant columns."""

    @classmethod
    def of(cls, x: np.ndarray, weights: np.ndarray | None = None) -> Scale:
        """Measure training rows, float32 (n, D) with NaN for missing values; `weights`, float64 (n,), of rows."""
        weights = np.ones(len(x)) if weights is None else weights
        dimensions = x.shape[1]
        total, sums, largest = np.zeros(dimensions), np.zeros(dimensions), np.zeros(dimensions)
        for rows in _parts(x):
            there = ~np.isnan(x[rows])
            values = np.where(there, x[rows], 0).astype(np.float64)
            total += weights[rows] @ there
            sums += weights[rows] @ values
            largest = np.maximum(largest, np.abs(values).max(axis=0, initial=0))
        mean = sums / np.where(total > 0, total, 1)
        squares = np.zeros(dimensions)
        for rows in _parts(x):
            squares += weights[rows] @ np.nan_to_num(x[rows] - mean) ** 2
        spread = np.sqrt(squares / weights.sum())
        spread[spread <= _FLAT * largest] = np.inf
        return cls(mean, spread)

    def filled(self, x: np.ndarray) -> np.ndarray:
        """Return the rows with means for missing values, float32 (N, D)."""
        return np.where(np.isnan(x), self.mean.astype(np.float32), x)

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Return the rows on one scale, float32 (N, D); constant columns are 0."""
        out = np.empty(x.shape, np.float32)
        for rows in _parts(x):
            out[rows] = np.nan_to_num((x[rows] - self.mean) / self.spread)
        return out


def _parts(x: np.ndarray) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, len(x), _ROWS)]
