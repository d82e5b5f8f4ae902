"""Read pixels of tiles: only the blocks that hold them, each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tessera_cli.embeddings.tile import Box, StoredTile
from tessera_cli.outputs.geotiff import BLOCK
from tessera_cli.outputs.layers import NOT_REQUESTED
from tessera_cli.tables.lookup import Hits, TileIndex

CACHED = 64
"""Tiles whose masks of valid pixels are kept: a quarter of a megabyte each."""


@dataclass(frozen=True, eq=False)
class Block:
    """Pixels of one block of a tile, read."""

    stored: np.ndarray
    """int8 codes or float32 values (R, h, w)."""
    scales: np.ndarray | None
    observations: np.ndarray
    """uint16 (3, h, w); without pixels where they are not asked for."""
    spread: np.ndarray
    """float32 (h, w): uncertainties, NaN where they are not known; without pixels where they are not asked for."""
    top: int
    left: int

    @classmethod
    def read(cls, tile: StoredTile, box: Box, *, counts: bool = True) -> Block:
        stored, scales = tile.stored(box)
        observations = tile.counts(box) if counts else np.zeros((3, 0, 0), np.uint16)
        spread = tile.uncertainty(box) if counts else np.zeros((0, 0), np.float32)
        return cls(stored, scales, observations, spread, box[0].start, box[1].start)

    def vectors(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the embeddings of pixels, rows and columns of the tile: float32 (N, R), NaN where there is none."""
        rows, columns = rows - self.top, columns - self.left
        values = self.stored[:, rows, columns].T.astype(np.float32)
        return values if self.scales is None else values * self.scales[rows, columns, None]

    def counts(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the observations of pixels: float32 (N, 3), NaN where none were asked for."""
        found = self.observations[:, rows - self.top, columns - self.left].T
        return np.where(found == NOT_REQUESTED, np.float32(np.nan), found.astype(np.float32))

    def uncertainty(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the uncertainties of pixels: float32 (N,), NaN where they are not known."""
        return self.spread[rows - self.top, columns - self.left]


def blocks_of(hits: Hits) -> Iterator[tuple[int, Box, np.ndarray]]:
    """Yield, for each block that holds any of the pixels, the tile, the box around those, and which they are."""
    keys = np.stack([hits.tiles, hits.rows // BLOCK, hits.columns // BLOCK])
    order = np.lexsort(keys[::-1])
    starts = np.flatnonzero(np.diff(keys[:, order], prepend=-1).any(axis=0))
    for members in np.split(order, starts[1:]) if len(order) else ():
        rows, columns = hits.rows[members], hits.columns[members]
        box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        yield int(hits.tiles[members[0]]), box, members


@dataclass(frozen=True, eq=False)
class Validity:
    """Which pixels have an embedding, where tiles overlap and one must be chosen."""

    index: TileIndex
    _masks: dict[int, np.ndarray] = field(default_factory=dict)

    def at(self, hits: Hits) -> np.ndarray:
        """Return bool (M,)."""
        found = np.zeros(len(hits.numbers), bool)
        for tile in np.unique(hits.tiles).tolist():
            mine = hits.tiles == tile
            found[mine] = self._mask(tile)[hits.rows[mine], hits.columns[mine]]
        return found

    def _mask(self, tile: int) -> np.ndarray:
        if tile not in self._masks:
            if len(self._masks) >= CACHED:
                self._masks.pop(next(iter(self._masks)))
            self._masks[tile] = self.index.tiles[tile].valid()
        return self._masks[tile]


def chosen(hits: Hits, validity: Validity) -> Hits:
    """Return one pixel for each position: the first that has an embedding, else the first."""
    several = np.bincount(hits.numbers)[hits.numbers] > 1 if len(hits.numbers) else np.zeros(0, bool)
    rank = np.zeros(len(hits.numbers), np.int64)
    rank[several] = ~validity.at(hits.take(several))
    ordered = hits.take(np.lexsort((np.arange(len(rank)), rank, hits.numbers)))
    return ordered.take(np.unique(ordered.numbers, return_index=True)[1])


def vectors_at(index: TileIndex, validity: Validity, lonlat: np.ndarray, dims: int) -> np.ndarray:
    """Return the embeddings of the pixels under positions, float64 (N, 2): float32 (N, R), NaN where there is none.

    Where tiles overlap, the first one that has an embedding there is used. One block of a tile is in memory at a time.
    """
    values = np.full((len(lonlat), dims), np.nan, np.float32)
    found = chosen(index.locate(lonlat), validity)
    for tile, box, members in blocks_of(found):
        rows, columns = found.rows[members], found.columns[members]
        values[found.numbers[members]] = Block.read(index.tiles[tile], box, counts=False).vectors(rows, columns)
    return values
