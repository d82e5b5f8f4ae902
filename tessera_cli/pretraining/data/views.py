"""Views of pixels: a random choice of each pixel's observations, in order.

Every choice is a hash of the pixel's key, so views do not depend on the batch, the process or the thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np

from tessera_cli.pretraining.config import ViewConfig
from tessera_cli.pretraining.data.batch import MISSING, Sequences, View
from tessera_cli.pretraining.data.perturb import Hashes, days_later, perturbed
from tessera_cli.sampling import BAND_COUNTS, BucketedSampling, Modality
from tessera_cli.sampling.buckets import PATTERNS
from tessera_cli.sampling.draws import draw, hashed, numbered, uniform
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, starts_of

_YEAR = 366
_DECISIONS = (
    *("sensor", "orbit", "which orbit", "season", "which season", "share", "observations", "order"),
    *("gain", "noise", "shift"),
)
"""The random decisions per pixel and sensor. Their positions are part of the hashes: only append."""


def view_keys(pixel_keys: np.ndarray, *, seed: int, epochs: np.ndarray, view: int) -> np.ndarray:
    """Return the keys of one view, uint64 (N,): hashes of `RaggedPixels.keys`, epochs int64 (N,), view and seed."""
    return hashed(seed, pixel_keys, epochs, view)


def random_view(
    pixels: RaggedPixels, config: ViewConfig, buckets: BucketedSampling, keys: np.ndarray
) -> View[np.ndarray]:
    """Return the view that the keys, uint64 (N,), decide: some observations are dropped, the rest is drawn from,
    and what is drawn is perturbed.

    A pixel's sequences depend on its own observations and key alone. `buckets`: lengths of bucketed sequences.
    """
    dropped = _dropped_sensors(pixels, config, keys)
    shifts = days_later(config, _hashes(keys, "s2", "shift"))  # both sensors see the same year

    def view(modality: Modality) -> tuple[Sequences[np.ndarray], ...]:
        hashes = functools.partial(_hashes, keys, modality)
        drawn = _draw(_kept(pixels.series(modality), dropped[modality], config, hashes), config, buckets, hashes)
        return tuple(perturbed(part, modality, config, hashes, shifts) for part in drawn)

    return {modality: view(modality) for modality in BAND_COUNTS}


def full_view(pixels: RaggedPixels, buckets: BucketedSampling) -> View[np.ndarray]:
    """Return all observations in the order of the frames, brought to the lengths of `embed`; nothing is drawn."""

    def view(series: RaggedSeries) -> tuple[Sequences[np.ndarray], ...]:
        sizes = np.maximum(series.counts, 1)
        ranks = np.broadcast_to(np.arange(sizes.max(initial=0)), (len(sizes), sizes.max(initial=0)))
        lengths = np.maximum(buckets.bin_of(series.counts), 1)
        return _by_length(series, ranks, sizes, lengths, PATTERNS[buckets.padding])

    return {modality: view(pixels.series(modality)) for modality in BAND_COUNTS}


def _dropped_sensors(pixels: RaggedPixels, config: ViewConfig, keys: np.ndarray) -> dict[Modality, np.ndarray]:
    """Return bool (N,) per sensor. A pixel keeps a sensor that has observations: Sentinel-2, if both have."""
    s2 = uniform(_hashes(keys, "s2", "sensor")) < config.drop_s2
    s1 = uniform(_hashes(keys, "s1", "sensor")) < config.drop_s1
    has_s2, has_s1 = pixels.s2.counts > 0, pixels.s1.counts > 0
    blind = (s2 | ~has_s2) & (s1 | ~has_s1)
    return {"s2": s2 & ~blind, "s1": s1 & ~(blind & ~has_s2)}


def _kept(series: RaggedSeries, dropped: np.ndarray, config: ViewConfig, hashes: Hashes) -> RaggedSeries:
    """Return the series without dropped sensors, bool (N,), orbits and seasons."""
    count = len(series.counts)
    owner = np.repeat(np.arange(count), series.counts)  # (S,): the pixel of each observation
    keep = ~dropped[owner]
    if config.drop_orbit:
        one, other = (np.bincount(owner[series.streams == stream], minlength=count) for stream in (0, 1))
        chosen = (uniform(hashes("orbit")) < config.drop_orbit) & (one > 0) & (other > 0)
        orbit = hashes("which orbit") % np.uint64(2)
        keep &= ~(chosen[owner] & (series.streams == orbit[owner]))
    if config.drop_season:
        chosen = uniform(hashes("season")) < config.drop_season
        first = 1 + (uniform(hashes("which season")) * _YEAR).astype(np.int64)
        off = (series.doy - first[owner]) % _YEAR < config.season_days
        some = np.bincount(owner[keep & ~off], minlength=count) > 0
        keep &= ~(off & (chosen & some)[owner])
    if keep.all():
        return series
    starts = starts_of(np.bincount(owner[keep], minlength=count))
    return RaggedSeries(series.values[keep], series.doy[keep], series.streams[keep], starts)


def _draw(
    series: RaggedSeries, config: ViewConfig, buckets: BucketedSampling, hashes: Hashes
) -> tuple[Sequences[np.ndarray], ...]:
    """Draw each pixel's sequence. A pixel without observations has the missing sensor's token: once, or as often as
    sequences are long if all are to be equally long."""
    counts = series.counts
    if config.lengths == "bucketed":
        low, high = config.share
        share = low + (high - low) * uniform(hashes("share"))
        sizes = np.maximum(np.rint(share * counts).astype(np.int64), 1)
        lengths = np.where(counts, buckets.bin_of(sizes), 1)
        pattern = PATTERNS[buckets.padding]
    else:
        most = np.full_like(counts, config.n_obs)
        sizes = np.clip(counts, 1, most) if config.replacement == "never" else most
        lengths, pattern = sizes, lambda size, length: np.arange(length)
    ranks = draw(hashes("observations"), counts, sizes, always=config.replacement == "always")
    return _by_length(series, _reorder(series, ranks, sizes, config.order, hashes), sizes, lengths, pattern)


def _reorder(
    series: RaggedSeries,
    ranks: np.ndarray,
    sizes: np.ndarray,
    order: Literal["day", "frames", "random"],
    hashes: Hashes,
) -> np.ndarray:
    """Reorder rising ranks among a pixel's observations, int64 (N, T), of which the first `sizes` count."""
    if order == "frames":
        return ranks
    if order == "day":
        by = _taken(series.doy, series.starts[:-1, None] + ranks).astype(np.int64)
    else:
        by = (numbered(hashes("order"), ranks.shape[1]) >> np.uint64(33)).astype(np.int64)
    pairs = by << 32 | ranks  # both in one number, so that sorting takes no indices
    pairs[np.arange(ranks.shape[1]) >= sizes[:, None]] = np.iinfo(np.int64).max
    return np.sort(pairs, axis=1) & 0xFFFFFFFF


def _by_length(
    series: RaggedSeries,
    ranks: np.ndarray,
    sizes: np.ndarray,
    lengths: np.ndarray,
    pattern: Callable[[int, int], np.ndarray],
) -> tuple[Sequences[np.ndarray], ...]:
    """Return sequences of `lengths`, int64 (N,), longest first, of the observations with these ranks, int64 (N, T).

    `pattern(size, length)`: which of the first `size` ranks of a row stands at each position of its sequence.
    """
    parts = []
    for length in np.unique(lengths)[::-1].tolist():
        members = np.flatnonzero(lengths == length)
        distinct, which = np.unique(sizes[members], return_inverse=True)
        positions = np.stack([pattern(size, length) for size in distinct.tolist()])[which]
        rows = series.starts[members, None] + np.take_along_axis(ranks[members], positions, axis=1)
        values, doy = _taken(series.values, rows), _taken(series.doy, rows).astype(np.int16)
        streams = _taken(series.streams, rows)
        missing = np.flatnonzero(series.counts[members] == 0)
        values[missing], doy[missing], streams[missing] = 0, 0, MISSING
        parts.append(Sequences(members, values, doy, streams))
    return tuple(parts)


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy these rows, int of any shape. Rows of pixels without observations may lie behind the end: any will do."""
    if not len(values):
        return np.zeros((*rows.shape, *values.shape[1:]), values.dtype)
    return np.asarray(values).take(rows, axis=0, mode="clip")


def _hashes(keys: np.ndarray, modality: Modality, decision: str) -> np.ndarray:
    """Return the hashes, uint64 (N,), that make one of `_DECISIONS`."""
    return hashed(2 * _DECISIONS.index(decision) + (modality == "s1"), keys)
