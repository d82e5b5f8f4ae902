"""What each tile of a run is expected to cost, from footprints, dates and cloud cover: no pixel is read.

Costs are whole numbers, so that shares of a run are cut alike wherever they are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.catalog import Scene, Sensor
from tessera_cli.dpixels import Stored
from tessera_cli.errors import TileError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.folder import TileFolder
from tessera_cli.planning.overlaps import Overlaps, distinct

CERTAIN = 10_000
"""A clear observation, in the unit of `Expected.clear`: hundredths of a percent."""
READING = 4096
"""Pixels that reading a tile takes as long as: its files are opened however few pixels are asked for."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What is expected of each request of a run, in their order: int64 (N,) each."""

    pixels: np.ndarray
    s2_dates: np.ndarray
    s1_dates: np.ndarray
    clear: np.ndarray
    """Observations of Sentinel-2 that are expected to be clear, in parts of CERTAIN."""
    passes: np.ndarray
    """Observations of Sentinel-1: its dates, both orbit directions counted apart."""

    @classmethod
    def of(cls, overlaps: Overlaps, requests: Sequence[TileRequest]) -> Expected:
        """Count for all requests, whose scenes `overlaps` tells."""
        number = {tile: position for position, tile in enumerate(overlaps.tiles)}
        of_tile = np.array([number[request.on_grid()[0]] for request in requests], np.int64)
        of_window = [request.on_grid()[1] for request in requests]
        counts = {window: _by_tile(overlaps, n) for n, window in enumerate(overlaps.windows)}
        rows = np.array([counts[window][:, tile] for window, tile in zip(of_window, of_tile, strict=True)], np.int64)
        return cls(np.array([request.count for request in requests], np.int64), *rows.reshape(-1, 4).T)

    def tokens(self, chosen: Sequence[int] | np.ndarray) -> tuple[float, float]:
        """Return the observations of Sentinel-2 and Sentinel-1 that a pixel of the chosen tiles has on average."""
        pixels = self.pixels[chosen]
        share = pixels / max(pixels.sum(), 1)
        return float(share @ self.clear[chosen]) / CERTAIN, float(share @ self.passes[chosen])

    @property
    def costs(self) -> list[int]:
        """Return the cost of each tile: pixels times expected observations."""
        tokens = 1 + self.clear // (CERTAIN // 100) + 100 * self.passes
        return ((self.pixels + READING) * tokens).tolist()


def reads(overlaps: Overlaps, requests: Sequence[TileRequest]) -> np.ndarray:
    """Return on how many of the requests each scene lies, int64 (scenes,)."""
    number = {tile: position for position, tile in enumerate(overlaps.tiles)}
    counts = np.zeros(len(overlaps.scenes), np.int64)
    for window in overlaps.windows:
        tiles = np.array([number[r.on_grid()[0]] for r in requests if r.window == window], np.int64)
        if not len(tiles):
            continue
        first, last = np.searchsorted(overlaps.tile, [tiles.min(), tiles.max() + 1])  # of a share, neighbours
        wanted = np.zeros(len(overlaps.tiles), bool)
        wanted[tiles] = True
        scene = overlaps.scene[first:last][wanted[overlaps.tile[first:last]]]
        counts += np.bincount(scene[overlaps.within(window, scene)], minlength=len(counts))
    return counts


def _by_tile(overlaps: Overlaps, window: int) -> np.ndarray:
    """Return the last four fields of `Expected` for each tile in one of the windows, int64 (4, tiles)."""
    scenes, found = overlaps.scenes.scenes, []
    clear = np.array([_clear(scene) for scene in scenes], np.int64)
    orbit = np.array([list(Sensor).index(scene.sensor) for scene in scenes], np.int32)
    for start, end, tile, scene in overlaps.blocks():
        inside = overlaps.within(overlaps.windows[window], scene)
        tile, scene = tile[inside] - start, scene[inside]
        optical = overlaps.optical[scene]
        s2, s1 = scene[optical], scene[~optical]
        passes = overlaps.days[s1].astype(np.int64) * len(Sensor) + orbit[s1]
        found.append(
            [
                distinct(tile[optical], overlaps.days[s2], end - start),
                distinct(tile[~optical], overlaps.days[s1], end - start),
                _best(tile[optical], overlaps.days[s2], clear[s2], end - start),
                distinct(tile[~optical], passes, end - start),
            ]
        )
    return np.concatenate([np.array(block, np.int64) for block in found], axis=1)


def _clear(scene: Scene) -> int:
    """Return how probable it is that a pixel of a scene is clear, in parts of CERTAIN."""
    cover = scene.cloud_cover or 0.0
    return min(max(round((100 - cover) * CERTAIN / 100), 0), CERTAIN)


def _best(tile: np.ndarray, day: np.ndarray, value: np.ndarray, tiles: int) -> np.ndarray:
    """Return the sum over the days of each tile of the largest value of the day, int64 (tiles,)."""
    if not len(tile):
        return np.zeros(tiles, np.int64)
    order = np.lexsort((value, day, tile))
    tile, day, value = tile[order], day[order], value[order]
    last = np.ones(len(tile), bool)
    last[:-1] = (tile[1:] != tile[:-1]) | (day[1:] != day[:-1])
    return np.bincount(tile[last], value[last], tiles).astype(np.int64)


def stored_costs(stores: Sequence[Stored]) -> list[int]:
    """Return the cost of each tile of stored d-pixels: pixels times frames."""
    return [(store.count + READING) * (1 + _frames(store)) for store in stores]


def _frames(store: Stored) -> int:
    try:
        return sum(len(dates) for dates in store.dates.values())
    except TileError:  # it fails at once
        return 0


def frozen_costs(folder: TileFolder, run: str) -> Mapping[str, int]:
    """Return tile -> expected cost, as found when the scenes of a run were frozen; empty if they were not."""
    record = folder.frozen_run(run) or {}
    return dict(zip(record.get("names", []), record.get("costs", []), strict=False))
