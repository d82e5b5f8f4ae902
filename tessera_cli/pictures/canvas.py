"""The grid of a picture: one for all tiles and windows of a folder."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from affine import Affine
from pyproj import Transformer

from tessera_cli.embeddings.grid import grid_around
from tessera_cli.embeddings.tile import Box, StoredTile
from tessera_cli.extent.grid import AnyTile

logger = logging.getLogger(__name__)

WIDEST, MOST_PIXELS = 2048, 2048**2
"""Columns and pixels of the PNG."""
PAGE_PIXELS = 3_000_000
"""Pixels of all pictures on the page together: with their counts about 13 MB where neighbours differ much."""
LARGEST = 1 << 30
"""Pixels of a raster; where an area is larger, its pixels are, too."""
MERCATOR = "EPSG:3857"
FAR = 12.0
"""Degrees of longitude from the middle of a zone in which it serves its neighbours."""
GAP = 8
"""Pixels between tiles that have no place on the map."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """Pixels of a coordinate system, north up; `crs` is None for a sheet of tiles that have no place on the map."""

    crs: str | None
    transform: Affine
    shape: tuple[int, int]
    """Rows and columns: multiples of `png` and `page`, and of twice `page` where the page may become too large."""
    png: int = 1
    """Pixels of the picture per pixel of the PNG, along a side."""
    page: int = 1
    """And per pixel of the page."""
    sheet: Mapping[str, Affine] = field(default_factory=dict)
    """Where tiles lie that do not say so: id -> pixel corner."""

    @classmethod
    def of(cls, tiles: Sequence[StoredTile], windows: int) -> Canvas:
        """Return the grid around what was asked for in the tiles, of which all or none have a georeference.

        In the zone of most pixels, on the grid of its tiles, if the others are near; else in Web Mercator.
        """
        if tiles[0].record.tile.transform is None:
            return _sheet(tiles)._sized(windows)
        crs = _common_crs(tiles)
        first = next((tile.record.tile for tile in tiles if tile.record.tile.crs == crs), None)
        west, south, east, north = _bounds(tiles, crs)
        if first is not None and first.transform is not None:
            step, x0, y0 = abs(first.transform.a), first.transform.c, first.transform.f
        else:  # metres of Web Mercator are shorter
            lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(0, (south + north) / 2)[1]
            step, x0, y0 = 10 / math.cos(math.radians(lat)), 0.0, 0.0
        coarse = max(1, math.ceil(math.sqrt((east - west) * (north - south) / step**2 / LARGEST)))
        if coarse > 1:
            logger.warning(
                "the area is large: pixels of the picture are %g m wide, every one a pixel of 10 m", coarse * 10
            )
        step *= coarse
        grid = grid_around(crs, step, (west, south, east, north), x0=x0, y0=y0)
        return cls(crs, grid.transform, grid.shape)._sized(windows)

    def _sized(self, windows: int) -> Canvas:
        """Return the grid with a little added, so that its coarser ones divide it."""
        height, width = self.shape
        png = math.ceil(max(width / WIDEST, math.sqrt(height * width / MOST_PIXELS), height / 8 / WIDEST))
        page = png * math.ceil(math.sqrt(windows * height * width / png**2 / PAGE_PIXELS))
        unit = 2 * page if windows * height * width / page**2 > PAGE_PIXELS / 4 else page
        return replace(self, shape=(-(-height // unit) * unit, -(-width // unit) * unit), png=png, page=page)

    def coarser(self, factor: int) -> Canvas:
        """Return the grid whose pixels are `factor` times as wide, which divides rows and columns."""
        height, width = self.shape
        transform = self.transform * Affine.scale(factor)
        return replace(self, transform=transform, shape=(height // factor, width // factor), png=1, page=1)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north in the units of `crs`."""
        (height, width), t = self.shape, self.transform
        return t.c, t.f + t.e * height, t.c + t.a * width, t.f

    def georeference(self, tile: AnyTile) -> Affine:
        """Return the transform of the tile, from pixel corner to the units of its CRS, or to pixels of the sheet."""
        return self.sheet[tile.id] if tile.transform is None else tile.transform

    def take(self, tile: AnyTile, box: Box, values: np.ndarray, none: int) -> tuple[Box, np.ndarray] | None:
        """Bring pixels of a tile to those of the grid: each takes the one that its centre lies in.

        Args:
            tile: The tile.
            box: Rows and columns of it.
            values: Their values (bands, h, w).
            none: The value where the tile has no pixel.

        Returns:
            Rows and columns of the grid, and their values (bands, h', w'); None if there are none.
        """
        place = self._place(tile, box)
        if place is None:
            return None
        rows, columns = place
        x, y = (np.arange(s.start, s.stop) + 0.5 for s in (columns, rows))
        x, y = self.transform.c + self.transform.a * x, self.transform.f + self.transform.e * y
        own = self.georeference(tile)
        if tile.crs == self.crs:  # rows and columns go by themselves
            row, column = _index(y, own.f, own.e, box[0]), _index(x, own.c, own.a, box[1])
            row, column = row[:, None], column[None]
        else:
            x, y = np.meshgrid(x, y)
            x, y = Transformer.from_crs(self.crs, tile.crs, always_xy=True).transform(x, y)
            row, column = _index(y, own.f, own.e, box[0]), _index(x, own.c, own.a, box[1])
        there = (row >= 0) & (column >= 0)
        return place, np.where(there, values[:, row, column], np.asarray(none, values.dtype))

    def _place(self, tile: AnyTile, box: Box) -> Box | None:
        """Return the rows and columns of the grid around those of a tile."""
        own = self.georeference(tile)
        bounds = (
            own.c + own.a * box[1].start,
            own.f + own.e * box[0].stop,
            own.c + own.a * box[1].stop,
            own.f + own.e * box[0].start,
        )
        west, south, east, north = _transformed(bounds, tile.crs, self.crs)
        t, (height, width) = self.transform, self.shape
        left, right = math.floor((west - t.c) / t.a), math.ceil((east - t.c) / t.a)
        top, bottom = math.floor((north - t.f) / t.e), math.ceil((south - t.f) / t.e)
        rows = slice(max(top, 0), min(bottom, height))
        columns = slice(max(left, 0), min(right, width))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _index(place: np.ndarray, origin: float, step: float, part: slice) -> np.ndarray:
    """Return the number, within a part of an axis of pixels, of the one that holds each place; -1 for none."""
    place = np.where(np.isfinite(place), place, np.inf)
    number = np.floor((place - origin) / step + 1e-6) - part.start
    return np.where((number >= 0) & (number < part.stop - part.start), number, -1).astype(np.intp)


def _common_crs(tiles: Sequence[StoredTile]) -> str:
    """Return the coordinate system of most pixels, or Web Mercator if other tiles lie too far from its middle."""
    pixels: Counter[str] = Counter()
    for tile in tiles:
        pixels[str(tile.record.tile.crs)] += tile.record.pixels
    crs = min(pixels, key=lambda each: (-pixels[each], each))
    if len(pixels) == 1:
        return crs
    middle = next(t.record.tile.outline.centroid.x for t in tiles if t.record.tile.crs == crs)
    away = [t.record.tile.outline.centroid.x - middle for t in tiles]
    return crs if max(abs((each + 180) % 360 - 180) for each in away) <= FAR else MERCATOR


def _bounds(tiles: Sequence[StoredTile], crs: str) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the pixels that were asked for, in the units of `crs`."""
    found = []
    for tile in tiles:
        place, requested = tile.record.tile, tile.record.requested
        requested = requested if requested.any() else ~requested
        rows, columns = (np.flatnonzero(requested.any(axis=axis)) for axis in (1, 0))
        if place.transform is not None:
            west, north = place.transform * (columns[0], rows[0])
            east, south = place.transform * (columns[-1] + 1, rows[-1] + 1)
            found.append(_transformed((west, south, east, north), place.crs, crs))
    west, south, east, north = np.array(found).T
    return float(west.min()), float(south.min()), float(east.max()), float(north.max())


def _transformed(
    bounds: tuple[float, float, float, float], crs: str | None, to: str | None
) -> tuple[float, float, float, float]:
    if crs == to:
        return bounds
    return Transformer.from_crs(crs, to, always_xy=True).transform_bounds(*bounds, densify_pts=21)


def _sheet(tiles: Sequence[StoredTile]) -> Canvas:
    """Lay tiles without a place on the map beside each other, row by row, in a square or so."""
    shapes = {tile.record.tile.id: tile.record.tile.shape for tile in tiles}
    side = math.sqrt(sum((height + GAP) * (width + GAP) for height, width in shapes.values()))
    sheet, left, top, tallest, widest = {}, 0, 0, 0, 0
    for name, (height, width) in shapes.items():
        if left and left + width > side:
            left, top, tallest = 0, top + tallest + GAP, 0
        sheet[name] = Affine(1, 0, left, 0, -1, -top)
        left, tallest, widest = left + width + GAP, max(tallest, height), max(widest, left + width)
    return Canvas(None, Affine(1, 0, 0, 0, -1, 0), (top + tallest, widest), sheet=sheet)
