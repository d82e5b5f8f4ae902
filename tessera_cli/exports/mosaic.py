"""The tiles of one window on one lattice of pixels, read as if they were one raster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyproj

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.grid import Grid, clipped, grid_around, is_empty
from tessera_cli.embeddings.tile import Box, StoredTile
from tessera_cli.errors import UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models.quantise import Quantiser, quantise
from tessera_cli.outputs.layers import NOT_REQUESTED


class Source(Protocol):
    """What pixels are exported from."""

    @property
    def grid(self) -> Grid: ...

    def values(self, box: Box) -> np.ndarray | None:
        """Return float32 (R, h, w), NaN where there is no embedding; None where no tile reaches."""


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Tiles side by side; all windows of a lattice share one grid, clipped to the pixels that were asked for."""

    name: str
    """Of the zone: `utm31n`."""
    window: Window | None
    grid: Grid
    tiles: tuple[tuple[StoredTile, Box], ...]
    """With the rows and columns of the grid that they take, which may reach beyond it."""
    quantiser: Quantiser
    """The rule by which float32 values become codes."""

    @property
    def window_name(self) -> str:
        return self.window.name if self.window else "undated"

    @property
    def pixels(self) -> int:
        """Return how many pixels have an embedding."""
        return sum(tile.record.pixels for tile, _ in self.tiles)

    def on(self, grid: Grid) -> Mosaic:
        """Return those of the tiles that lie on another grid of the same lattice, on that grid."""
        rows, columns = grid.box_of(self.grid)
        moved = tuple(
            (tile, (_shifted(box[0], rows.start), _shifted(box[1], columns.start))) for tile, box in self.tiles
        )
        near = tuple((tile, box) for tile, box in moved if not is_empty(clipped(box, grid.shape)))
        return replace(self, grid=grid, tiles=near)

    def values(self, box: Box) -> np.ndarray | None:
        """Return float32 (R, h, w), NaN where there is no embedding; None where no tile reaches."""
        out = None
        for tile, inner, outer in self._parts(box):
            if out is None:
                out = np.full((tile.record.dims, *_shape(box)), np.nan, np.float32)
            values = tile.values(inner)
            np.copyto(out[:, *outer], values, where=~np.isnan(values[:1]))  # official tiles may overlap
        return out

    def codes(self, box: Box, gap: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return codes, int8 (R, h, w), `gap` where there is no embedding, and scales, float32 (h, w), NaN there.

        None where no tile reaches. Of folders of float32 the values are quantised, by the rule of the model's family.
        """
        out = None
        for tile, inner, outer in self._parts(box):
            if out is None:
                out = np.full((tile.record.dims, *_shape(box)), gap, np.int8), np.full(_shape(box), np.nan, np.float32)
            codes, scales = tile.stored(inner)
            if scales is None:
                codes, scales = self._quantised(codes)
            there = ~np.isnan(scales)
            np.copyto(out[0][:, *outer], codes, where=there)
            np.copyto(out[1][outer], scales, where=there)
        return out

    def scales(self, box: Box) -> np.ndarray | None:
        """Return the scales alone, float32 (1, h, w)."""
        out = None
        for tile, inner, outer in self._parts(box):
            if out is None:
                out = np.full((1, *_shape(box)), np.nan, np.float32)
            codes, scales = tile.stored(inner, [0] if tile.record.dtype == "int8" else None)
            scales = self._quantised(codes)[1] if scales is None else scales
            np.copyto(out[0][outer], scales, where=~np.isnan(scales))
        return out

    def uncertainty(self, box: Box) -> np.ndarray:
        """Return how far other dates would move each embedding, float32 (h, w); NaN where that is not known."""
        out = np.full(_shape(box), np.nan, np.float32)
        for tile, inner, outer in self._parts(box):
            values = tile.uncertainty(inner)
            np.copyto(out[outer], values, where=~np.isnan(values))
        return out

    def counts(self, box: Box) -> np.ndarray:
        """Return the observations used, float32 (3, h, w) in the order of SENSORS; NaN where none were asked for."""
        out = np.full((len(SENSORS), *_shape(box)), np.nan, np.float32)
        for tile, inner, outer in self._parts(box):
            values = tile.counts(inner)
            np.copyto(out[:, *outer], values, where=values != NOT_REQUESTED)
        return out

    def valid(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and columns (N,) of the pixels with an embedding, tile by tile."""
        for tile, (rows, columns) in self.tiles:
            _, scales = tile.stored(bands=[0])
            values = tile.values(bands=[0])[0] if scales is None else scales
            y, x = np.nonzero(~np.isnan(values))
            yield y + rows.start, x + columns.start

    def _parts(self, box: Box) -> Iterator[tuple[StoredTile, Box, Box]]:
        """Yield the tiles in a box: which of their pixels, and where in the box these lie."""
        for tile, (rows, columns) in self.tiles:
            if rows.start >= box[0].stop or rows.stop <= box[0].start:
                continue
            inner = (_shifted(box[0], -rows.start), _shifted(box[1], -columns.start))
            inner = clipped(inner, tile.record.tile.shape)
            if not is_empty(inner):
                yield (
                    tile,
                    inner,
                    (
                        _shifted(inner[0], rows.start - box[0].start),
                        _shifted(inner[1], columns.start - box[1].start),
                    ),
                )

    def _quantised(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scales = np.full(values.shape[1:], np.nan, np.float32)
        codes = np.zeros(values.shape, np.int8)
        there = ~np.isnan(values[0])
        found, scales[there] = quantise(np.ascontiguousarray(values[:, there].T), self.quantiser)
        codes[:, there] = found.T
        return codes, scales


def mosaics(folder: EmbeddingFolder) -> tuple[Mosaic, ...]:
    """Return one mosaic per lattice and window, the lattices by name and the windows in order of time.

    Raises UsageError for tiles without a georeference.
    """
    lattices: dict[Lattice, list[StoredTile]] = {}
    for tile in folder.tiles:
        place = tile.record.tile
        if place.crs is None or place.transform is None:
            raise UsageError(
                f"{tile.name} has no place on the map, so no raster can hold it. Its arrays open with numpy."
            )
        lattices.setdefault(lattice(_grid_of(tile)), []).append(tile)
    # By the prefix of the model's name, since a folder does not need its weights to be exported.
    quantiser: Quantiser = "v1" if str(folder.first.identity["model"]).startswith("v1") else "v2"
    found, names = [], _names(crs for crs, *_ in sorted(lattices))
    for name, ((crs, step, x, y), tiles) in zip(names, sorted(lattices.items(), key=lambda each: each[0]), strict=True):
        grid = grid_around(crs, step, _asked(tiles), x0=x * step, y0=y * step)
        windows = {tile.record.window for tile in tiles}
        for window in sorted(windows - {None}) + [None] * (None in windows):  # type: ignore[type-var]
            placed = [(tile, grid.box_of(_grid_of(tile))) for tile in tiles if tile.record.window == window]
            found.append(Mosaic(name, window, grid, tuple(placed), quantiser))
    return tuple(found)


Lattice = tuple[str, float, float, float]
"""Coordinate system, width of a pixel, and where corners of pixels lie in x and y, as shares of a pixel."""


def lattice(grid: Grid) -> Lattice:
    """Return the lattice of a grid, the same for all whose pixels lie on each other, whatever floats make of it."""
    t = grid.transform
    x, y = (round(corner / t.a % 1, 6) % 1 for corner in (t.c, t.f))
    return grid.crs, t.a, x, y


def _grid_of(tile: StoredTile) -> Grid:
    place = tile.record.tile
    assert place.crs is not None
    assert place.transform is not None
    return Grid(place.crs, place.transform, place.shape)


def _asked(tiles: Iterable[StoredTile]) -> tuple[float, float, float, float]:
    """Return the bounds of the pixels that were asked for."""
    bounds = []
    for tile in tiles:
        rows, columns = (np.flatnonzero(tile.record.requested.any(axis=axis)) for axis in (1, 0))
        if not len(rows):  # it has embeddings, as all tiles here, and does not say where
            bounds.append(tile.record.tile.bounds)
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        bounds.append(_grid_of(tile).part(box).bounds)
    west, south, east, north = zip(*bounds, strict=True)
    return min(west), min(south), max(east), max(north)


def _names(systems: Iterable[str]) -> list[str]:
    """Return names for files of coordinate systems; further lattices of one are numbered: utm31n, utm31n-2."""
    names: list[str] = []
    for crs in systems:
        names.append(crs_name(crs) + (f"-{count + 1}" if (count := sum(_of(name, crs) for name in names)) else ""))
    return names


def _of(name: str, crs: str) -> bool:
    return re.fullmatch(rf"{re.escape(crs_name(crs))}(-\d+)?", name) is not None


def crs_name(crs: str) -> str:
    """Return the name of a coordinate system for files, such as utm31n, epsg3857, and local for one without a code."""
    code = pyproj.CRS(crs).to_epsg()
    if code is None:
        return "local"
    zone, hemisphere = code % 100, {326: "n", 327: "s"}.get(code // 100)
    return f"utm{zone:02d}{hemisphere}" if hemisphere and 1 <= zone <= 60 else f"epsg{code}"


def _shape(box: Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _shifted(each: slice, by: int) -> slice:
    return slice(each.start + by, each.stop + by)
