"""The observations of one sensor chosen for some pixels, and their grouping into sequences of equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling.series import Modality, SensorSeries
from tessera_cli.sampling.statistics import Statistics


class ObservationRule(Protocol):
    """How a model family samples a pixel's observations. A pixel's sample depends on nothing but that pixel."""

    @property
    def repeats(self) -> int:
        """How many samples of each pixel are encoded; their embeddings are averaged."""

    def valid_pixels(self, dpixels: DPixels) -> np.ndarray:
        """Return the pixels for which the family's official code computes an embedding, bool (H, W)."""

    def lengths(self, s2: float, s1: float) -> tuple[int, int]:
        """Return the sequence lengths for these numbers of observations; 0 for a sensor without any."""

    def sampler(self, dpixels: DPixels, statistics: Statistics, pixels: np.ndarray, seed: int) -> Sampler:
        """Return the sampler of the pixels with these flat numbers, int64 (N,), all of them in `valid_pixels`."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the sample depends on, as plain JSON."""


Array = TypeVar("Array")
Converted = TypeVar("Converted")


@dataclass(frozen=True, eq=False)
class Group(Generic[Array]):
    """Pixels whose sequences are equally long, as numpy arrays or as tensors."""

    members: Array
    """int64 (M,): positions among the pixels."""
    length: int
    patterns: Array
    """int64 (K, length): positions among a pixel's observations, row by row."""
    which: Array
    """int64 (M,): the row of `patterns` of each member."""
    repeat_index: Array | None = None
    """int64 (bin,), if the sequences hold each observation once: which of them stands at each position of the bin."""

    def map(self, convert: Callable[[Array], Converted]) -> Group[Converted]:
        """Return the group with every array converted."""
        repeat_index = None if self.repeat_index is None else convert(self.repeat_index)
        return Group(convert(self.members), self.length, convert(self.patterns), convert(self.which), repeat_index)


@dataclass(frozen=True, eq=False)
class Observations:
    """One sensor's observations of N pixels as raw integers, pixel after pixel: S in all."""

    values: np.ndarray
    """uint16 or int16 (S, C)"""
    doy: np.ndarray
    """int16 (S,): days of year 1..366."""
    series_index: np.ndarray
    """uint8 (S,): number of the `SensorSeries` it comes from, hence which mean and std standardise it."""
    mean: np.ndarray
    """float32 (series, C)"""
    std: np.ndarray
    starts: np.ndarray
    """int64 (N,): where each pixel begins among the S."""
    counts: np.ndarray
    """int64 (N,)"""
    bins: np.ndarray
    """int64 (N,): length of each pixel's sequence; 0 where the pixel has no observation of this sensor."""
    pattern: Callable[[int, int], np.ndarray]
    """(count, bin) -> int64 (bin,): which of a pixel's observations stands at each position of its sequence."""

    @classmethod
    def valid(
        cls,
        series: tuple[SensorSeries, ...],
        pixels: np.ndarray,
        bin_of: Callable[[np.ndarray], np.ndarray],
        pattern: Callable[[int, int], np.ndarray],
    ) -> Observations:
        """Return all valid observations of the pixels with these flat numbers, int (N,), in the order of the frames.

        `bin_of` maps observation counts to sequence lengths.
        """
        frames, starts, counts = valid_frames(np.concatenate([one.valid[:, pixels] for one in series]))
        return cls(*_gather(series, frames, np.repeat(pixels, counts)), starts, counts, bin_of(counts), pattern)

    @classmethod
    def drawn(cls, series: tuple[SensorSeries, ...], pixels: np.ndarray, frames: np.ndarray) -> Observations:
        """Return sequences of equal length, given as frame numbers int (N, T)."""
        count, length = frames.shape
        lengths = np.full(count, length, np.int64)
        starts = np.arange(count, dtype=np.int64) * length
        gathered = _gather(series, frames.reshape(-1), np.repeat(pixels, length))
        return cls(*gathered, starts, lengths, lengths, _identity)

    def missing_sensor(self) -> np.ndarray:
        """Return the positions of the pixels without any observation of this sensor, int64."""
        return np.flatnonzero(self.bins == 0)

    def by_bin(self) -> Iterator[Group[np.ndarray]]:
        """Yield the pixels with observations, longest sequences first, padding included."""
        for bin in _falling(self.bins):
            yield self._whole(np.flatnonzero(self.bins == bin), bin)

    def by_length(self) -> Iterator[Group[np.ndarray]]:
        """Yield them with each observation once, without padding: more groups than `by_bin`, fewer tokens."""
        lengths = np.minimum(self.counts, self.bins)
        for length in _falling(lengths):
            members = np.flatnonzero(lengths == length)
            bin = int(self.bins[members[0]])
            if length == bin:
                yield self._whole(members, bin)
            else:
                every, first = np.arange(length)[None], np.zeros(len(members), np.int64)
                yield Group(members, length, every, first, self.pattern(length, bin).copy())

    def _whole(self, members: np.ndarray, bin: int) -> Group[np.ndarray]:
        distinct, which = np.unique(self.counts[members], return_inverse=True)
        return Group(members, bin, np.stack([self.pattern(int(n), bin) for n in distinct]), which)


def valid_frames(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the valid frames, pixel after pixel, each pixel's start in them and its count, all int64.

    `valid` is bool (T, N).
    """
    counts = valid.sum(axis=0, dtype=np.int64)
    return np.nonzero(np.ascontiguousarray(valid.T))[1], np.cumsum(counts) - counts, counts


def _gather(
    series: tuple[SensorSeries, ...], frames: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values, days of year, series numbers, means and standard deviations of S observations.

    `frames` are numbers counted through all series, `pixels` flat numbers, int (S,) both.
    """
    firsts = np.cumsum([0] + [len(one.frames) for one in series])
    doy = np.concatenate([one.doy for one in series]).astype(np.int16)[frames]
    mean, std = (np.stack([getattr(one, name) for one in series]) for name in ("mean", "std"))
    if len(series) == 1:
        return series[0].frames[frames, pixels], doy, np.zeros(len(frames), np.uint8), mean, std
    values = np.empty((len(frames), series[0].frames.shape[-1]), series[0].frames.dtype)
    number = np.repeat(np.arange(len(series), dtype=np.uint8), np.diff(firsts))[frames]
    for i, one in enumerate(series):
        here = np.flatnonzero(number == i)
        values[here] = one.frames[frames[here] - firsts[i], pixels[here]]
    return values, doy, number, mean, std


def _falling(lengths: np.ndarray) -> list[int]:
    """Return the distinct lengths except 0, longest first."""
    return [length for length in np.unique(lengths)[::-1].tolist() if length]


def _identity(count: int, bin: int) -> np.ndarray:
    return np.arange(bin)


Sampler = Callable[[Modality, slice, int], Observations]
"""(modality, part of the pixels, repeat) -> the observations of that sensor, sampled for that repeat."""
