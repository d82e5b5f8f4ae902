"""Which observations an encoder sees: the valid ones of each pixel, brought to a few fixed lengths (bins).

Sequences of equal length can be encoded together. A pixel's sequence depends on its own observations alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tessera_cli.dpixel import DPixels
    from tessera_cli.models.statistics import Statistics


@dataclass(frozen=True)
class ObservationRule:
    """How a model family chooses among n valid observations."""

    bin_of: Callable[[np.ndarray], np.ndarray]
    """Observation counts, any shape -> length of the sequences they become; 0 where there is no observation."""
    fill_pattern: Callable[[int, int], np.ndarray]
    """(n, bin) -> int64 (bin,): which of the n valid observations stands at each place of the sequence."""


_STEP, _LONGEST = 8, 256


def bin_of(counts: np.ndarray) -> np.ndarray:
    """v2: the smallest of 8, 16, …, 256 that holds n observations, 256 above, and 0 for none. Integers -> int64."""
    n = np.asarray(counts).astype(np.int64)
    return np.minimum(-(-n // _STEP) * _STEP, _LONGEST)


@functools.lru_cache(maxsize=4096)
def fill_pattern(n: int, bin: int) -> np.ndarray:
    """v2: positions among n valid observations, int64 (bin,), read-only.

    Too few: all of them, then the middles of `bin − n` near-equal runs (or, for n = 1, 2, 3, all of them again and
    again). Too many: evenly spaced, rounded down in float64 as the official code does, which for some n is not the
    exact quotient (n = 295 and 57 others below 2000).
    """
    kept = np.arange(min(n, bin), dtype=np.int64)
    missing = bin - n
    if n == 0:
        pattern = kept
    elif missing < 0:
        pattern = np.floor(np.arange(bin) * ((n - 1) / (bin - 1))).astype(np.int64)
        pattern[-1] = n - 1
    elif missing > n:
        pattern = np.concatenate([kept, np.arange(missing, dtype=np.int64) % n])
    elif missing:
        lengths = n // missing + (np.arange(missing) < n % missing)
        pattern = np.concatenate([kept, np.cumsum(lengths) - lengths + lengths // 2])
    else:
        pattern = kept
    pattern.flags.writeable = False
    return pattern


V2_BINS = ObservationRule(bin_of, fill_pattern)


@dataclass(frozen=True, eq=False)
class Stream:
    """Frames of one kind that share statistics: all Sentinel-2, or one orbit direction of Sentinel-1."""

    frames: np.ndarray
    """integer (T, P, C): raw values; P = H x W pixels in row-major order."""
    valid: np.ndarray
    """bool (T, P)"""
    doy: np.ndarray
    """uint16 (T,): day of year 1..366."""
    mean: np.ndarray
    """float32 (C,)"""
    std: np.ndarray
    """float32 (C,)"""


def s2_streams(dpixels: DPixels, statistics: Statistics) -> tuple[Stream, ...]:
    """Sentinel-2: a frame is valid at a pixel where its mask is not 0, whatever the bands hold."""
    mean, std = statistics.s2_mean, statistics.s2_std
    return (_stream(dpixels.s2, dpixels.s2_mask != 0, dpixels.s2_doy, mean, std),)


def s1_streams(dpixels: DPixels, statistics: Statistics) -> tuple[Stream, ...]:
    """Sentinel-1: ascending frames come before descending ones, each with its own statistics; never sorted by date."""
    asc = statistics.s1_asc_mean, statistics.s1_asc_std
    desc = statistics.s1_desc_mean, statistics.s1_desc_std
    return (
        _stream(dpixels.s1_asc, dpixels.s1_asc_valid, dpixels.s1_asc_doy, *asc),
        _stream(dpixels.s1_desc, dpixels.s1_desc_valid, dpixels.s1_desc_doy, *desc),
    )


def _stream(
    frames: np.ndarray, valid: np.ndarray, doy: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> Stream:
    count, height, width, bands = frames.shape
    pixels = height * width
    return Stream(
        frames.reshape(count, pixels, bands),
        valid.reshape(count, pixels),
        doy,
        np.array(mean, np.float32),
        np.array(std, np.float32),
    )


@dataclass(frozen=True, eq=False)
class Observations:
    """One sensor's valid observations of N pixels."""

    streams: tuple[Stream, ...]
    rule: ObservationRule
    pixels: np.ndarray
    """int64 (N,): flat pixel numbers."""
    frames: np.ndarray
    """int64 (sum of counts,): frame numbers, counted through all streams, pixel after pixel in file order."""
    starts: np.ndarray
    """int64 (N,): where each pixel begins in `frames`."""
    counts: np.ndarray
    """int64 (N,)"""
    bins: np.ndarray
    """int64 (N,): length of each pixel's sequence; 0 = the sensor never saw it."""

    @classmethod
    def of(cls, streams: tuple[Stream, ...], pixels: np.ndarray, rule: ObservationRule) -> Observations:
        """Look up the valid observations of the pixels with these flat numbers, int (N,)."""
        valid = np.concatenate([stream.valid[:, pixels] for stream in streams])
        counts = valid.sum(axis=0, dtype=np.int64)
        frames = np.nonzero(np.ascontiguousarray(valid.T))[1]
        return cls(streams, rule, pixels, frames, np.cumsum(counts) - counts, counts, rule.bin_of(counts))

    def sequences(self, members: np.ndarray, bin: int) -> tuple[np.ndarray, np.ndarray]:
        """The chosen observations of some pixels of one bin.

        `members` are positions (B,) in `pixels`. Returns standardised bands, float32 (B, bin, C), and days of year,
        int64 (B, bin).
        """
        distinct, which = np.unique(self.counts[members], return_inverse=True)
        patterns = np.stack([self.rule.fill_pattern(int(n), bin) for n in distinct])
        return self.gather(self.frames[self.starts[members][:, None] + patterns[which]], self.pixels[members])

    def gather(self, frames_BT: np.ndarray, pixels_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations by frame number (B, T) and flat pixel number (B,), as `sequences` returns them."""
        pixels_BT = np.broadcast_to(pixels_B[:, None], frames_BT.shape)
        values_BTC = np.empty((*frames_BT.shape, self.streams[0].frames.shape[-1]), np.float32)
        doy_BT = np.empty(frames_BT.shape, np.int64)
        first = 0
        for stream in self.streams:
            here = (frames_BT >= first) & (frames_BT < first + len(stream.frames))
            frame = frames_BT[here] - first
            raw = stream.frames[frame, pixels_BT[here]].astype(np.float32)
            values_BTC[here] = (raw - stream.mean) / stream.std
            doy_BT[here] = stream.doy[frame]
            first += len(stream.frames)
        return values_BTC, doy_BT
