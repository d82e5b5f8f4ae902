"""Similarity of every pixel to a query, as a raster, and the similarity from which on a share of the pixels lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera_cli.embeddings.tile import Box
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.part import Advance
from tessera_cli.exports.raster import Raster, write_raster
from tessera_cli.outputs.layers import Layer
from tessera_cli.outputs.tags import derived_tags, window_tags

SIMILARITY = Layer("map", "similarity", "Similarity", "float32", float("nan"), ("data",), ("similarity",))
BINS = 1 << 16


class Ranks:
    """Counts of similarities in narrow bins, -1..1."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)

    def add(self, similarity: np.ndarray) -> None:
        """Count values, any shape; NaN are none."""
        known = similarity[~np.isnan(similarity)]
        self._counts += np.bincount(((known + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1), minlength=BINS)

    @property
    def pixels(self) -> int:
        return int(self._counts.sum())

    def least(self, share: float) -> float:
        """Return the similarity from which on about this share of the values lies, 0..1, and at least one of them."""
        above = np.cumsum(self._counts[::-1])
        bin = int(np.searchsorted(above, max(share * self.pixels, 1)))
        return 1 - 2 * (bin + 1) / BINS


def cosine(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the cosine of each vector, float32 (R, h, w), with a query (R,) of length 1: float32 (h, w).

    NaN where there is no embedding, and for one of length 0.
    """
    rows = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (query.astype(np.float32) @ rows) / np.sqrt(np.einsum("rn,rn->n", rows, rows))
    return found.clip(-1, 1).reshape(values.shape[1:])


def write_similarity(path: Path, mosaic: Mosaic, query: np.ndarray, ranks: Ranks, advance: Advance) -> None:
    """Write the similarity of the pixels of a zone, and count them; memory is that of a box of 512 x 512 pixels."""

    def read(box: Box) -> np.ndarray | None:
        values = mosaic.values(box)
        if values is None:
            return None
        found = cosine(values, query)
        ranks.add(found)
        return found[None]

    write_raster(path, Raster(mosaic.grid, SIMILARITY, 0, _tags(mosaic)), read, advance)


def _tags(mosaic: Mosaic) -> dict[str, str]:
    """Return what a raster says of itself."""
    identity = mosaic.tiles[0][0].record.identity
    return {**derived_tags(identity), **window_tags(mosaic.window), "TESSERA_SEARCH": "similarity"}
