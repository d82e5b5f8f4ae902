"""How far labels resemble their neighbours: the range of their empirical semivariogram.

The semivariance of a distance is half the mean squared difference of values so far apart (Matheron 1963); of classes
the sum over their indicators, which is the share of pairs that differ (Journel 1983). The range is where a curve that
never falls, fitted to it, reaches 95 % of the sill, the variance of all labels: the practical range of Chilès and
Delfiner, Geostatistics, 2.5. Blocks as wide keep test samples apart from what they resemble (Roberts et al. 2017,
Ecography 40, 913).
"""

from __future__ import annotations

import numpy as np

from tessera_cli.learning.ground import positions, squares

SILL = 0.95
_MOST = 1500
"""Places all of whose pairs are looked at; of more, as many at random."""
_NEIGHBOURS = 8
"""Nearest neighbours of each of at most `_ANCHORS` places that are looked at besides."""
_ANCHORS = 10_000
_LAGS = 20
_PAIRS = 30
"""Least number of pairs that say something of a distance."""
_BLOCKS_PER_FOLD = 4
_SMALLEST = 20.0


def label_range(lonlat: np.ndarray, values: np.ndarray, *, classes: bool, seed: int = 0) -> float:
    """Return the range in metres of labels at places, float64 (N, 2), all known; values (N,): `classes` or numbers.

    Labels that resemble no neighbour have the shortest distance there is, labels that change throughout the longest
    one looked at: half the extent.
    """
    first, second, metres = _pairs(positions(lonlat), seed)
    metres, first, second = (each[metres > 0] for each in (metres, first, second))
    if not len(metres):
        return _SMALLEST
    low, high = float(metres.min()), float(metres.max()) / 2
    if classes:
        half_squares = (values[first] != values[second]).astype(np.float64)
        shares = np.unique(values, return_counts=True)[1] / len(values)
        sill = 1 - float((shares**2).sum())
    else:
        half_squares, sill = (values[first] - values[second]) ** 2 / 2, float(np.var(values))
    if sill <= 0 or high <= low:
        return max(low, _SMALLEST)
    edges = np.geomspace(low, high * (1 + 1e-9), _LAGS + 1)
    lag = np.searchsorted(edges, metres, "right") - 1
    inside = (lag >= 0) & (lag < _LAGS)
    counts = np.bincount(lag[inside], minlength=_LAGS)
    known = counts >= min(_PAIRS, counts.max())
    means = np.bincount(lag[inside], half_squares[inside], _LAGS)[known] / counts[known]
    distances = np.bincount(lag[inside], metres[inside], _LAGS)[known] / counts[known]
    return max(_reaches(distances, means, counts[known], SILL * sill), _SMALLEST)


def _reaches(distances: np.ndarray, means: np.ndarray, counts: np.ndarray, level: float) -> float:
    """Return the distance at which the rising fit reaches a level; the longest one if it does not."""
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression().fit(distances, means, sample_weight=counts).predict(distances)
    above = np.flatnonzero(curve >= level)
    if not len(above):
        return float(distances[-1])
    at = above[0]
    if not at:
        return float(distances[0])
    share = (level - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(distances[at - 1] + share * (distances[at] - distances[at - 1]))


def _pairs(xyz: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of places, int64 (P,) each, and their distances: of some places all, of most those of neighbours."""
    from scipy.spatial import cKDTree

    order = np.random.default_rng(seed).permutation(len(xyz))
    some = order[:_MOST]
    a, b = np.triu_indices(len(some), 1)
    first, second = [some[a]], [some[b]]
    neighbours = min(_NEIGHBOURS, len(xyz) - 1)
    if len(xyz) > _MOST and neighbours:
        anchors = order[:_ANCHORS]
        near = cKDTree(xyz).query(xyz[anchors], k=neighbours + 1)[1]
        first.append(np.repeat(anchors, neighbours + 1))
        second.append(near.ravel())
    pair = np.concatenate(first), np.concatenate(second)
    return *pair, np.linalg.norm(xyz[pair[0]] - xyz[pair[1]], axis=1)


def block_size(lonlat: np.ndarray, values: np.ndarray, *, classes: bool, folds: int, seed: int = 0) -> float:
    """Return the side of blocks in metres: the range of labels, less where fewer than 4 blocks per fold hold any.

    `lonlat` (G, 2) and `values` (G,) of groups, all places known.
    """
    size = label_range(lonlat, values, classes=classes, seed=seed)
    wanted = min(_BLOCKS_PER_FOLD * folds, len(np.unique(lonlat, axis=0)))
    while size > _SMALLEST and len(np.unique(squares(lonlat, size))) < wanted:
        size *= 0.9
    digits = 1 - int(np.floor(np.log10(size)))
    return float(round(size, digits))
