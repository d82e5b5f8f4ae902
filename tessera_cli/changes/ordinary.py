"""Ordinary change: how far embeddings of like land move from one window to the next, nothing having happened.

Dates account for a part of it, which each pixel's uncertainty tells; rain, sowing and cutting for most, and that part
differs between meadows, woods and water. So it is learnt from the area itself, of which most has not changed: pixels
that looked alike before are taken together, and the lower part of their distances, where nothing that has changed can
be, tells the distribution of the whole: an empirical null (Efron 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOW, HIGH, STEPS = 0.02, 0.85, 40
"""Quantiles that the distribution is fitted to: least, largest and number. Up to HIGH few are of what has changed."""
UNCHANGED = 0.9
"""Share of any kind of land that is taken to be unchanged at least."""
POWER = 1 / 3
"""A cosine distance is a sum of squares, whose cube root is nearly normal (Wilson and Hilferty 1931)."""
FEWEST = 100
"""Pixels of a kind of land."""
PIXELS_PER_KIND, MOST_KINDS = 500, 32
_NARROWEST = 1e-6
"""The least spread of a kind of land."""


@dataclass(frozen=True, eq=False)
class Ordinary:
    """Ordinary change between two windows, by kinds of land: K of them, as they looked in the first window."""

    centres: np.ndarray
    """float32 (K, R): what pixels of a kind look like, unit vectors or means of them."""
    usual: np.ndarray
    """float64 (K,): cosine distance that comes with the years, at the median."""
    mean: np.ndarray
    """float64 (K,): of the cube root of a distance over what is usual and what dates account for."""
    spread: np.ndarray
    """float64 (K,): its standard deviation."""
    unchanged: np.ndarray
    """float64 (K,): share of a kind that is unchanged, as far as the fit can tell."""
    noise: float
    """What dates account for where that is not known: the median of where it is, else 0."""

    @classmethod
    def of(cls, before: np.ndarray, distance: np.ndarray, noise: np.ndarray, *, seed: int = 0) -> Ordinary:
        """Learn it from a sample of the area.

        Args:
            before: Embeddings in the first window, float (N, R), N >= 1.
            distance: Cosine distance to those in the second, float (N,).
            noise: Sum of the uncertainties of both, float (N,): NaN where they are not known.
            seed: Of the kinds of land.
        """
        known = noise[~np.isnan(noise)]
        typical = float(np.median(known)) if len(known) else 0.0
        noise = np.where(np.isnan(noise), typical, noise)
        kind, centres = _kinds(unit(before), seed)
        count = len(centres)
        usual = np.array([_usual(distance[kind == k], noise[kind == k]) for k in range(count)])
        root = (distance.clip(0) / (noise + usual[kind])) ** POWER
        mean, spread, unchanged = np.array([_fit(root[kind == k]) for k in range(count)]).T
        return cls(centres, usual, mean, spread, unchanged, typical)

    def scores(self, before: np.ndarray, distance: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return how far beyond the ordinary pixels have changed, in standard deviations: float64 (N,).

        Nearly normal where nothing has happened. Arguments as those of `of`, of any pixels.
        """
        kind, noise = self.kinds(before), np.where(np.isnan(noise), self.noise, noise)
        root = (distance.clip(0) / (noise + self.usual[kind])) ** POWER
        return np.asarray((root - self.mean[kind]) / self.spread[kind])

    def kinds(self, before: np.ndarray) -> np.ndarray:
        """Return which kind of land pixels are, int64 (N,), by the nearest centre."""
        centres = self.centres.astype(np.float32)
        nearness = unit(before).astype(np.float32) @ centres.T - (centres * centres).sum(axis=1) / 2
        return np.asarray(nearness.argmax(axis=1))


def _usual(distance: np.ndarray, noise: np.ndarray) -> float:
    """Return the median distance beyond noise, at least a tenth of the distance: uncertainties are upper estimates."""
    return max(float(np.median(distance - noise)), float(np.median(distance)) / 10, 1e-9)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows (N, R) of length 1; those of length 0 stay."""
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


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
    found_again = vectors.astype(np.float32) @ centres.T - (centres * centres).sum(axis=1) / 2
    return found_again.argmax(axis=1), centres


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean and standard deviation of a normal distribution, and the share of all values that are of it.

    They are fitted to the lower quantiles; the rest of the values is taken to lie above HIGH.
    """
    from scipy.special import ndtri

    quantiles = np.linspace(LOW, HIGH, STEPS)
    found = np.quantile(values, quantiles)
    least, best = np.inf, (float(found.mean()), _NARROWEST, 1.0)
    for share in np.linspace(UNCHANGED, 1, 6):
        normal = ndtri(quantiles / share)
        spread, mean = np.polyfit(normal, found, 1)
        misfit = float((((mean + spread * normal - found) / max(spread, _NARROWEST)) ** 2).sum())
        if misfit < least:
            least, best = misfit, (float(mean), max(float(spread), _NARROWEST), float(share))
    return best
