"""One sensor's chosen observations of some pixels, and how they become rectangular sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tessera_cli.sampling.series import Modality, SensorSeries

if TYPE_CHECKING:
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.sampling.statistics import Statistics


class ObservationRule(Protocol):
    """How a model family chooses among a pixel's observations. A pixel's choice depends on the pixel alone."""

    @property
    def repeats(self) -> int:
        """How many choices are encoded, and their embeddings averaged."""

    def encodes(self, dpixels: DPixels) -> np.ndarray:
        """bool (H, W): the pixels that the family's official code gives an embedding."""

    def lengths(self, s2: float, s1: float) -> tuple[int, int]:
        """The lengths of the two sequences that so many observations become; 0 for a sensor that saw nothing."""

    def sampler(self, dpixels: DPixels, statistics: Statistics, pixels: np.ndarray, seed: int) -> Sampler:
        """What chooses for the pixels with these flat numbers, int64 (N,), all of them in `encodes`."""

    def to_dict(self) -> dict[str, Any]:
        """Everything that the choice depends on, as plain JSON."""


@dataclass(frozen=True, eq=False)
class Group:
    """Pixels whose sequences are equally long."""

    members: np.ndarray
    """int64 (M,): positions among the pixels."""
    length: int
    patterns: np.ndarray
    """int64 (K, length): choices among a pixel's observations."""
    which: np.ndarray
    """int64 (M,): the choice of each member."""
    copies: np.ndarray | None = None
    """int64 (bin,), if the sequences hold each observation once: which of them stands at each place of the bin."""


@dataclass(frozen=True, eq=False)
class Observations:
    """One sensor's observations of N pixels as raw integers, pixel after pixel: S in all."""

    values: np.ndarray
    """uint16 or int16 (S, C)"""
    doy: np.ndarray
    """int16 (S,): days of year 1..366."""
    streams: np.ndarray
    """uint8 (S,): which statistics standardise it."""
    mean: np.ndarray
    """float32 (streams, C)"""
    std: np.ndarray
    starts: np.ndarray
    """int64 (N,): where each pixel begins among the S."""
    counts: np.ndarray
    """int64 (N,)"""
    bins: np.ndarray
    """int64 (N,): length of each pixel's sequence; 0 = the sensor never saw it."""
    pattern: Callable[[int, int], np.ndarray]
    """(count, bin) -> int64 (bin,): which of a pixel's observations stands at each place of its sequence."""

    @classmethod
    def valid(
        cls,
        streams: tuple[SensorSeries, ...],
        pixels: np.ndarray,
        bin_of: Callable[[np.ndarray], np.ndarray],
        pattern: Callable[[int, int], np.ndarray],
    ) -> Observations:
        """All valid observations of the pixels with these flat numbers, int (N,), in the order of the frames.

        `bin_of` maps counts to the lengths of sequences.
        """
        frames, starts, counts = listed(np.concatenate([stream.valid[:, pixels] for stream in streams]))
        return cls(*_gathered(streams, frames, np.repeat(pixels, counts)), starts, counts, bin_of(counts), pattern)

    @classmethod
    def drawn(cls, streams: tuple[SensorSeries, ...], pixels: np.ndarray, frames: np.ndarray) -> Observations:
        """Sequences of equal length that are settled already: frame numbers int (N, T)."""
        count, length = frames.shape
        lengths = np.full(count, length, np.int64)
        starts = np.arange(count, dtype=np.int64) * length
        gathered = _gathered(streams, frames.reshape(-1), np.repeat(pixels, length))
        return cls(*gathered, starts, lengths, lengths, _as_they_are)

    def unseen(self) -> np.ndarray:
        """int64: positions of the pixels that the sensor never saw."""
        return np.flatnonzero(self.bins == 0)

    def by_bin(self) -> Iterator[Group]:
        """The pixels that were seen, longest sequences first, duplicates and all."""
        for bin in _falling(self.bins):
            yield self._whole(np.flatnonzero(self.bins == bin), bin)

    def by_length(self) -> Iterator[Group]:
        """The pixels that were seen, longest sequences first, each observation once: more groups, fewer tokens."""
        lengths = np.minimum(self.counts, self.bins)
        for length in _falling(lengths):
            members = np.flatnonzero(lengths == length)
            bin = int(self.bins[members[0]])
            if length == bin:
                yield self._whole(members, bin)
            else:
                every, first = np.arange(length)[None], np.zeros(len(members), np.int64)
                yield Group(members, length, every, first, self.pattern(length, bin).copy())

    def _whole(self, members: np.ndarray, bin: int) -> Group:
        distinct, which = np.unique(self.counts[members], return_inverse=True)
        return Group(members, bin, np.stack([self.pattern(int(n), bin) for n in distinct]), which)


def listed(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool (T, N) -> the true frames' numbers, pixel after pixel; where each pixel begins; how many it has. int64."""
    counts = valid.sum(axis=0, dtype=np.int64)
    return np.nonzero(np.ascontiguousarray(valid.T))[1], np.cumsum(counts) - counts, counts


def _gathered(
    streams: tuple[SensorSeries, ...], frames: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, days, streams, means and deviations of observations.

    `frames` are numbers counted through all streams, `pixels` flat numbers, int (S,) both.
    """
    firsts = np.cumsum([0] + [len(stream.frames) for stream in streams])
    doy = np.concatenate([stream.doy for stream in streams]).astype(np.int16)[frames]
    mean, std = (np.stack([getattr(stream, name) for stream in streams]) for name in ("mean", "std"))
    if len(streams) == 1:
        return streams[0].frames[frames, pixels], doy, np.zeros(len(frames), np.uint8), mean, std
    values = np.empty((len(frames), streams[0].frames.shape[-1]), streams[0].frames.dtype)
    number = np.repeat(np.arange(len(streams), dtype=np.uint8), np.diff(firsts))[frames]
    for i, stream in enumerate(streams):
        here = np.flatnonzero(number == i)
        values[here] = stream.frames[frames[here] - firsts[i], pixels[here]]
    return values, doy, number, mean, std


def _falling(lengths: np.ndarray) -> list[int]:
    """The distinct lengths, without 0."""
    return [length for length in np.unique(lengths)[::-1].tolist() if length]


def _as_they_are(count: int, bin: int) -> np.ndarray:
    return np.arange(bin)


Sampler = Callable[[Modality, slice, int], Observations]
"""One sensor's observations of a part of the pixels, as they are chosen for the n-th repeat."""
