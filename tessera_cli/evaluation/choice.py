"""Which of many labelled samples are used: by hashes of their places, so always the same ones."""

from __future__ import annotations

import numpy as np

SHARE = 20
"""Each class gets at least one part in this many of an equal share, though it be rare."""


def choose(keys: np.ndarray, strata: np.ndarray, count: int, parcels: np.ndarray | None = None) -> np.ndarray:
    """Return at most `count` of N positions, rising: uint64 (N,), int (N,), int (N,) -> int64.

    Strata get places in proportion to their sizes, and a few though they be rare. Within a stratum parcels take turns,
    each with its sample of the smallest key.
    """
    if len(keys) <= count:
        return np.arange(len(keys))
    quotas = _quotas(np.bincount(strata), count)
    turns = np.zeros(len(keys), np.int64)
    if parcels is not None:
        order = np.lexsort((keys, parcels))
        _, starts = np.unique(parcels[order], return_index=True)
        sizes = np.diff(np.append(starts, len(order)))
        turns[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    order = np.lexsort((keys, turns, strata))
    starts = np.searchsorted(strata[order], np.arange(len(quotas)))
    rank = np.arange(len(order)) - starts[strata[order]]
    return np.sort(order[rank < quotas[strata[order]]])


def first_of_each(keys: np.ndarray, parcels: np.ndarray, most: int) -> np.ndarray:
    """Return bool (N,): the `most` samples of the smallest keys of each parcel."""
    order = np.lexsort((keys, parcels))
    _, starts = np.unique(parcels[order], return_index=True)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = np.zeros(len(keys), bool)
    kept[order[rank < most]] = True
    return kept


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """Return how many of each stratum, int64 (C,), `count` in all; there are more."""
    there = int(np.count_nonzero(sizes))
    least = np.minimum(sizes, max(1, count // (SHARE * there)))
    if least.sum() >= count:  # more strata than places: the largest ones
        quotas = np.zeros(len(sizes), np.int64)
        quotas[np.argsort(-sizes, kind="stable")[:count]] = 1
        return quotas
    fixed = np.zeros(len(sizes), bool)
    while True:
        share = (count - least[fixed].sum()) / max(sizes[~fixed].sum(), 1)
        exact = np.where(fixed, least, sizes * share)
        if not (below := exact < least).any():
            break
        fixed |= below
    quotas = np.floor(exact).astype(np.int64)
    most = np.argsort(-(exact - quotas), kind="stable")[: count - int(quotas.sum())]
    quotas[most] += 1
    return np.asarray(np.minimum(quotas, sizes))
