"""Short codes of embeddings, for a page: 16 bytes a pixel, whose cosines are nearly those of the whole vectors.

The bytes are coordinates along the principal directions of the area's own embeddings, found without taking their mean
away, since that keeps angles: of all projections to as many numbers this one keeps most of the vectors' squared length
(Eckart and Young 1936). Prefixes, which some models have, keep less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.embeddings.angles import unit

DIRECTIONS = 16
MOST = 127
PAIRS = 1 << 16
STRETCH = (2, 98)
"""Percentiles of a coordinate that become the darkest and the brightest value of a colour."""


@dataclass(frozen=True, eq=False)
class Codes:
    """A projection of embeddings, of R values, to K."""

    axes: np.ndarray
    """float64 (K, R): orthonormal, the one that keeps most first."""
    kept: float
    """Share of the squared length of the sample's unit vectors that they keep."""
    low: np.ndarray
    high: np.ndarray
    """float64 (K,): coordinates of codes of length 1 that are drawn darkest and brightest."""
    difference: tuple[float, float]
    """Mean and 99th percentile of how far cosines of codes are from those of the vectors, of pairs of the sample."""

    @classmethod
    def of(cls, sample: np.ndarray, *, seed: int = 0) -> Codes:
        """Find the axes of a sample of embeddings, float (N, R) with N >= 1."""
        vectors = unit(sample)
        lengths, found = np.linalg.eigh(vectors.T @ vectors)
        axes = found[:, ::-1][:, :DIRECTIONS].T
        axes = axes * np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) < 0, -1, 1)
        total = max(float(lengths.sum()), 1e-12)
        short = unit(quantised(vectors @ axes.T))
        one, other = np.random.default_rng(seed).integers(0, len(vectors), (2, min(PAIRS, len(vectors) ** 2)))
        away = np.abs((short[one] * short[other]).sum(axis=1) - (vectors[one] * vectors[other]).sum(axis=1))
        low, high = np.percentile(short, STRETCH, axis=0)
        told = float(away.mean()), float(np.percentile(away, 99))
        return cls(axes, float(lengths[::-1][: len(axes)].sum() / total), low, high, told)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Return coordinates of embeddings, float (N, R) -> float64 (N, K), of length 1."""
        return unit(vectors @ self.axes.T)

    def encode(self, stored: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
        """Return codes, int8 (K, h, w), all 0 where there is no embedding; arguments as `StoredTile.stored` reads them.

        How large a pixel's scale is plays no part in angles.
        """
        dims, *shape = stored.shape
        values = stored.reshape(dims, -1).astype(np.float32)
        there = ~np.isnan(values[0] if scales is None else scales.reshape(-1))
        found = np.zeros((len(self.axes), len(there)), np.int8)
        found[:, there] = quantised((self.axes.astype(np.float32) @ values[:, there]).T).T
        return found.reshape(-1, *shape)


def quantised(coordinates: np.ndarray) -> np.ndarray:
    """Return the direction of rows (N, K) as int8 (N, K): the largest number of each becomes 127 or -127."""
    most = np.abs(coordinates).max(axis=1, keepdims=True)
    return np.rint(coordinates * (MOST / np.where(most > 0, most, 1))).astype(np.int8)
