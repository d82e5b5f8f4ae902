"""Pixels -> a view of them: which of its observations each pixel shows, and in which order.

Hashes of each pixel's key decide, so a view is the same in whatever company, process or thread it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from tessera_cli.pretrain.config import ViewSettings
from tessera_cli.pretrain.data.batch import MISSING, Sequences, View
from tessera_cli.pretrain.data.ragged import Ragged, Series
from tessera_cli.sampling import BANDS, BucketedSampling, Modality
from tessera_cli.sampling.buckets import PATTERNS
from tessera_cli.sampling.draws import draw, hashed, numbered, uniform

_YEAR = 366
"""Days of year are 1..366."""
_DECISIONS = ("sensor", "orbit", "which orbit", "season", "which season", "share", "observations", "order")
"""What is drawn for each pixel and sensor, each from a hash of its own. The numbers of these decide: only append."""


def view_keys(pixel_keys: np.ndarray, *, seed: int, epochs: np.ndarray, view: int) -> np.ndarray:
    """The keys of one view of pixels, uint64 (N,): a hash of `Ragged.keys`, the epochs int64 (N,), view and seed."""
    return hashed(seed, pixel_keys, epochs, view)


def see(pixels: Ragged, settings: ViewSettings, bins: BucketedSampling, keys: np.ndarray) -> View:
    """The view that the keys, uint64 (N,), decide: first what is dropped, then what is drawn of the rest.

    A pixel's sequences depend on its observations and its key alone. `bins` are the lengths of bucketed sequences.
    """
    dropped = _dropped_sensors(pixels, settings, keys)
    return {m: _drawn(_left(pixels.series(m), dropped[m], settings, keys, m), settings, bins, keys, m) for m in BANDS}


def everything(pixels: Ragged, bins: BucketedSampling) -> View:
    """All observations in the order of the frames, brought to bins as `tessera embed` does. Nothing is drawn."""

    def view(series: Series) -> tuple[Sequences, ...]:
        sizes = np.maximum(series.counts, 1)
        ranks = np.broadcast_to(np.arange(sizes.max(initial=0)), (len(sizes), sizes.max(initial=0)))
        lengths = np.maximum(bins.bin_of(series.counts), 1)
        return _by_length(series, ranks, sizes, lengths, PATTERNS[bins.padding])

    return {modality: view(pixels.series(modality)) for modality in BANDS}


# --- what is dropped --------------------------------------------------------------------------------------------------


def _dropped_sensors(pixels: Ragged, settings: ViewSettings, keys: np.ndarray) -> dict[Modality, np.ndarray]:
    """bool (N,) for each sensor. A pixel that has observations keeps some: of Sentinel-2, if it has both."""
    s2 = uniform(_hashes(keys, "s2", "sensor")) < settings.drop_s2
    s1 = uniform(_hashes(keys, "s1", "sensor")) < settings.drop_s1
    has_s2, has_s1 = pixels.s2.counts > 0, pixels.s1.counts > 0
    blind = (s2 | ~has_s2) & (s1 | ~has_s1)
    return {"s2": s2 & ~blind, "s1": s1 & ~(blind & ~has_s2)}


def _left(series: Series, dropped: np.ndarray, settings: ViewSettings, keys: np.ndarray, modality: Modality) -> Series:
    """The series without dropped sensors, bool (N,), orbits and seasons."""
    counts = series.counts
    tiles_of_file = np.repeat(np.arange(len(counts)), counts)
    keep = ~dropped[tiles_of_file]
    if settings.drop_orbit and modality == "s1":
        one, other = (np.bincount(tiles_of_file[series.streams == stream], minlength=len(counts)) for stream in (0, 1))
        chosen = (uniform(_hashes(keys, modality, "orbit")) < settings.drop_orbit) & (one > 0) & (other > 0)
        orbit = _hashes(keys, modality, "which orbit") % np.uint64(2)
        keep &= ~(chosen[tiles_of_file] & (series.streams == orbit[tiles_of_file]))
    if settings.drop_season:
        chosen = uniform(_hashes(keys, modality, "season")) < settings.drop_season
        first = 1 + (uniform(_hashes(keys, modality, "which season")) * _YEAR).astype(np.int64)
        off = (series.doy - first[tiles_of_file]) % _YEAR < settings.season_days
        some = np.bincount(tiles_of_file[keep & ~off], minlength=len(counts)) > 0
        keep &= ~(off & (chosen & some)[tiles_of_file])
    if keep.all():
        return series
    starts = np.concatenate([[0], np.cumsum(np.bincount(tiles_of_file[keep], minlength=len(counts)))]).astype(np.int64)
    return Series(series.values[keep], series.doy[keep], series.streams[keep], starts)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _drawn(
    series: Series, settings: ViewSettings, bins: BucketedSampling, keys: np.ndarray, modality: Modality
) -> tuple[Sequences, ...]:
    """Each pixel's draw, by the length of its sequence. A pixel without observations draws the missing sensor's token,
    once, or as often as all others do if sequences are to be equally long."""
    counts = series.counts
    if settings.lengths == "bucketed":
        low, high = settings.share
        share = low + (high - low) * uniform(_hashes(keys, modality, "share"))
        sizes = np.maximum(np.rint(share * counts).astype(np.int64), 1)
        lengths = np.where(counts, bins.bin_of(sizes), 1)
        pattern = PATTERNS[bins.padding]
    else:
        most = np.full_like(counts, settings.n_obs)
        sizes = np.clip(counts, 1, most) if settings.replacement == "never" else most
        lengths, pattern = sizes, _as_they_are
    always = settings.replacement == "always"
    ranks = draw(_hashes(keys, modality, "observations"), counts, sizes, always=always)
    ranks = _ordered(series, ranks, sizes, settings.order, _hashes(keys, modality, "order"))
    return _by_length(series, ranks, sizes, lengths, pattern)


def _ordered(
    series: Series, ranks: np.ndarray, sizes: np.ndarray, order: Literal["day", "frames", "random"], keys: np.ndarray
) -> np.ndarray:
    """Ranks among a pixel's observations, int64 (N, T), rising, of which the first `sizes` count: in another order."""
    if order == "frames":
        return ranks
    if order == "day":
        by = _taken(series.doy, series.starts[:-1, None] + ranks).astype(np.int64)
    else:
        by = (numbered(keys, ranks.shape[1]) >> np.uint64(33)).astype(np.int64)
    pairs = by << 32 | ranks  # both in one number, so that sorting takes no indices
    pairs[np.arange(ranks.shape[1]) >= sizes[:, None]] = np.iinfo(np.int64).max
    return np.sort(pairs, axis=1) & 0xFFFFFFFF


def _by_length(
    series: Series,
    ranks: np.ndarray,
    sizes: np.ndarray,
    lengths: np.ndarray,
    pattern: Callable[[int, int], np.ndarray],
) -> tuple[Sequences, ...]:
    """Sequences of `lengths`, int64 (N,), longest first, of the observations with these ranks, int64 (N, T).

    (size, length) -> `pattern`: which of the first `size` of a row stands at each place of its sequence.
    """
    found = []
    for length in np.unique(lengths)[::-1].tolist():
        members = np.flatnonzero(lengths == length)
        distinct, which = np.unique(sizes[members], return_inverse=True)
        places = np.stack([pattern(size, length) for size in distinct.tolist()])[which]
        rows = series.starts[members, None] + np.take_along_axis(ranks[members], places, axis=1)
        values, doy = _taken(series.values, rows), _taken(series.doy, rows).astype(np.int16)
        streams = _taken(series.streams, rows)
        missing = np.flatnonzero(series.counts[members] == 0)
        values[missing], doy[missing], streams[missing] = 0, 0, MISSING
        found.append(Sequences(members, values, doy, streams))
    return tuple(found)


def _as_they_are(size: int, length: int) -> np.ndarray:
    return np.arange(length)


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """These rows, int, any shape, in memory. Those of pixels without observations may lie behind the end: any will
    do."""
    if not len(values):
        return np.zeros((*rows.shape, *values.shape[1:]), values.dtype)
    return np.asarray(values).take(rows, axis=0, mode="clip")


def _hashes(keys: np.ndarray, modality: Modality, decision: str) -> np.ndarray:
    """uint64 (N,)"""
    return hashed(2 * _DECISIONS.index(decision) + (modality == "s1"), keys)
