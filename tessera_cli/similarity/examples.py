"""Examples: the places that what is searched for should be like, or unlike, and the vector that they come to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.embeddings.angles import unit
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

        Places without an embedding are left out with a warning. Raises NothingToEmbedError where none has any.
        """
        read = [_vectors(folder, places) for places in (*like, *unlike)]
        vectors, lonlat = (np.concatenate(each) for each in zip(*read, strict=True))
        wanted = np.repeat(np.arange(len(read)) < len(like), [len(each) for each, _ in read])
        kept = np.linalg.norm(vectors, axis=1) > 0
        return cls(unit(vectors[kept]), wanted[kept], lonlat[kept])

    @property
    def query(self) -> np.ndarray:
        """Return what pixels are compared with, float64 (R,) of length 1 (Rocchio 1971).

        The mean of what it should be like, less UNLIKE times the mean of the rest; UsageError where nothing is left.
        """
        found = self.vectors[self.like].mean(axis=0)
        if not self.like.all():
            found = found - UNLIKE * self.vectors[~self.like].mean(axis=0)
        length = float(np.linalg.norm(found))
        if not length > 1e-9:
            raise UsageError("Examples cancel each other out. Give other ones.")
        return np.asarray(found / length)


def _vectors(folder: EmbeddingFolder, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of the places that have one, float64 (N, R), and where these are, float64 (N, 2)."""
    values = np.concatenate([each.values[:, 0] for each in sample(folder, places)]).astype(np.float64)
    there = ~np.isnan(values[:, 0])
    if not there.any():
        where = position(*places.lonlat[0]) if len(places) == 1 else places.origin
        swapped = ". Are longitude and latitude swapped?" if outside_but_swapped(folder, places) else "."
        raise NothingToEmbedError(f"{folder.path} has no embedding at {where}{swapped}")
    if not there.all():
        logger.warning("%s: %s without an embedding", places.origin, counted(int((~there).sum()), "place"))
    return values[there], places.lonlat[there]
