"""One sensor's chosen observations of some pixels, gathered into rectangular sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tessera_cli.sampling.streams import Modality, Stream

if TYPE_CHECKING:
    from tessera_cli.dpixel import DPixels
    from tessera_cli.models.statistics import Statistics


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
class Observations:
    """One sensor's observations of N pixels."""

    streams: tuple[Stream, ...]
    pixels: np.ndarray
    """int64 (N,): flat pixel numbers."""
    frames: np.ndarray
    """int64 (sum of counts,): frame numbers, counted through all streams, pixel after pixel."""
    starts: np.ndarray
    """int64 (N,): where each pixel begins in `frames`."""
    counts: np.ndarray
    """int64 (N,)"""
    bins: np.ndarray
    """int64 (N,): length of each pixel's sequence; 0 = the sensor never saw it."""
    pattern: Callable[[int, int], np.ndarray]
    """(count, bin) -> int64 (bin,): which of a pixel's observations stands at each place of its sequence."""

    @classmethod
    def valid(
        cls,
        streams: tuple[Stream, ...],
        pixels: np.ndarray,
        bin_of: Callable[[np.ndarray], np.ndarray],
        pattern: Callable[[int, int], np.ndarray],
    ) -> Observations:
        """All valid observations of the pixels with these flat numbers, int (N,), in the order of the frames.

        `bin_of` maps counts to the lengths of sequences.
        """
        frames, starts, counts = listed(np.concatenate([stream.valid[:, pixels] for stream in streams]))
        return cls(streams, pixels, frames, starts, counts, bin_of(counts), pattern)

    @classmethod
    def drawn(cls, streams: tuple[Stream, ...], pixels: np.ndarray, frames: np.ndarray) -> Observations:
        """Sequences of equal length that are settled already: frame numbers int (N, T)."""
        count, length = frames.shape
        lengths = np.full(count, length, np.int64)
        starts = np.arange(count, dtype=np.int64) * length
        return cls(streams, pixels, frames.reshape(-1), starts, lengths, lengths, _as_they_are)

    def sequences(self, members: np.ndarray, bin: int) -> tuple[np.ndarray, np.ndarray]:
        """The chosen observations of some pixels of one bin.

        `members` are positions (B,) in `pixels`. Returns standardised bands, float32 (B, bin, C), and days of year,
        int64 (B, bin).
        """
        distinct, which = np.unique(self.counts[members], return_inverse=True)
        patterns = np.stack([self.pattern(int(n), bin) for n in distinct])
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


def listed(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool (T, N) -> the true frames' numbers, pixel after pixel; where each pixel begins; how many it has. int64."""
    counts = valid.sum(axis=0, dtype=np.int64)
    return np.nonzero(np.ascontiguousarray(valid.T))[1], np.cumsum(counts) - counts, counts


def _as_they_are(count: int, bin: int) -> np.ndarray:
    return np.arange(bin)


Sampler = Callable[[Modality, slice, int], Observations]
"""One sensor's observations of a part of the pixels, as they are chosen for the n-th repeat."""
