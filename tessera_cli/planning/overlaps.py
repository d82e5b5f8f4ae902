"""Which scenes lie on which tiles of a run, by footprints: looked up once for all tiles."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.catalog import Scenes, Sensor
from tessera_cli.extent.grid import Tile, TileRequest
from tessera_cli.extent.window import Window

BLOCK = 4096
"""Tiles that are counted at a time, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of a tile and a scene that touches it, by their numbers."""

    scenes: Scenes
    tiles: tuple[Tile, ...]
    windows: tuple[Window, ...]
    tile: np.ndarray
    """int32 (N,), rising."""
    scene: np.ndarray
    """int32 (N,)"""

    @classmethod
    def of(cls, scenes: Scenes, requests: Sequence[TileRequest]) -> Overlaps:
        """Look up the scenes on the tiles of all requests."""
        tiles = tuple(dict.fromkeys(request.on_grid()[0] for request in requests))
        windows = tuple(dict.fromkeys(request.on_grid()[1] for request in requests))
        found = []
        for start in range(0, len(tiles), BLOCK):
            number, scene = scenes.touching(tiles[start : start + BLOCK])
            found.append(np.stack([number + start, scene]).astype(np.int32))
        pairs = np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int32)
        return cls(scenes, tiles, windows, pairs[0], pairs[1])

    @functools.cached_property
    def days(self) -> np.ndarray:
        """Ordinal of each scene's date, int32."""
        return np.array([scene.date.toordinal() for scene in self.scenes.scenes], np.int32)

    @functools.cached_property
    def optical(self) -> np.ndarray:
        """Whether each scene is one of Sentinel-2."""
        return np.array([scene.sensor is Sensor.S2 for scene in self.scenes.scenes], bool)

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Yield the numbers of the first tile of a block and of that after its last; tile and scene of its pairs."""
        for start in range(0, len(self.tiles), BLOCK):
            end = min(start + BLOCK, len(self.tiles))
            first, last = np.searchsorted(self.tile, [start, end])
            yield start, end, self.tile[first:last], self.scene[first:last]

    def within(self, window: Window, scene: np.ndarray) -> np.ndarray:
        """Return which of the scenes, by their numbers, are of the window."""
        inside = (window.start.toordinal() <= self.days) & (self.days <= window.end.toordinal())
        return inside[scene]


def distinct(tile: np.ndarray, value: np.ndarray, tiles: int) -> np.ndarray:
    """Return how many distinct values each of the `tiles` has, int64: `tile` holds the number of the tile of each."""
    pairs = np.sort(tile.astype(np.int64) << 32 | value)
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return np.bincount(pairs[first] >> 32, minlength=tiles)
