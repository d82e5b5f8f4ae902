"""Ordinary change: what becomes of land from one window to the next, nothing having happened, learnt from the area.

Rain, sowing and cutting move all embeddings, those of woods little, those of fields far, and always in ways that land
which looked alike shares. So a linear map, fitted to the area, foretells a pixel's embedding after by the one before
(the "chronochrome" of Schaum and Stocker 1997), and what tells change is how far it is from that. How far is ordinary
differs between kinds of land. Of each the lower part of the distances, where nothing that has changed can be, tells the
distribution of the whole: an empirical null (Efron 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tessera_cli.embeddings.angles import unit
from tessera_cli.inference.uncertainty import cosine_distance

RIDGE = 640
"""Over the pixels of the area and squared, the ridge of the map, of the sum of all squares: a small area has few
fields, whose own ways a map would follow; the larger the ridge, the more land is taken to stay as it is. Measured on
simulated areas of 1 to 40 km2."""
ROUNDS, FITTED = 3, 0.9
"""Times that the map is fitted, after the first to the share of the pixels that is nearest to it."""
LOW, HIGH, STEPS = 0.2, 0.85, 40
"""Quantiles that distributions are fitted to: least, largest and number. Above HIGH many may have changed, and what is
below LOW says little of the other end."""
UNCHANGED = 0.9
"""Share of any kind of land that is taken to be unchanged at least."""
FEWEST = 100
"""Pixels of a kind of land."""
PIXELS_PER_KIND, MOST_KINDS = 500, 32
NEAREST = 1e-4
"""Cosine distances below are taken for this: codes of 8 bits do not tell less."""
NARROWEST = 0.1
"""The least spread of a kind of land, of logarithms."""
FEW_STEPS, USUAL_SPREAD = 8, 0.8
"""With fewer quantiles above NEAREST, a kind is taken to lie there, and to have this spread, which is usual."""
_ROWS = 1 << 13
"""Pixels that are scored at a time."""


class Scores(NamedTuple):
    """What is told of N pixels."""

    residual: np.ndarray
    """float64 (N,): cosine distance from the embedding that was to be expected."""
    z: np.ndarray
    """float64 (N,): how far that is beyond the ordinary, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Ordinary:
    """Ordinary change between two windows, K kinds of land, as they looked in the first window."""

    middle: np.ndarray
    shift: np.ndarray
    """float64 (R,): mean embedding before, of length 1, and mean difference to those after."""
    slope: np.ndarray
    """float64 (R, R): what is to be expected after is `before + shift + (before - middle) @ slope`."""
    centres: np.ndarray
    """float32 (K, R): what pixels of a kind look like before, means of unit vectors."""
    usual: np.ndarray
    """float64 (K,): median distance from what is to be expected."""
    mean: np.ndarray
    spread: np.ndarray
    """float64 (K,): of the logarithm of that distance, where nothing has changed."""
    unchanged: np.ndarray
    """float64 (K,): share of a kind that is unchanged, as far as the fit can tell."""

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray, *, pixels: int | None = None, seed: int = 0) -> Ordinary:
        """Learn it from a sample of an area.

        Args:
            before: Embeddings in the first window, float (N, R), N >= 1.
            after: Those in the second.
            pixels: How many the area has; None: they are all here.
            seed: Of the kinds of land.
        """
        one, other = unit(before), unit(after)
        kept = np.ones(len(one), bool)
        for _ in range(ROUNDS):
            middle, shift, slope = _linear(one[kept], other[kept], (RIDGE / (pixels or len(one))) ** 2)
            residual = _residual(one + shift + (one - middle) @ slope, other)
            kept = residual <= np.quantile(residual, FITTED)
        kind, centres = _kinds(one, seed)
        count, logs = len(centres), np.log(residual)
        usual = np.array([np.median(residual[kind == k]) for k in range(count)])
        mean, spread, unchanged = np.array([_fit(logs[kind == k]) for k in range(count)]).T
        return cls(middle, shift, slope, centres, usual, mean, spread, unchanged)

    def scores(self, before: np.ndarray, after: np.ndarray) -> Scores:
        """Score any pixels, embeddings float (N, R) each; `z` is nearly normal where nothing has happened."""
        residual, z = np.empty((2, len(before)))
        for start in range(0, len(before), _ROWS):
            part = slice(start, start + _ROWS)
            one = unit(before[part])
            expected = one + self.shift + (one - self.middle) @ self.slope
            residual[part] = _residual(expected, unit(after[part]))
            kind = _nearest(one.astype(np.float32), self.centres)
            z[part] = (np.log(residual[part]) - self.mean[kind]) / self.spread[kind]
        return Scores(residual, z)


def _linear(one: np.ndarray, other: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean of `one` and of the difference, (R,) each, and the slope of the difference on `one`, (R, R).

    A ridge regression: the larger `ridge`, the more of it is that land stays as it is.
    """
    difference = other - one
    middle, shift = one.mean(axis=0), difference.mean(axis=0)
    squares = (one - middle).T @ (one - middle)
    added = max(ridge * float(np.trace(squares)), 1e-12)
    slope = np.linalg.solve(squares + added * np.eye(len(squares)), (one - middle).T @ (difference - shift))
    return middle, shift, slope


def _residual(expected: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.nan_to_num(cosine_distance(expected, after)).clip(NEAREST)


def _kinds(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of each row, int64 (N,), and the centres, float32 (K, R), by k-means.

    Kinds of fewer than FEWEST pixels go over to the nearest others.
    """
    from sklearn.cluster import KMeans

    wanted = int(np.clip(len(vectors) // PIXELS_PER_KIND, 1, MOST_KINDS))
    found = KMeans(wanted, n_init=1, random_state=seed % 2**32).fit(vectors.astype(np.float32))
    pixels = np.bincount(found.labels_, minlength=wanted)
    kept = pixels >= min(FEWEST, pixels.max())
    centres = found.cluster_centers_[kept].astype(np.float32)
    return _nearest(vectors.astype(np.float32), centres), centres


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((vectors @ centres.T - (centres * centres).sum(axis=1) / 2).argmax(axis=1))


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean and standard deviation of a normal distribution, and the share of all values that are of it.

    They are fitted to the lower quantiles; the rest of the values is taken to lie above HIGH.
    """
    from scipy.special import ndtri

    quantiles = np.linspace(LOW, HIGH, STEPS)
    found = np.quantile(values, quantiles)
    told = found > np.log(NEAREST) + 1e-6  # what is taken for it tells nothing of the spread
    if told.sum() < FEW_STEPS:
        return float(np.log(NEAREST)), USUAL_SPREAD, 1.0
    quantiles, found = quantiles[told], found[told]
    least, best = np.inf, (float(found.mean()), NARROWEST, 1.0)
    for share in np.linspace(UNCHANGED, 1, 6):
        normal = ndtri(quantiles / share)
        spread, mean = np.polyfit(normal, found, 1)
        misfit = float((((mean + spread * normal - found) / max(spread, NARROWEST)) ** 2).sum())
        if misfit < least:
            least, best = misfit, (float(mean), max(float(spread), NARROWEST), float(share))
    return best
