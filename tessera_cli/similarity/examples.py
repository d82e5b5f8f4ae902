"""Examples: the places that what is searched for should be like, or unlike, and the vector that they come to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import NothingToEmbedError, UsageError, counted
from tessera_cli.extent.place import position
from tessera_cli.tables.places import Places
from tessera_cli.tables.sample import outside_but_swapped, sample

logger = logging.getLogger(__name__)

UNLIKE = 0.25
"""Weight of what it should be unlike, beside 1: 0.15 to 0.25 are usual (Rocchio 1971). Of simulated land cover, with
three of either, a mean average precision of 0.65 without becomes 0.68 with 0.25 or 0.5, and 0.42 with 1."""


@dataclass(frozen=True, eq=False)
class Examples:
    """E places with an embedding, at least one that it should be like."""

    vectors: np.ndarray
    """float64 (E, R): embeddings, of length 1; of polygons their mean."""
    like: np.ndarray
    """bool (E,): false for what it should be unlike."""
    lonlat: np.ndarray
    """float64 (E, 2): degrees."""

    @classmethod
    def of(cls, folder: EmbeddingFolder, like: Sequence[Places], unlike: Sequence[Places] = ()) -> Examples:
        """Read the embeddings of places from a folder of one window.

        Places without an embedding are left out with a warning. Raises UsageError where nothing is given that it should
        be like, or nothing is left of it; NothingToEmbedError where no place has an embedding.
        """
        found = [(_vectors(folder, places), True) for places in like]
        found += [(_vectors(folder, places), False) for places in unlike]
        vectors = np.concatenate([each.vectors for each, _ in found])
        lonlat = np.concatenate([each.lonlat for each, _ in found])
        wanted = np.concatenate([np.full(len(each.vectors), is_like) for each, is_like in found])
        lengths = np.linalg.norm(vectors, axis=1)
        kept = lengths > 0
        return cls(vectors[kept] / lengths[kept, None], wanted[kept], lonlat[kept])

    @property
    def query(self) -> np.ndarray:
        """Return what pixels are compared with, float64 (R,) of length 1: Rocchio's mean of examples."""
        return query(self.vectors, self.like)


def query(vectors: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the mean of what it should be like, less UNLIKE times the mean of the rest, of length 1: float64 (R,).

    Raises UsageError where nothing is left.
    """
    if not like.any():
        raise UsageError("What it should be unlike says nothing alone. Give --at or --like as well.")
    found = vectors[like].mean(axis=0)
    if not like.all():
        found = found - UNLIKE * vectors[~like].mean(axis=0)
    length = float(np.linalg.norm(found))
    if not length > 1e-9:
        raise UsageError("Examples cancel each other out. Give other ones.")
    return np.asarray(found / length)


@dataclass(frozen=True, eq=False)
class _Read:
    vectors: np.ndarray
    lonlat: np.ndarray


def _vectors(folder: EmbeddingFolder, places: Places) -> _Read:
    values = np.concatenate([each.values[:, 0] for each in sample(folder, places)]).astype(np.float64)
    there = ~np.isnan(values[:, 0])
    if not there.any():
        where = position(*places.lonlat[0]) if len(places) == 1 else places.origin
        swapped = ". Are longitude and latitude swapped?" if outside_but_swapped(folder, places) else "."
        raise NothingToEmbedError(f"{folder.path} has no embedding at {where}{swapped}")
    if not there.all():
        logger.warning("%s: %s without an embedding", places.origin, counted(int((~there).sum()), "place"))
    return _Read(values[there], places.lonlat[there])
