"""Mosaics of any zones as one raster in another coordinate system.

The place of every pixel is computed by itself. GDAL goes by a grid of exact places and promises an eighth of a pixel,
which rasterio's `reproject` does not let one lower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely

from tessera_cli.embeddings.grid import Grid, clipped, grid_around, is_empty
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.request import Resampling

EARTH_RADIUS = 6_371_007  # metres
MARGIN = 4
"""Pixels read around what lies under a box: for the kernel, and for the curve of its edges."""


@dataclass(frozen=True, eq=False)
class Warped:
    """The mosaics of one window, reprojected; where two zones have a pixel, the first of them wins."""

    grid: Grid
    mosaics: tuple[Mosaic, ...]
    resampling: Resampling = "nearest"

    def values(self, box: Box) -> np.ndarray | None:
        """Return float32 (R, h, w), NaN where there is no embedding; None where no tile reaches.

        There is one exactly where the pixel under the centre has one. With `bilinear` it is mixed with those around,
        as far as they have one.
        """
        target, out = self.grid.part(box), None
        for mosaic in self.mosaics:
            under = _under(target, mosaic.grid)
            found = None if is_empty(under) else mosaic.values(under)
            if found is None:
                continue
            warped = _warp(found, mosaic.grid.part(under), target, self.resampling)
            out = warped if out is None else np.where(np.isnan(out[:1]), warped, out)
        return out


def _warp(values: np.ndarray, source: Grid, target: Grid, resampling: Resampling) -> np.ndarray:
    """Return values (R, h, w) on another grid."""
    x, y = target.centres(*np.indices(target.shape))
    east, north = pyproj.Transformer.from_crs(target.crs, source.crs, always_xy=True).transform(x, y)
    with np.errstate(invalid="ignore"):  # infinite, where the source's system has no coordinates
        rows = np.nan_to_num((north - source.transform.f) / source.transform.e, nan=-1, posinf=-1, neginf=-1)
        columns = np.nan_to_num((east - source.transform.c) / source.transform.a, nan=-1, posinf=-1, neginf=-1)
    nearest = _taken(values, np.floor(rows), np.floor(columns))
    if resampling == "nearest":
        return nearest
    rows, columns = rows - 0.5, columns - 0.5
    total, weights = np.zeros_like(nearest), np.zeros(target.shape, np.float32)
    for down in (0, 1):
        for right in (0, 1):
            row, column = np.floor(rows) + down, np.floor(columns) + right
            weight = ((1 - np.abs(rows - row)) * (1 - np.abs(columns - column))).astype(np.float32)
            neighbour = _taken(values, row, column)
            weight[np.isnan(neighbour[0])] = 0
            weights += weight
            total += np.nan_to_num(neighbour, copy=False) * weight
    there = ~np.isnan(nearest[0])
    np.divide(total, weights, out=nearest, where=there)
    return nearest


def _taken(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the pixels at rows and columns, NaN outside."""
    inside = (rows >= 0) & (rows < values.shape[1]) & (columns >= 0) & (columns < values.shape[2])
    out = np.full((len(values), *rows.shape), np.nan, np.float32)
    out[:, inside] = values[:, rows[inside].astype(np.int64), columns[inside].astype(np.int64)]
    return out


def _under(target: Grid, source: Grid) -> Box:
    """Return the rows and columns of the source that lie under the target."""
    to_source = pyproj.Transformer.from_crs(target.crs, source.crs, always_xy=True)
    west, south, east, north = to_source.transform_bounds(*target.bounds, densify_pts=31)
    if not np.isfinite([west, south, east, north]).all():  # the source's system has no coordinates there
        return slice(0, 0), slice(0, 0)
    around = grid_around(
        source.crs, source.transform.a, (west, south, east, north), x0=source.transform.c, y0=source.transform.f
    )
    rows, columns = source.box_of(around)
    wider = slice(rows.start - MARGIN, rows.stop + MARGIN), slice(columns.start - MARGIN, columns.stop + MARGIN)
    return clipped(wider, source.shape)


def target_grid(mosaics: Sequence[Mosaic], crs: str, resolution: float | None) -> tuple[Grid, float]:
    """Return the grid around all mosaics in a coordinate system, and how many of its pixels go to one of theirs.

    `resolution` is in the units of the system; None: 10 m, of degrees along a meridian. UsageError for a system that is
    not known or cannot show the place.
    """
    try:
        target = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise UsageError(f"--crs {crs} is no coordinate system that is known. Give a code: EPSG:3857.") from error
    name = f"EPSG:{target.to_epsg()}" if target.to_epsg() else target.to_wkt()
    step = _ten_metres(target) if resolution is None else resolution
    if not 0 < step < math.inf:
        raise UsageError(f"--resolution {step:g} is no size of a pixel. Give one above 0, in the units of {crs}.")
    bounds, areas, pixels = [], 0.0, 0
    for grid in {mosaic.grid for mosaic in mosaics}:
        outline = shapely.segmentize(shapely.box(*grid.bounds), max(grid.shape) * grid.transform.a / 21)
        to_target = pyproj.Transformer.from_crs(grid.crs, target, always_xy=True).transform
        place = shapely.transform(outline, to_target, interleaved=False)
        if not np.isfinite(place.bounds).all():
            raise UsageError(f"--crs {crs} has no coordinates for {grid.crs}. Choose one that covers the area.")
        bounds.append(place.bounds)
        areas, pixels = areas + place.area / step**2, pixels + grid.pixels
    west, south, east, north = zip(*bounds, strict=True)
    if _is_torn(mosaics, target):
        raise UsageError(
            f"--crs {crs} cuts the world at the antimeridian, and there are tiles on both sides. Choose a system that "
            "does not, such as EPSG:3832."
        )
    return grid_around(name, step, (min(west), min(south), max(east), max(north))), areas / pixels


def _is_torn(mosaics: Sequence[Mosaic], target: pyproj.CRS) -> bool:
    """Return whether there are tiles on both sides of the antimeridian, and its sides lie apart in the system.

    As in degrees and in Mercator: what is neighbours on the ground would be a raster around the world.
    """
    lonlat = []
    for grid in {mosaic.grid for mosaic in mosaics}:
        x, y = grid.transform * (grid.shape[1] / 2, grid.shape[0] / 2)
        lonlat.append(pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y))
    lon, lat = np.transpose(lonlat)
    if lon.max() - lon.min() <= 180:
        return False
    to_target = pyproj.Transformer.from_crs(4326, target, always_xy=True)
    east, west = (np.array(to_target.transform(side, lat.mean())) for side in (179.999999, -179.999999))
    return bool(np.hypot(*(east - west)) > 1000 * _ten_metres(target))


def _ten_metres(crs: pyproj.CRS) -> float:
    """Return 10 m in the unit of the axes; of degrees, those along a meridian."""
    unit = crs.axis_info[0].unit_conversion_factor  # metres, or radians
    return 10 / (unit * EARTH_RADIUS if crs.is_geographic else unit)
