"""Find the tiles and pixels under positions, in every coordinate system that the tiles of a window have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import shapely
from pyproj import Transformer
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.extent.antimeridian import rejoin
from tessera_cli.extent.features import densified, polygons
from tessera_cli.extent.grid import utm_epsg
from tessera_cli.extent.tiling import EDGE_STEP

MARGIN = 1.0
"""Degrees around the tiles of a zone; what lies farther away is not projected, since far from its zone UTM has no
place for it, or a wrong one."""


class Hits(NamedTuple):
    """Pixels under positions, sorted by position; the first one of a position is the first to be asked."""

    numbers: np.ndarray
    """int64 (M,): which position; one under which tiles overlap stands several times, one under none not at all."""
    tiles: np.ndarray
    """int64 (M,): which tile of the window."""
    rows: np.ndarray
    columns: np.ndarray

    def take(self, kept: np.ndarray) -> Hits:
        return Hits(*(each[kept] for each in self))


@dataclass(frozen=True, eq=False)
class Zone:
    """The tiles of a window that have one coordinate system."""

    crs: str
    tiles: tuple[StoredTile, ...]
    numbers: np.ndarray
    """int64 (T,): their numbers among all tiles of the window."""

    @cached_property
    def to_metres(self) -> Transformer:
        return Transformer.from_crs(4326, self.crs, always_xy=True)

    @cached_property
    def boxes(self) -> shapely.STRtree:
        """The squares of the tiles, in metres."""
        return shapely.STRtree([shapely.box(*tile.record.tile.bounds) for tile in self.tiles])

    @cached_property
    def transforms(self) -> np.ndarray:
        """float64 (T, 4): left edge, width of a pixel, upper edge, height of a pixel (negative)."""
        transforms = [tile.record.tile.transform for tile in self.tiles]
        return np.array([(t.c, t.a, t.f, t.e) for t in transforms if t is not None])

    @cached_property
    def shapes(self) -> np.ndarray:
        """int64 (T, 2)."""
        return np.array([tile.record.tile.shape for tile in self.tiles])

    @cached_property
    def near(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the tiles in degrees, with a margin; east may exceed 180."""
        to_degrees = Transformer.from_crs(self.crs, 4326, always_xy=True)
        west, south, east, north = to_degrees.transform_bounds(*shapely.total_bounds(self.boxes.geometries))
        return west - MARGIN, south - MARGIN, east + MARGIN + 360 * (east < west), north + MARGIN

    def locate(self, lon: np.ndarray, lat: np.ndarray) -> Hits:
        """Return the pixels under positions in degrees, those of one position in the order of the tiles."""
        west, south, east, north = self.near
        near = np.flatnonzero(((lon - west) % 360 <= east - west) & (south <= lat) & (lat <= north))
        x, y = self.to_metres.transform(lon[near], lat[near])
        finite = np.isfinite(x) & np.isfinite(y)
        near, x, y = near[finite], x[finite], y[finite]
        found, tiles = self.boxes.query(shapely.points(x, y), predicate="intersects")
        left, width, upper, height = self.transforms[tiles].T
        columns = np.floor((x[found] - left) / width).astype(np.int64)
        rows = np.floor((y[found] - upper) / height).astype(np.int64)
        height, width = self.shapes[tiles].T
        inside = (rows < height) & (columns < width)  # the lower and right edges belong to the next tiles
        return Hits(near[found], self.numbers[tiles], rows, columns).take(inside)

    def project(self, geometries: np.ndarray, origin: str) -> np.ndarray:
        """Return polygons in metres, object (N,): of each the part near the tiles; None where there is none.

        Edges are cut into short ones first, as those of an area of interest are: they bend.
        """
        west, south, east, north = self.near
        made = np.full(len(geometries), None, object)
        bounds = shapely.bounds(geometries)
        for shift in (-360.0, 0.0, 360.0):
            overlap = (bounds[:, 0] + shift <= east) & (bounds[:, 2] + shift >= west)
            for number in np.flatnonzero(overlap & (bounds[:, 1] <= north) & (bounds[:, 3] >= south)):
                moved = affinity.translate(geometries[number], xoff=shift) if shift else geometries[number]
                if not shapely.box(*self.near).contains(shapely.box(*moved.bounds)):
                    moved = shapely.clip_by_rect(moved, *self.near)
                before = made[number]
                made[number] = moved if before is None else shapely.union(*shapely.make_valid([before, moved]))
        there = np.flatnonzero(shapely.area(made) > 0)  # NaN of None
        dense = [densified(each, EDGE_STEP, origin) for each in made[there]]
        metres = shapely.make_valid(shapely.transform(dense, self.to_metres.transform, interleaved=False))
        made = np.full(len(geometries), None, object)
        for at, geometry in zip(there, metres, strict=True):
            made[at] = shapely.multipolygons(list(polygons(geometry)))
        shapely.prepare(made)
        return made


class TileIndex:
    """The tiles of one window, to be found by place."""

    def __init__(self, tiles: Sequence[StoredTile]) -> None:
        self.tiles = tuple(tiles)
        by_crs: dict[str, list[int]] = {}
        for number, tile in enumerate(self.tiles):
            if tile.record.tile.crs is not None:
                by_crs.setdefault(tile.record.tile.crs, []).append(number)
        self.zones = tuple(
            Zone(crs, tuple(self.tiles[number] for number in numbers), np.array(numbers))
            for crs, numbers in by_crs.items()
        )

    def locate(self, lonlat: np.ndarray) -> Hits:
        """Return the pixels under positions, float64 (N, 2): those of a position's own UTM zone before others."""
        lon, lat = lonlat.T
        found = [zone.locate(lon, lat) for zone in self.zones] or [Hits(*np.zeros((4, 0), np.int64))]
        hits = Hits(*(np.concatenate(each) for each in zip(*found, strict=True)))
        foreign = np.zeros(len(hits.numbers), bool)
        if len(self.zones) > 1:
            zone = np.repeat(np.arange(len(found)), [len(each.numbers) for each in found])
            seen = np.bincount(hits.numbers, minlength=len(lon)) > 1
            for at in np.flatnonzero(seen[hits.numbers]):
                foreign[at] = self.zones[zone[at]].crs != own_crs(*lonlat[hits.numbers[at]])
        return hits.take(np.lexsort((hits.tiles, foreign, hits.numbers)))


def own_crs(lon: float, lat: float) -> str:
    """Return the UTM zone of a position, by the official rule with its exceptions."""
    return f"EPSG:{utm_epsg(lon, lat)}"


def own_crs_of_area(geometry: BaseGeometry) -> str:
    """Return the UTM zone of an area, chosen by its centroid as `embed` does."""
    centroid = rejoin(geometry).centroid
    return own_crs((centroid.x + 180) % 360 - 180, centroid.y)
