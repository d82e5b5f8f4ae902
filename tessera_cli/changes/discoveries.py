"""Which of many pixels have changed, so that of those which are named only a small share has not.

The procedure of Benjamini and Hochberg (1995) over all pixels of an area, of which a tile is in memory at a time:
p-values are counted in narrow bins.
"""

from __future__ import annotations

import numpy as np

_LEAST = -300.0
"""Logarithm to base 10 of the smallest p-value that is told from 0."""
_BINS_PER_TENTH = 20
"""Bins are so narrow that this is the procedure at a rate that is at most 1.2 % lower."""


class Discoveries:
    """Counts of p-values."""

    def __init__(self) -> None:
        size = int(-_LEAST * 10 * _BINS_PER_TENTH)
        self._edges = 10 ** np.linspace(_LEAST, 0, size + 1)
        self._counts = np.zeros(size + 1, np.int64)

    def add(self, p: np.ndarray) -> None:
        """Count p-values, 0..1, any shape; NaN are no tests."""
        known = p[~np.isnan(p)]
        self._counts += np.bincount(np.searchsorted(self._edges, known), minlength=len(self._edges))

    @property
    def tests(self) -> int:
        return int(self._counts.sum())

    def threshold(self, rate: float) -> float:
        """Return the largest p-value that is a change at this false-discovery rate, 0..1; 0.0 where none is."""
        at_most = np.cumsum(self._counts)
        passed = np.flatnonzero((self._edges * self.tests <= rate * at_most) & (at_most > 0))
        return float(self._edges[passed[-1]]) if len(passed) else 0.0
