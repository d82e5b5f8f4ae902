"""v1.0: a fixed number of each pixel's observations, drawn at random.

The official code draws from one unseeded generator, pixel after pixel, so its embeddings can never be made again. Ours
come from a generator of (seed, zone, easting, northing): the same in any tile, batch or order. The official order
of draws is kept as an option, for those who seed the official code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling.observations import Observations, Sampler, valid_frames
from tessera_cli.sampling.series import BAND_COUNTS, Modality, SensorSeries, SensorSeriesByModality, sensor_series
from tessera_cli.sampling.statistics import Statistics

LARGEST_LEGACY_SEED = 2**32 - 1
DUMMY_DOY = 180
"""Day of the empty frame that the official QAT code has for an orbit without frames."""
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class RandomSampling:
    """`s2` and `s1` random observations of each pixel, sorted by frame; with replacement where there are fewer."""

    s2: int = 40
    """sample_size_s2"""
    s1: int = 40
    """sample_size_s1"""
    repeats: int = 1
    """repeat_times"""
    minimum: int = 0
    """min_valid_timesteps: pixels with fewer clear Sentinel-2 or fewer Sentinel-1 observations are left out."""
    dummies: bool = False
    """An orbit without frames has one empty frame of day 180 (v1.0-qat)."""
    legacy: bool = False
    """Draw in the official order, from numpy's legacy generator."""
    batch: int = 1024
    """batch_size: pixels per batch of the official loop, which the official order of draws depends on."""

    def valid_pixels(self, dpixels: DPixels) -> np.ndarray:
        """Return the pixels with a nonzero Sentinel-2 value in any frame, masked or not, and enough observations."""
        observed = np.zeros(dpixels.requested.shape, bool)
        for frame in dpixels.s2:
            observed |= frame.any(axis=-1)
        s2, asc, desc = dpixels.counts.astype(np.int64)
        no_radar = not len(dpixels.s1_asc) and not len(dpixels.s1_desc)
        if no_radar:  # the early code has nothing to draw from and crashes
            return observed & (s2 >= self.minimum) & self.dummies
        return observed & (s2 >= self.minimum) & (asc + desc >= self.minimum)

    def lengths(self, s2: float, s1: float) -> tuple[int, int]:
        return self.s2, self.s1

    def sampler(self, dpixels: DPixels, statistics: Statistics, pixels: np.ndarray, seed: int) -> Sampler:
        found = sensor_series(dpixels, statistics)
        if self.dummies:
            found["s1"] = tuple(_with_dummy(series) for series in found["s1"])
        return (self._legacy if self.legacy else self._own)(dpixels, found, pixels, seed)

    def _own(self, dpixels: DPixels, found: SensorSeriesByModality, pixels: np.ndarray, seed: int) -> Sampler:
        every = pixel_keys(seed, dpixels.positions(pixels))

        def sample(modality: Modality, part: slice, repeat: int) -> Observations:
            keys = mix(every[part] ^ mix(np.uint64(2 * repeat + (modality == "s1")) + _GAMMA))
            frames, starts, counts = valid_frames(_candidates(found[modality], pixels[part]))
            ranks = draw(keys, counts, self.size(modality))
            return Observations.drawn(found[modality], pixels[part], frames[starts[:, None] + ranks])

        return sample

    def _legacy(self, dpixels: DPixels, found: SensorSeriesByModality, pixels: np.ndarray, seed: int) -> Sampler:
        every = np.flatnonzero(
            self.valid_pixels(dpixels)
        )  # the official code draws for the whole tile, whichever pixels are asked for
        drawn, asked = self._legacy_draws(found, every, seed), np.searchsorted(every, pixels)

        def sample(modality: Modality, part: slice, repeat: int) -> Observations:
            frames = drawn[modality][repeat, asked[part]].astype(np.int64)
            return Observations.drawn(found[modality], pixels[part], frames)

        return sample

    def size(self, modality: Modality) -> int:
        return self.s2 if modality == "s2" else self.s1

    def _legacy_draws(self, found: SensorSeriesByModality, pixels: np.ndarray, seed: int) -> dict[Modality, np.ndarray]:
        """Return frame numbers int16 (repeats, N, size) by sensor: batch by batch, repeat by repeat, S2 first."""
        generator = np.random.RandomState(seed)
        drawn = {m: np.empty((self.repeats, len(pixels), self.size(m)), np.int16) for m in BAND_COUNTS}
        valid = {m: _candidates(found[m], pixels) for m in BAND_COUNTS}
        for start in range(0, len(pixels), self.batch):
            for repeat in range(self.repeats):
                for modality in BAND_COUNTS:
                    size = self.size(modality)
                    for i in range(start, min(start + self.batch, len(pixels))):
                        frames = np.flatnonzero(valid[modality][:, i])
                        picks = generator.choice(frames, size=size, replace=len(frames) < size)
                        drawn[modality][repeat, i] = np.sort(picks)
        return drawn

    def to_dict(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        return found if self.legacy else {name: value for name, value in found.items() if name != "batch"}


def draw(keys: np.ndarray, counts: np.ndarray, size: int | np.ndarray, *, always: bool = False) -> np.ndarray:
    """Draw `size` of the numbers 0..n−1 for each pixel, in ascending order: int64 (N, size).

    `keys` are uint64 (N,), `counts`, the n of each pixel, int64 (N,).

    A pixel may have a size of its own, int64 (N,): then zeros follow its numbers, up to the largest size. Numbers come
    twice where there are fewer than `size` (only 0 where there are none), or `always`.

    Numbered hashes of the key decide: without replacement the `size` smallest of n hashes, with replacement each hash
    scaled to 0..n−1.
    """
    sizes, width = np.broadcast_to(size, counts.shape), int(np.max(size, initial=0))
    again = (counts < sizes) | always
    hashes = numbered(keys, max(width, int(counts[~again].max(initial=0))))
    wanted = np.arange(width) < sizes[:, None]
    ranks = np.zeros((len(keys), width), np.int64)
    few = ((hashes[again, :width] >> np.uint64(32)) * counts[again, None].astype(np.uint64)) >> np.uint64(32)
    few[~wanted[again]] = np.iinfo(np.uint64).max
    ranks[again] = np.where(wanted[again], np.sort(few, axis=1), 0)
    once = ~again & (sizes > 0)
    many = hashes[once]
    there = np.arange(hashes.shape[1]) < counts[once, None]
    many[~there] = np.iinfo(np.uint64).max
    largest = np.take_along_axis(np.sort(many, axis=1), sizes[once, None] - 1, axis=1)
    ranks[wanted & once[:, None]] = np.nonzero((many <= largest) & there)[1]  # the hashes of one key all differ
    return ranks


def pixel_keys(seed: int, positions: np.ndarray) -> np.ndarray:
    """Return a key per pixel, uint64 (N,), from the seed and int64 (N, 3): zone, easting, northing."""
    return hashed(seed, *positions.T)


def hashed(seed: int, *columns: np.ndarray | int) -> np.ndarray:
    """Return hashes of the seed and each row of integer columns, (N,) or a number for all rows: uint64 (N,)."""
    key: np.ndarray = np.asarray(seed % 2**64, np.uint64)
    for column in columns:
        with np.errstate(over="ignore"):
            key = mix(key + _GAMMA) ^ np.asarray(column).astype(np.uint64)
    with np.errstate(over="ignore"):
        return mix(key + _GAMMA)


def numbered(keys: np.ndarray, count: int) -> np.ndarray:
    """Return `count` hashes of each key, uint64 (N,) -> uint64 (N, count): SplitMix64 started at the key."""
    with np.errstate(over="ignore"):
        return mix(keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GAMMA)


def uniform(hashes: np.ndarray) -> np.ndarray:
    """Map uint64, any shape, to float64 in [0, 1)."""
    return np.asarray((hashes >> np.uint64(11)) * 2.0**-53)


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): uint64 -> uint64."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def _candidates(found: tuple[SensorSeries, ...], pixels: np.ndarray) -> np.ndarray:
    """Return the valid frames of each pixel, or all of them where none is, bool (T, N)."""
    valid = np.concatenate([series.valid[:, pixels] for series in found])
    valid[:, ~valid.any(axis=0)] = True
    return valid


def _with_dummy(series: SensorSeries) -> SensorSeries:
    if len(series.frames):
        return series
    _, pixels, bands = series.frames.shape
    frames, valid = np.zeros((1, pixels, bands), series.frames.dtype), np.zeros((1, pixels), bool)
    return dataclasses.replace(series, frames=frames, valid=valid, doy=np.array([DUMMY_DOY], np.uint16))
