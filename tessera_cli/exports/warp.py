"""Mosaics of any zones as one raster in another coordinate system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import rasterio.warp
import shapely
from rasterio.enums import Resampling as GdalResampling

from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError
from tessera_cli.exports.grid import Grid, clipped, grid_around, is_empty
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

        Every pixel's place is computed by itself (GDAL would else go by a grid of exact places, with errors up to an
        eighth of a pixel). With `bilinear`, neighbours without an embedding do not count.
        """
        target, out = self.grid.part(box), None
        for mosaic in self.mosaics:
            under = _under(target, mosaic.grid)
            found = None if is_empty(under) else mosaic.values(under)
            if found is None:
                continue
            warped = np.full((len(found), *target.shape), np.nan, np.float32)
            rasterio.warp.reproject(
                found,
                warped,
                src_transform=mosaic.grid.part(under).transform,
                src_crs=mosaic.grid.crs,
                src_nodata=np.nan,
                dst_transform=target.transform,
                dst_crs=target.crs,
                dst_nodata=np.nan,
                resampling=GdalResampling[self.resampling],
                tolerance=0,
            )
            out = warped if out is None else np.where(np.isnan(out[:1]), warped, out)
        return out


def _under(target: Grid, source: Grid) -> Box:
    """Return the rows and columns of the source that lie under the target."""
    try:
        west, south, east, north = rasterio.warp.transform_bounds(
            target.crs, source.crs, *target.bounds, densify_pts=31
        )
    except rasterio.errors.CRSError:  # it lies where the source's system has no coordinates
        return slice(0, 0), slice(0, 0)
    if not np.isfinite([west, south, east, north]).all():
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
    step = resolution or _ten_metres(target)
    if step <= 0:
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
    return grid_around(name, step, (min(west), min(south), max(east), max(north))), areas / pixels


def _ten_metres(crs: pyproj.CRS) -> float:
    """Return 10 m in the unit of the axes; of degrees, those along a meridian."""
    unit = crs.axis_info[0].unit_conversion_factor  # metres, or radians
    return 10 / (unit * EARTH_RADIUS if crs.is_geographic else unit)
