"""Mean and standard deviation of the embeddings over polygons, block by block, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.embeddings.tile import Box
from tessera_cli.extent.grid import AnyTile, ForeignTile
from tessera_cli.outputs.geotiff import BLOCK
from tessera_cli.tables.lookup import TileIndex, Zone, own_crs_of_area
from tessera_cli.tables.pixels import Block, Validity
from tessera_cli.tables.samples import Samples

SLAB = 8192
"""Pixels that are summed up at a time: 8 MB of float64."""


class Moments:
    """Number, mean and sum of squared deviations of vectors that come in parts (Chan, Golub and LeVeque 1983)."""

    def __init__(self, places: int, dims: int) -> None:
        self.number = np.zeros(places, np.int64)
        self.mean = np.zeros((places, dims))
        self.squares = np.zeros((places, dims))

    def add(self, place: int, vectors: np.ndarray) -> None:
        """Add float32 (N, dims) to those of a place."""
        for start in range(0, len(vectors), SLAB):
            part = vectors[start : start + SLAB].astype(np.float64)
            mean = part.mean(axis=0)
            before, total = self.number[place], self.number[place] + len(part)
            delta = mean - self.mean[place]
            self.mean[place] += delta * (len(part) / total)
            self.squares[place] += ((part - mean) ** 2).sum(axis=0) + delta**2 * (before * len(part) / total)
            self.number[place] = total


class Areas(NamedTuple):
    """The polygons near the tiles of a zone, in metres."""

    zone: Zone
    geometries: np.ndarray
    """object (P,), None of those that are far away."""
    tree: shapely.STRtree


def average(samples: Samples, window: int, index: TileIndex, validity: Validity) -> np.ndarray:
    """Fill in the means over the pixels whose centre lies in each polygon; return int64: which hold no such centre.

    A pixel counts once, even where tiles overlap: it is left out where a tile of the polygon's own zone, or one before,
    has an embedding at its centre.
    """
    places = samples.places
    moments = Moments(len(places), samples.values.shape[2])
    observed = Moments(len(places), len(SENSORS))
    spread, known = np.zeros((2, len(places)))
    centres, most = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    areas = [
        Areas(zone, projected, shapely.STRtree(projected))
        for zone in index.zones
        for projected in [zone.project(places.geometries, places.origin)]
    ]
    overlaps = _Overlaps(index, validity, areas, places.geometries)
    for area in areas:
        for number, tile in zip(area.zone.numbers.tolist(), area.zone.tiles, strict=True):
            before = moments.number.copy()
            for box, members in _boxes(area, tile.record.tile):
                block: Block | None = None
                for place in members.tolist():
                    rows, columns = _inside(area.geometries[place], tile.record.tile, box)
                    centres[place] += len(rows)
                    if not len(rows):
                        continue
                    if samples.status[place, window] == "outside":
                        samples.status[place, window], samples.tiles[place, window] = "none", tile.record.tile.id
                    block = block or Block.read(tile, box)
                    vectors = block.vectors(rows, columns)
                    kept = ~np.isnan(vectors[:, 0])
                    kept[kept] = ~overlaps.taken(place, number, rows[kept], columns[kept])
                    moments.add(place, vectors[kept])
                    observed.add(place, block.counts(rows[kept], columns[kept]))
                    if samples.uncertainty is not None:
                        told = block.uncertainty(rows[kept], columns[kept])
                        spread[place] += np.nansum(told, dtype=np.float64)
                        known[place] += np.isfinite(told).sum()
            own = moments.number - before
            mine = own > most
            most[mine], samples.tiles[mine, window] = own[mine], tile.record.tile.id
    some = moments.number > 0
    assert samples.std is not None
    samples.values[some, window] = moments.mean[some]
    samples.std[some, window] = np.sqrt(moments.squares[some] / moments.number[some, None])
    samples.counts[some, window] = observed.mean[some]
    if samples.uncertainty is not None:
        told = known > 0
        samples.uncertainty[told, window] = spread[told] / known[told]
    samples.pixels[:, window] = moments.number
    samples.status[some, window] = "ok"
    return np.flatnonzero(centres == 0)


def _boxes(area: Areas, tile: AnyTile) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield the blocks of a tile that polygons touch, cut to their bounds, and which polygons, rising."""
    if not len(area.tree.query(shapely.box(*tile.bounds))):
        return
    assert tile.transform is not None
    height, width = tile.shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            whole = slice(top, min(top + BLOCK, height)), slice(left, min(left + BLOCK, width))
            members = np.sort(area.tree.query(_square(tile.transform, whole), predicate="intersects"))
            if not len(members):
                continue
            boxes = [_box_in(area.geometries[place], tile.transform, whole) for place in members]
            rows = slice(min(box[0].start for box in boxes), max(box[0].stop for box in boxes))
            columns = slice(min(box[1].start for box in boxes), max(box[1].stop for box in boxes))
            if rows.start < rows.stop and columns.start < columns.stop:
                yield (rows, columns), members


def _square(transform: Affine, box: Box) -> BaseGeometry:
    left, upper = transform * (box[1].start, box[0].start)
    right, lower = transform * (box[1].stop, box[0].stop)
    return shapely.box(left, lower, right, upper)


def _box_in(geometry: BaseGeometry, transform: Affine, box: Box) -> Box:
    """Return the rows and columns within `box` that the bounds of a polygon touch; slices may be empty or reversed."""
    west, south, east, north = geometry.bounds
    left, right = np.floor((np.array([west, east]) - transform.c) / transform.a).astype(int)
    top, bottom = np.floor((np.array([north, south]) - transform.f) / transform.e).astype(int)
    rows = slice(max(top, box[0].start), min(bottom + 1, box[0].stop))
    return rows, slice(max(left, box[1].start), min(right + 1, box[1].stop))


def _inside(geometry: BaseGeometry, tile: AnyTile, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels of a box whose centre lies in a polygon."""
    t = tile.transform
    assert t is not None
    near = _box_in(geometry, t, box)
    rows, columns = np.arange(near[0].start, near[0].stop), np.arange(near[1].start, near[1].stop)
    x, y = t.c + t.a * (columns + 0.5), t.f + t.e * (rows + 0.5)
    found = shapely.contains_xy(geometry, *np.meshgrid(x, y))
    at_row, at_column = np.nonzero(found)
    return rows[at_row], columns[at_column]


class _Overlaps:
    """Which pixels of a polygon another tile has already given."""

    def __init__(self, index: TileIndex, validity: Validity, areas: list[Areas], geometries: np.ndarray) -> None:
        self.index, self.validity = index, validity
        self.crs = {number: zone.crs for zone in index.zones for number in zone.numbers.tolist()}
        self.own: dict[int, str] = {}
        tiles = np.zeros(len(geometries), np.int64)
        zones = np.zeros(len(geometries), np.int64)
        for area in areas:
            touched = area.zone.boxes.query(area.geometries, predicate="intersects")[0]
            zones[np.unique(touched)] += 1
            if any(isinstance(tile.record.tile, ForeignTile) for tile in area.zone.tiles):
                tiles += np.bincount(touched, minlength=len(geometries))
        for place in np.flatnonzero((zones > 1) | (tiles > 1)).tolist():  # those of the grid of a zone do not overlap
            self.own[place] = own_crs_of_area(geometries[place])

    def taken(self, place: int, tile: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return bool (N,): which pixels of `tile` have an embedding at their centre in a tile that comes first."""
        taken = np.zeros(len(rows), bool)
        if place not in self.own:
            return taken

        def order(number: int) -> tuple[bool, int]:
            return self.crs[number] != self.own[place], number

        hits = self.index.locate(_centres(self.index, tile, rows, columns))
        first = {number for number in np.unique(hits.tiles).tolist() if order(number) < order(tile)}
        hits = hits.take(np.isin(hits.tiles, list(first)))
        taken[hits.numbers[self.validity.at(hits)]] = True
        return taken


def _centres(index: TileIndex, number: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return longitude and latitude of the centres of pixels, float64 (N, 2)."""
    zone = next(zone for zone in index.zones if number in zone.numbers)
    t = index.tiles[number].record.tile.transform
    assert t is not None
    x, y = t.c + t.a * (columns + 0.5), t.f + t.e * (rows + 0.5)
    return np.stack(zone.to_metres.transform(x, y, direction="INVERSE"), axis=-1)
