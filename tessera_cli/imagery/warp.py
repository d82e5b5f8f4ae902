"""Warp the part of a file under a grid to its pixels, as GDAL does."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.aligned import Alignment, PixelGrid
from tessera_cli.imagery.blocks import bounding_slices, pixel_windows
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import Header

MARGIN, MARGIN_OTHER_ZONE = 4, 48
"""Pixels of the file around the grid, more where a pixel of the grid covers several. Bilinear needs 1; across zones
GDAL's approximate transform gives the values that it gives with the whole file from 32 on (measured with GDAL 3.10)."""

_WEIGHTED = ("bilinear", "cubic", "cubic_spline", "lanczos", "gauss")


def on_tile(file: GeoTiffFile, tile: Tile, resampling: str, dtype: str, wanted: np.ndarray | None = None) -> np.ndarray:
    """Return (H, W) of the tile; 0 (integers) or the file's nodata (floats) where the file has no data.

    `wanted`: bool (H, W), the pixels that matter; the others may hold anything. None: all.
    """
    header = file.header
    some = None if wanted is None or wanted.all() else wanted
    around = None if some is None else pixel_windows(some, tile, header)
    box = None if some is None else bounding_slices(some)
    return on_grid(file, tile, resampling, dtype, 0 if _integers(header) else _nodata(header), header, around, box)


def on_grid(
    file: GeoTiffFile,
    grid: PixelGrid,
    resampling: str,
    dtype: str,
    fill: float | None,
    header: Header,
    pixel_windows: np.ndarray | None = None,
    box: tuple[slice, slice] | None = None,
) -> np.ndarray:
    """Return (H, W) of the grid, `fill` where the file has no data.

    `resampling`: a name of `rasterio.enums.Resampling`. `header`: the file's, perhaps with another nodata. Pixels of
    the file outside `pixel_windows` (see `GeoTiffFile.pixels`) and pixels of the grid outside `box` need not be right.

    The values are those of a WarpedVRT of the whole file, as in the official code: in the file's own type, bilinear
    rounded half up. The nodata tag decides what no data is; zeros of integers without a tag are ordinary values, floats
    without one have NaN. What is warped follows from the grid alone: a pixel depends neither on which others are wanted
    nor on where the file lies.
    """
    nodata, empty = _nodata(header), None
    if (window := window_under(grid, header, resampling)) is None:
        return np.full(grid.shape, fill, dtype)
    pixels = file.pixels(window, pixel_windows)
    if (alignment := Alignment.of(grid, header, resampling)) is None:
        values, empty = _warped(pixels, window, header, nodata, grid, resampling)
    else:
        values = np.full(grid.shape, fill, dtype) if nodata is None else np.full(grid.shape, nodata, header.dtype)
        alignment.put(pixels, window, box or (slice(0, grid.shape[0]), slice(0, grid.shape[1])), values)
    if empty is None and nodata is not None and nodata is not fill and nodata != fill:
        empty = np.isnan(values) if np.isnan(nodata) else values == nodata
    layer = values.astype(dtype, copy=False)
    if empty is not None:
        layer[empty] = fill
    return layer


def _integers(header: Header) -> bool:
    return np.dtype(header.dtype).kind != "f"


def _nodata(header: Header) -> float | None:
    """Return the value without data; None if all are data."""
    return header.nodata if _integers(header) or header.nodata is not None else np.nan


def _warped(
    pixels: np.ndarray,
    window: PixelWindow,
    header: Header,
    nodata: float | None,
    grid: PixelGrid,
    resampling: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (H, W) as GDAL warps it and, of integers, bool (H, W): where there is no data."""
    height, width = grid.shape
    part = {"height": int(window.height), "width": int(window.width), "count": 1, "dtype": header.dtype}
    transform = rasterio.windows.transform(window, header.transform)
    georeference = {"crs": header.crs, "transform": transform, "nodata": nodata}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **part, **georeference) as dataset:
            dataset.write(pixels, 1)
        with (
            memory.open() as dataset,
            WarpedVRT(
                dataset,
                crs=grid.crs,
                transform=grid.transform,
                height=height,
                width=width,
                resampling=Resampling[resampling],
                add_alpha=nodata is None,
            ) as vrt,
        ):
            if nodata is None:  # masks of GDAL know an alpha band only beside uint8 and uint16
                values, alpha = vrt.read()
                return values, alpha == 0
            if not _integers(header):
                return vrt.read(1), None
            warped = vrt.read(1, masked=True)
            return warped.data, np.ma.getmaskarray(warped)


@lru_cache(256)
def window_under(grid: PixelGrid, header: Header, resampling: str = "nearest") -> PixelWindow | None:
    """Return the part of the file under the grid, with a margin; None if the file lies elsewhere."""
    crs, (height, width) = CRS.from_user_input(grid.crs), header.shape
    whole, all_of_it = _box(grid.transform, grid.shape), PixelWindow(0, 0, width, height)
    box = whole
    same = header.crs == crs or (header.epsg is not None and header.epsg == crs.to_epsg())
    inner = box
    if not same:
        own = rasterio.warp.transform_bounds(header.crs, crs, *_box(header.transform, header.shape))
        if own[0] > own[2]:  # it crosses the antimeridian
            return all_of_it
        # A grid of half the globe has no bounds in the file's zone; its part around the file has.
        box = (max(box[0], own[0]), max(box[1], own[1]), min(box[2], own[2]), min(box[3], own[3]))
        if not (box[0] < box[2] and box[1] < box[3]):
            return None
        inner = rasterio.warp.transform_bounds(crs, header.crs, *box)
    if not all(math.isfinite(edge) for edge in inner):
        return None
    west, south, east, north = inner
    corners = [~header.transform * point for point in ((west, north), (east, north), (west, south), (east, south))]
    left, right = (f(x for x, _ in corners) for f in (min, max))
    top, bottom = (f(y for _, y in corners) for f in (min, max))
    margin = MARGIN if same else MARGIN_OTHER_ZONE
    if (ratio := _pixels_per_pixel(grid, crs, box, header)) > 1.25:
        inside = box == whole and left >= 0 and top >= 0 and right <= width and bottom <= height
        if resampling in _WEIGHTED and not inside:  # GDAL takes the width of its kernel from what it reads of the file
            return all_of_it
        margin = math.ceil(margin * ratio)
    first, last = max(0, math.floor(top) - margin), min(height, math.ceil(bottom) + margin)
    begin, end = max(0, math.floor(left) - margin), min(width, math.ceil(right) + margin)
    return PixelWindow(begin, first, end - begin, last - first) if first < last and begin < end else None


def _box(transform: Affine, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a raster."""
    height, width = shape
    x, y = zip(*(transform * corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True)
    return min(x), min(y), max(x), max(y)


def _pixels_per_pixel(grid: PixelGrid, crs: CRS, box: tuple[float, float, float, float], header: Header) -> float:
    """Return how many pixels of the file one of the grid is long, in the middle of the box."""
    a, b, _, d, e, _ = grid.transform[:6]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    xs, ys = rasterio.warp.transform(crs, header.crs, [x, x + a, x + b], [y, y + d, y + e])
    (x, y), right, down = (~header.transform * point for point in zip(xs, ys, strict=True))
    return max(math.dist((x, y), right), math.dist((x, y), down))
