"""v1.1 and v2: all of a pixel's observations, padded or thinned to a few fixed lengths (bins).

Sequences of equal length can be encoded together. Which observations are repeated as padding, or which are left out
where there are more than the longest bin, follows from their number alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling.observations import Observations, Sampler
from tessera_cli.sampling.series import Modality, sensor_series
from tessera_cli.sampling.statistics import Statistics

BINS = tuple(range(8, 257, 8))


@functools.lru_cache(maxsize=4096)
def v2_pattern(n: int, bin: int) -> np.ndarray:
    """Return the positions among n valid observations that v2 takes, int64 (bin,), read-only.

    Too few: all of them, then the middles of `bin − n` near-equal runs (or, for n = 1, 2, 3, all of them again and
    again). Too many: evenly spaced, rounded down in float64 as the official code does, which for some n is not the
    exact quotient (n = 295 and 57 others below 2000).
    """
    missing = bin - n
    if missing < 0:
        pattern = np.floor(np.arange(bin) * ((n - 1) / (bin - 1))).astype(np.int64)
        pattern[-1] = n - 1
    elif missing > n:
        pattern = np.arange(bin, dtype=np.int64)
        pattern[n:] = np.arange(missing) % n
    else:
        pattern = np.concatenate([np.arange(n), _middles(n, missing)])
    pattern.flags.writeable = False
    return pattern


@functools.lru_cache(maxsize=4096)
def v1_1_pattern(n: int, bin: int) -> np.ndarray:
    """Return the positions among n valid observations that v1.1 takes, int64 (bin,), read-only, in GRU order.

    Too few: all of them, then evenly spaced ones (rounded half to even), which stay at the end, out of time order. Too
    many: the middles of `bin` near-equal runs.
    """
    missing = bin - n
    if missing < 0:
        pattern = _middles(n, bin)
    else:
        step = (n - 1) / (missing + 1)  # first, in float64: it decides ties as the official code does
        padding = np.rint(np.arange(1, missing + 1) * step).astype(np.int64)
        pattern = np.concatenate([np.arange(n), np.clip(padding, 0, n - 1)])
    pattern.flags.writeable = False
    return pattern


def _middles(n: int, runs: int) -> np.ndarray:
    """Return the middle of each of `runs` near-equal runs of 0..n−1, the first ones longer: int64 (runs,)."""
    if runs == 0:
        return np.empty(0, np.int64)
    lengths = n // runs + (np.arange(runs) < n % runs)
    return np.cumsum(lengths) - lengths + lengths // 2


PATTERNS: dict[str, Callable[[int, int], np.ndarray]] = {"v1.1": v1_1_pattern, "v2": v2_pattern}


@dataclass(frozen=True)
class BucketedSampling:
    """All observations, in sequences of a few lengths (bins)."""

    padding: Literal["v1.1", "v2"]
    """Which observations are repeated or left out: a key of `PATTERNS`."""
    bins: tuple[int, ...] = BINS
    """Ascending."""
    encode_empty: bool = False
    """Whether pixels without any observation get an embedding too, that of two missing sensors (v1.1)."""

    @property
    def repeats(self) -> int:
        return 1

    def bin_of(self, counts: np.ndarray) -> np.ndarray:
        """Return the smallest bin that holds each count (any shape), else the largest; 0 for none. int64.

        Official v1.1 gives a missing sensor the smallest bin full of equal tokens, whose result is that of one token.
        """
        n = np.asarray(counts).astype(np.int64)
        fitting = np.minimum(np.searchsorted(self.bins, n), len(self.bins) - 1)
        return np.where(n > 0, np.array(self.bins, np.int64)[fitting], 0)

    def valid_pixels(self, dpixels: DPixels) -> np.ndarray:
        return np.full(dpixels.requested.shape, True) if self.encode_empty else np.asarray(dpixels.counts.any(axis=0))

    def lengths(self, s2: float, s1: float) -> tuple[int, int]:
        t_s2, t_s1 = self.bin_of(np.ceil([s2, s1])).tolist()
        return t_s2, t_s1

    def sampler(self, dpixels: DPixels, statistics: Statistics, pixels: np.ndarray, seed: int) -> Sampler:
        series, pattern = sensor_series(dpixels, statistics), PATTERNS[self.padding]

        def sample(modality: Modality, part: slice, repeat: int) -> Observations:
            return Observations.valid(series[modality], pixels[part], self.bin_of, pattern)

        return sample

    def to_dict(self) -> dict[str, Any]:
        return {"fillers": self.padding, "bins": list(self.bins)}


V2_RULE = BucketedSampling("v2")
V1_1_RULE = BucketedSampling("v1.1", encode_empty=True)
