"""v1.1 and v2: all of a pixel's observations, brought to a few fixed lengths (bins).

Sequences of equal length can be encoded together. Which observations fill up a sequence that is too long for them, or
which are left out of one that is too short, follows from their number alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tessera_cli.sampling.observations import Observations, Sampler
from tessera_cli.sampling.series import Modality, streams

if TYPE_CHECKING:
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.sampling.statistics import Statistics

BINS = tuple(range(8, 257, 8))


@functools.lru_cache(maxsize=4096)
def v2_pattern(n: int, bin: int) -> np.ndarray:
    """v2: positions among n valid observations, int64 (bin,), read-only.

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
    """v1.1: positions among n valid observations, int64 (bin,), read-only. Their order matters to the GRU.

    Too few: all of them, then evenly spaced ones (rounded half to even), which stay at the end, out of time order. Too
    many: the middles of `bin` near-equal runs.
    """
    missing = bin - n
    if missing < 0:
        pattern = _middles(n, bin)
    else:
        step = (n - 1) / (missing + 1)  # first, in float64: it decides ties as the official code does
        fillers = np.rint(np.arange(1, missing + 1) * step).astype(np.int64)
        pattern = np.concatenate([np.arange(n), np.clip(fillers, 0, n - 1)])
    pattern.flags.writeable = False
    return pattern


def _middles(n: int, runs: int) -> np.ndarray:
    """0..n−1 cut into near-equal runs, the first ones longer: the middle of each, int64 (runs,)."""
    if runs == 0:
        return np.empty(0, np.int64)
    lengths = n // runs + (np.arange(runs) < n % runs)
    return np.cumsum(lengths) - lengths + lengths // 2


PATTERNS: dict[str, Callable[[int, int], np.ndarray]] = {"v1.1": v1_1_pattern, "v2": v2_pattern}


@dataclass(frozen=True)
class BucketedSampling:
    """All observations, in sequences of a few lengths."""

    fillers: Literal["v1.1", "v2"]
    bins: tuple[int, ...] = BINS
    """Rising."""
    unseen: bool = False
    """Pixels that no sensor ever saw get an embedding too: that of two missing sensors (v1.1)."""

    @property
    def repeats(self) -> int:
        return 1

    def bin_of(self, counts: np.ndarray) -> np.ndarray:
        """Observation counts, any shape -> the smallest bin that holds them, else the largest; 0 for none. int64.

        v1.1 officially gives a missing sensor the smallest bin, full of equal tokens; their result is that of one.
        """
        n = np.asarray(counts).astype(np.int64)
        fitting = np.minimum(np.searchsorted(self.bins, n), len(self.bins) - 1)
        return np.where(n > 0, np.array(self.bins, np.int64)[fitting], 0)

    def encodes(self, dpixels: DPixels) -> np.ndarray:
        return np.full(dpixels.requested.shape, True) if self.unseen else np.asarray(dpixels.counts.any(axis=0))

    def lengths(self, s2: float, s1: float) -> tuple[int, int]:
        t_s2, t_s1 = self.bin_of(np.ceil([s2, s1])).tolist()
        return t_s2, t_s1

    def sampler(self, dpixels: DPixels, statistics: Statistics, pixels: np.ndarray, seed: int) -> Sampler:
        found, pattern = streams(dpixels, statistics), PATTERNS[self.fillers]

        def see(modality: Modality, part: slice, repeat: int) -> Observations:
            return Observations.valid(found[modality], pixels[part], self.bin_of, pattern)

        return see

    def to_dict(self) -> dict[str, Any]:
        return {"fillers": self.fillers, "bins": list(self.bins)}


V2_RULE = BucketedSampling("v2")
V1_1_RULE = BucketedSampling("v1.1", unseen=True)
