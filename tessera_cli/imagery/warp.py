"""The pixels of a file on the grid of a tile: GDAL's warp, of the part of the file that lies under the tile."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import rasterio.warp
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.aligned import Alignment
from tessera_cli.imagery.blocks import bounding_slices, pixel_windows
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import Header

MARGIN, MARGIN_OTHER_ZONE = 4, 48
"""Pixels of the file around the tile. Bilinear needs 1; across zones GDAL's approximate transform gives the values that
it gives with the whole file from 32 on (measured with GDAL 3.10)."""


def on_tile(
    file: GeoTiffFile,
    tile: Tile,
    resampling: Literal["nearest", "bilinear"],
    dtype: str,
    wanted: np.ndarray | None = None,
) -> np.ndarray:
    """(H, W) of the tile; 0 (integers) or the file's nodata (floats) where the file has no data.

    `wanted`: bool (H, W), the pixels that matter; the others may hold anything. None: all.

    The values are those of a WarpedVRT like the official one: in the file's own type, bilinear rounded half up. The
    file's nodata tag decides what no data is; zeros of integers without a tag are ordinary values, floats without one
    have NaN. What is warped follows from the tile alone: a pixel depends neither on which others are wanted nor on
    where the file lies.
    """
    header = file.header
    integers = np.dtype(header.dtype).kind != "f"
    nodata = header.nodata if integers or header.nodata is not None else np.nan
    window = window_under(tile, header)
    if window is None:
        return np.full(tile.shape, 0 if integers else nodata, dtype)
    some = None if wanted is None or wanted.all() else wanted
    around = None if some is None else pixel_windows(some, tile, header)
    pixels = file.pixels(window, around)
    if (alignment := Alignment.of(tile, header, resampling)) is not None:
        layer = np.zeros(tile.shape, header.dtype) if integers else np.full(tile.shape, nodata, header.dtype)
        whole = (slice(0, tile.shape[0]), slice(0, tile.shape[1]))
        alignment.put(pixels, window, whole if some is None else bounding_slices(some), layer)
    else:
        layer = _warped(pixels, window, header, nodata, tile, resampling)
    return layer.astype(dtype, copy=False)


def _warped(
    pixels: np.ndarray,
    window: Window,
    header: Header,
    nodata: float | None,
    tile: Tile,
    resampling: Literal["nearest", "bilinear"],
) -> np.ndarray:
    """(H, W) by GDAL."""
    height, width = tile.shape
    part = {"height": int(window.height), "width": int(window.width), "count": 1, "dtype": header.dtype}
    place = {"crs": header.crs, "transform": rasterio.windows.transform(window, header.transform), "nodata": nodata}
    integers = np.dtype(header.dtype).kind != "f"
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **part, **place) as dataset:
            dataset.write(pixels, 1)
        with (
            memory.open() as dataset,
            WarpedVRT(
                dataset,
                crs=tile.crs,
                transform=tile.transform,
                height=height,
                width=width,
                resampling=Resampling[resampling],
                add_alpha=nodata is None,
            ) as vrt,
        ):
            warped = vrt.read(1, masked=integers)
    return np.asarray(warped.filled(0) if integers else warped)


@lru_cache(256)
def window_under(tile: Tile, header: Header) -> Window | None:
    """The part of the file under the tile, with a margin; None if the file lies elsewhere."""
    west, south, east, north = bounds = tile.bounds
    margin = MARGIN
    if header.epsg != tile.epsg:
        margin = MARGIN_OTHER_ZONE
        west, south, east, north = bounds = rasterio.warp.transform_bounds(tile.crs, header.crs, *bounds)
    if not all(math.isfinite(edge) for edge in bounds):
        return None
    corners = [~header.transform * point for point in ((west, north), (east, north), (west, south), (east, south))]
    left, right = (f(x for x, _ in corners) for f in (min, max))
    top, bottom = (f(y for _, y in corners) for f in (min, max))
    height, width = header.shape
    first, last = max(0, math.floor(top) - margin), min(height, math.ceil(bottom) + margin)
    begin, end = max(0, math.floor(left) - margin), min(width, math.ceil(right) + margin)
    return Window(begin, first, end - begin, last - first) if first < last and begin < end else None
