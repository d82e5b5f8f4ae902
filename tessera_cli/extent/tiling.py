"""Cut an AOI into tiles of the grid and the pixels asked for in each."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features
import rasterio.vrt
import shapely
from rasterio.enums import Resampling
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import NothingToEmbedError, UsageError, listed, reason
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import (
    RESOLUTION,
    Tile,
    TileRequest,
    pack_mask,
    tiles_touching,
    to_utm,
    utm_epsg,
    zone_limits,
)
from tessera_cli.extent.place import position
from tessera_cli.extent.window import Window
from tessera_cli.reading import check_file

logger = logging.getLogger(__name__)

ZONE_MARGIN = 0.5
"""Degrees by which a feature may reach beyond its zone before it is cut at the border."""
EDGE_STEP = 0.01
"""Degrees between the points of an edge when it is projected: a straight line in degrees is a curve in metres."""


def tile_requests(
    aoi: Aoi, windows: Sequence[Window], *, epsg: int | None = None, mask: Path | None = None, fill_bbox: bool = False
) -> list[TileRequest]:
    """Return the tiles of the AOI with the pixels whose centre lies in it, window after window.

    Tiles are in the order of zones, then row by row from the north-west. `epsg` forces one UTM zone, `mask` keeps the
    pixels where a raster is nonzero, `fill_bbox` takes the AOI's bounding box in metres instead of its outline. Raises
    NothingToEmbedError when no pixel centre is left.
    """
    masks: dict[Tile, bytes] = {}
    if not fill_bbox:
        _warn_of_slivers(aoi, epsg)
    for zone, geometry in areas_by_zone(aoi, epsg=epsg).items():
        if fill_bbox:
            geometry = shapely.box(*geometry.bounds)
        for tile in tiles_touching(geometry, zone):
            pixels = rasterize(geometry, tile)
            if mask is not None and pixels.any():
                pixels &= _read_mask(mask, tile)
            if pixels.any():
                masks[tile] = pack_mask(pixels)
    if not masks:
        what = "no pixel of the mask is nonzero within it" if mask else "it holds no centre of a 10 m pixel"
        raise NothingToEmbedError(f"The AOI {aoi.name} gives nothing to embed: {what}. Enlarge it, or use --fill-bbox.")
    return [TileRequest(tile, window, packed) for window in windows for tile, packed in masks.items()]


@functools.lru_cache(maxsize=2)
def areas_by_zone(aoi: Aoi, *, epsg: int | None = None) -> dict[int, BaseGeometry]:
    """Return EPSG code of a UTM zone -> the AOI's part in it, in metres; a feature's centroid chooses its zone."""
    zones = _parts_by_zone(aoi, epsg)
    return {zone: shapely.unary_union([part for _, part in parts]) for zone, parts in zones.items()}


def features_by_zone(aoi: Aoi, *, epsg: int | None = None) -> dict[int, int]:
    """Return EPSG code of a UTM zone -> number of features in it; one that is cut at a border counts in both zones."""
    return {zone: len({number for number, _ in parts}) for zone, parts in _parts_by_zone(aoi, epsg).items()}


@functools.lru_cache(maxsize=2)
def _parts_by_zone(aoi: Aoi, epsg: int | None) -> dict[int, list[tuple[int, BaseGeometry]]]:
    """Return EPSG code of a UTM zone, in order -> parts in it, in metres, each with the position of its feature."""
    zones: dict[int, list[tuple[int, BaseGeometry]]] = {}
    for number, feature in enumerate(aoi.features):
        for zone, part in _cut_to_zones(feature, epsg):
            dense = shapely.segmentize(part, EDGE_STEP)
            metres = shapely.transform(dense, to_utm(zone).transform, interleaved=False)
            if not np.isfinite(metres.bounds).all():
                raise UsageError(f"The AOI {aoi.name} cannot be projected to EPSG:{zone}. Choose a nearer --crs.")
            zones.setdefault(zone, []).append((number, shapely.make_valid(metres)))
    return dict(sorted(zones.items()))


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
        for (number, part), found in zip(parts, near, strict=True):
            if found or any(rasterize(part, tile).any() for tile in tiles_touching(part, zone)):
                held.add(number)
    lost = [feature.centroid for number, feature in enumerate(aoi.features) if number not in held]
    if lost and held:
        where = listed((position(point.x, point.y) for point in lost), 3)
        text = "%s: no embedding for %d of %d areas, which hold no centre of a 10 m pixel: %s"
        logger.warning(text, aoi.name, len(lost), len(aoi.features), where)


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
        check_file(path)
        with rasterio.open(path) as src:
            if src.crs is None:
                raise UsageError(f"--mask {path} has no CRS, so its location is unknown. Assign one.")
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
        why = getattr(error, "strerror", None) or reason(error)
        raise UsageError(f"--mask {path} cannot be read: {why}. Give a raster with a CRS.") from error
    return np.asarray(np.nan_to_num(values.filled(0)) != 0)
