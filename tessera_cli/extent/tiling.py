"""Cut an AOI into tiles of the grid and the pixels asked for in each."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features
import rasterio.vrt
import shapely
from rasterio.enums import Resampling
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import NothingToEmbedError, UsageError, counted, listed, plainly
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.features import densified, polygons
from tessera_cli.extent.grid import (
    MAX_TILES,
    RESOLUTION,
    TILE_METRES,
    TILE_SIZE,
    Tile,
    TileRequest,
    pack_mask,
    tiles_touching,
    to_utm,
    unpack_mask,
    utm_epsg,
    zone_limits,
)
from tessera_cli.extent.place import position
from tessera_cli.extent.points import masks_by_tile, pixels_by_zone, squares, zones_of_points
from tessera_cli.extent.raster import open_raster
from tessera_cli.extent.window import Window

logger = logging.getLogger(__name__)

MANY = 1000
"""Features from which on it pays to look at all of them at once."""
SMALL = 8
"""Pixels across a small feature."""
DETAILED, BLOCK = 20_000, 16
"""Vertices from which on a geometry is cut to blocks of 16 x 16 tiles first."""
EARTH, SURE = 6_371_000.0, 0.98
"""Radius in metres; the share of a spherical area that grids in UTM have at least."""
ZONE_MARGIN = 0.5
"""Degrees by which a feature may reach beyond its zone before it is cut at the border."""
EDGE_STEP = 0.01
"""Degrees between the points of an edge when it is projected: a straight line in degrees is a curve in metres."""


def tile_requests(
    aoi: Aoi, windows: Sequence[Window], *, epsg: int | None = None, mask: Path | None = None, fill_bbox: bool = False
) -> list[TileRequest]:
    """Return the tiles of the AOI with the pixels whose centre lies in it, or that hold its points.

    They come window after window, in the order of zones, then row by row from the north-west. `epsg` forces one UTM
    zone, `mask` keeps the pixels where a raster is nonzero, `fill_bbox` takes the AOI's bounding box in metres instead
    of its outline. Raises NothingToEmbedError when no pixel is left.
    """
    masks = pixel_masks(aoi, epsg=epsg, mask=mask, fill_bbox=fill_bbox)
    return [TileRequest(tile, window, packed) for window in windows for tile, packed in masks.items()]


def pixel_masks(
    aoi: Aoi, *, epsg: int | None = None, mask: Path | None = None, fill_bbox: bool = False
) -> dict[Tile, bytes]:
    """Return the tiles of the AOI and their pixels, packed: what `tile_requests` asks for in each window."""
    masks: dict[Tile, bytes] = {}
    for tile, pixels in itertools.chain(_tiles_of_areas(aoi, epsg, fill_bbox), _tiles_of_points(aoi, epsg)):
        if mask is not None and pixels.any():
            pixels &= _read_mask(mask, tile)
        if pixels.any():
            masks[tile] = pack_mask(pixels | unpack_mask(masks[tile], tile.shape) if tile in masks else pixels)
    if not masks:
        what = "no pixel of the mask is nonzero within it" if mask else "it holds no centre of a 10 m pixel"
        raise NothingToEmbedError(f"The AOI {aoi.name} gives nothing to embed: {what}. Enlarge it, or use --fill-bbox.")
    order = sorted(masks, key=lambda tile: (tile.epsg, -tile.row, tile.column))
    return {tile: masks[tile] for tile in order}


def _tiles_of_points(aoi: Aoi, epsg: int | None) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield every tile that holds points, with the pixels that do."""
    zones = pixels_by_zone(aoi.points, epsg)
    _check_count(aoi, sum(len(np.unique(pixels // TILE_SIZE, axis=0)) for pixels in zones.values()))
    for zone, pixels in zones.items():
        yield from masks_by_tile(zone, pixels)


def _tiles_of_areas(aoi: Aoi, epsg: int | None, fill_bbox: bool) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield every tile that the areas touch, with the pixels whose centre lies inside, which may be none."""
    zones = areas_by_zone(aoi, epsg=epsg) if aoi.features else {}
    if fill_bbox:
        zones = {zone: shapely.box(*geometry.bounds) for zone, geometry in zones.items()}
    _check_count(aoi, sum(geometry.area for geometry in zones.values()) / TILE_METRES**2)
    touched = {zone: tiles_touching(geometry, zone) for zone, geometry in zones.items()}
    _check_count(aoi, sum(map(len, touched.values())))
    if not fill_bbox and not aoi.points:
        _warn_of_slivers(aoi, epsg)
    for zone, geometry in zones.items():
        yield from _rasterized(geometry, touched[zone])


def _check_count(aoi: Aoi, tiles: float) -> None:
    """Raise UsageError for more tiles than one run should have; the number may be a lower bound."""
    if tiles > MAX_TILES:
        raise UsageError(
            f"The AOI {aoi.name} covers at least {math.floor(tiles):,} tiles of {TILE_METRES / 1000:g} km, and at most "
            f"{MAX_TILES:,} make one run. Cut it into parts."
        )


def _rasterized(geometry: BaseGeometry, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield every tile with its pixels in `geometry`, as `rasterize` gives them."""
    inside = shapely.contains_properly(geometry, [shapely.box(*tile.bounds) for tile in tiles])
    many = shapely.get_num_coordinates(geometry) > DETAILED
    near: dict[tuple[int, int], BaseGeometry] = {}
    for tile, full in zip(tiles, inside, strict=True):
        if full:
            yield tile, np.ones(tile.shape, bool)
            continue
        part = geometry
        if many:  # then most of it is far from any tile
            block = tile.column // BLOCK, tile.row // BLOCK
            if block not in near:
                west, south = (BLOCK * TILE_METRES * number for number in block)
                square = shapely.box(west, south, west + BLOCK * TILE_METRES, south + BLOCK * TILE_METRES)
                near[block] = shapely.clip_by_rect(geometry, *square.buffer(1000).bounds)
            part = near[block]
        yield tile, rasterize(part, tile)


@functools.lru_cache(maxsize=2)
def areas_by_zone(aoi: Aoi, *, epsg: int | None = None) -> dict[int, BaseGeometry]:
    """Return EPSG code of a UTM zone -> the AOI's part in it, in metres; a feature's centroid chooses its zone.

    Of points alone, these are the squares of their pixels.
    """
    if not aoi.features:
        return {zone: squares(pixels) for zone, pixels in pixels_by_zone(aoi.points, epsg).items()}
    return {zone: _united([part for _, part in parts]) for zone, parts in _parts_by_zone(aoi, epsg).items()}


def _united(parts: list[BaseGeometry]) -> BaseGeometry:
    """Return the union. Of many parts only those are computed together that touch each other."""
    if len(parts) < MANY:
        return shapely.unary_union(parts)
    one, other = shapely.STRtree(parts).query(parts, predicate="intersects")
    group = list(range(len(parts)))

    def first(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        if a < b and (roots := sorted((first(a), first(b)))):
            group[roots[1]] = roots[0]
    groups: dict[int, list[BaseGeometry]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(first(number), []).append(part)
    unions = [shapely.unary_union(touching) if len(touching) > 1 else touching[0] for touching in groups.values()]
    return shapely.multipolygons([each for union in unions for each in polygons(union)])


def features_by_zone(aoi: Aoi, *, epsg: int | None = None) -> dict[int, int]:
    """Return EPSG code of a UTM zone -> number of features in it; one that is cut at a border counts in both zones.

    Of points alone, it is their number.
    """
    if not aoi.features:
        return dict(sorted(Counter(zones_of_points(aoi.points, epsg).tolist()).items()))
    return {zone: len({number for number, _ in parts}) for zone, parts in _parts_by_zone(aoi, epsg).items()}


@functools.lru_cache(maxsize=2)
def _parts_by_zone(aoi: Aoi, epsg: int | None) -> dict[int, list[tuple[int, BaseGeometry]]]:
    """Return EPSG code of a UTM zone, in order -> parts in it, in metres, each with the position of its feature."""
    largest = max(aoi.features, key=lambda feature: feature.area)
    _check_count(aoi, SURE * _square_metres(largest, aoi.name) / TILE_METRES**2)
    if len(aoi.features) >= MANY:
        logger.info("%s: %s are projected and joined", aoi.name, counted(len(aoi.features), "area"))
    zones: dict[int, list[tuple[int, BaseGeometry]]] = {}
    for number, feature in enumerate(aoi.features):
        for zone, part in _cut_to_zones(feature, epsg):
            dense = densified(part, EDGE_STEP, aoi.name)
            metres = shapely.transform(dense, to_utm(zone).transform, interleaved=False)
            if not np.isfinite(metres.bounds).all():
                raise UsageError(f"The AOI {aoi.name} cannot be projected to EPSG:{zone}. Choose a nearer --crs.")
            zones.setdefault(zone, []).append((number, shapely.make_valid(metres)))
    return dict(sorted(zones.items()))


def _square_metres(feature: BaseGeometry, name: str) -> float:
    """Return the area on a sphere: longitude and the sine of latitude are an equal-area map."""
    dense = densified(feature, 1.0, name)
    return EARTH**2 * float(
        shapely.transform(dense, lambda lon, lat: (np.radians(lon), np.sin(np.radians(lat))), interleaved=False).area
    )


def _warn_of_slivers(aoi: Aoi, epsg: int | None) -> None:
    """Warn of features that hold no centre of a pixel, since nothing is embedded for them."""
    held: set[int] = set()
    for zone, parts in _parts_by_zone(aoi, epsg).items():
        metres = [part for _, part in parts]
        inside = shapely.point_on_surface(metres)
        x, y = (
            (np.floor(values / RESOLUTION) + 0.5) * RESOLUTION
            for values in (shapely.get_x(inside), shapely.get_y(inside))
        )
        near = shapely.contains_xy(metres, x, y)  # true of most, and quick
        if len(parts) >= MANY:
            near = near | _holds_centre(np.array(metres, object), near)
        for (number, part), found in zip(parts, near, strict=True):
            if found or any(rasterize(part, tile).any() for tile in tiles_touching(part, zone)):
                held.add(number)
    lost = [feature.centroid for number, feature in enumerate(aoi.features) if number not in held]
    if lost and held:
        where = listed((position(point.x, point.y) for point in lost), 3)
        text = "%s: no embedding for %d of %d areas, which hold no centre of a 10 m pixel: %s"
        logger.warning(text, aoi.name, len(lost), len(aoi.features), where)


def _holds_centre(parts: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which parts hold the centre of a pixel, bool (N,), of small ones that are not `known` to."""
    found = np.zeros(len(parts), bool)
    bounds = shapely.bounds(parts)
    small = (bounds[:, 2:] - bounds[:, :2]).max(axis=1) < SMALL * RESOLUTION
    start = (np.floor(bounds[:, :2] / RESOLUTION) + 0.5) * RESOLUTION
    for column, row in np.ndindex(SMALL + 1, SMALL + 1):
        rest = np.flatnonzero(small & ~known & ~found)
        x, y = (start[rest] + RESOLUTION * np.array([column, row])).T
        found[rest] = shapely.contains_xy(parts[rest], x, y)
    return found


def rasterize(geometry: BaseGeometry, tile: Tile) -> np.ndarray:
    """Return bool (H, W): pixels whose centre lies in `geometry`, in metres of the tile's zone."""
    near = shapely.clip_by_rect(geometry, *shapely.box(*tile.bounds).buffer(20).bounds)
    if near.is_empty or near.area == 0:
        return np.zeros(tile.shape, bool)
    burnt = rasterio.features.rasterize([near], out_shape=tile.shape, transform=tile.transform, dtype="uint8")
    return burnt.astype(bool)


def _cut_to_zones(feature: BaseGeometry, epsg: int | None) -> Iterable[tuple[int, BaseGeometry]]:
    centroid = feature.centroid
    home = epsg or utm_epsg(centroid.x, centroid.y)
    west, east = zone_limits(home % 100, centroid.y)
    inside = west - ZONE_MARGIN <= feature.bounds[0] and feature.bounds[2] <= east + ZONE_MARGIN
    if epsg or inside:
        return [(home, feature)]
    parts = []
    for border in np.arange(np.floor(feature.bounds[0] / 3) * 3, feature.bounds[2], 3.0):
        part = feature.intersection(shapely.box(border, -90, border + 3, 90))
        if part.area > 0:
            parts.append((utm_epsg(border + 1.5, part.centroid.y), part))
    hemisphere = home - home % 100  # one feature keeps its hemisphere, so that it is not split at the equator
    return [(hemisphere + zone % 100, part) for zone, part in parts]


def _read_mask(path: Path, tile: Tile) -> np.ndarray:
    try:
        with open_raster(path) as src:
            if src.crs is None or src.transform.is_identity:
                missing = "CRS" if src.crs is None else "georeference"
                raise UsageError(f"--mask {path} has no {missing}, so its location is unknown. Assign one.")
            with rasterio.vrt.WarpedVRT(
                src,
                crs=tile.crs,
                transform=tile.transform,
                width=tile.shape[1],
                height=tile.shape[0],
                resampling=Resampling.nearest,
                nodata=src.nodata if src.nodata is not None else 0,
            ) as vrt:
                values = vrt.read(1, masked=True)
    except (rasterio.errors.RasterioError, OSError) as error:
        why = plainly(error)
        raise UsageError(f"--mask {path} cannot be read: {why}. Give a raster with a CRS.") from error
    return np.asarray(np.nan_to_num(values.filled(0)) != 0)
