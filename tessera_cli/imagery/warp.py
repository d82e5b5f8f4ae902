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
from tessera_cli.imagery.promises import Promise

MARGIN, MARGIN_OTHER_CRS = 4, 8
"""Pixels of the file around the grid, more where a pixel of the grid covers several: what the kernel reaches. Bilinear
needs 1, and 2 where GDAL widens it since the grids are turned; its approximate transform is wrong by up to 0.125.
None of 4,000 tiles of `tests/imagery/margin_sweep.py` differs from the warp of the whole file."""

_BLOCK = 256
"""Rows and columns of a block of the file that GDAL warps."""


def on_tile(
    file: GeoTiffFile,
    tile: Tile,
    resampling: str,
    dtype: str,
    wanted: np.ndarray | None = None,
    promise: Promise | None = None,
) -> np.ndarray:
    """Return (H, W) of the tile; 0 (integers) or the file's nodata (floats) where the file has no data.

    `wanted`: bool (H, W), the pixels that matter; the others may hold anything. None: all. Raises UnfitError where the
    file breaks the promise: of type before pixels are read, of values before they become `dtype`.
    """
    header = file.header
    if promise is not None:
        promise.check_file(file)
    some = None if wanted is None or wanted.all() else wanted
    around = None if some is None else pixel_windows(some, tile, header)
    box = None if some is None else bounding_slices(some)
    fill = 0 if _integers(header) else _nodata(header)
    layer = on_grid(file, tile, resampling, header.dtype, fill, header, around, box)
    if promise is not None:
        promise.check_values(layer, some, header)
    return layer.astype(dtype, copy=False)


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
    rounded half up. The nodata tag and a mask in the file decide what no data is; zeros of integers without either are
    ordinary values, floats without a tag have NaN. What is warped follows from the grid alone: a pixel depends neither
    on which others are wanted nor on where the file lies.
    """
    nodata, empty = _nodata(header), None
    if (window := window_under(grid, header)) is None:
        return np.full(grid.shape, fill, dtype)
    pixels, mask = file.pixels(window, pixel_windows), file.mask(window, pixel_windows)
    if mask is not None and nodata is not None:
        pixels, mask = np.where(mask, pixels, np.array(nodata, pixels.dtype)), None
    if mask is not None or (alignment := Alignment.of(grid, header, resampling)) is None:
        values, empty = _warped(pixels, mask, window, header, nodata, grid, resampling)
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
    mask: np.ndarray | None,
    window: PixelWindow,
    header: Header,
    nodata: float | None,
    grid: PixelGrid,
    resampling: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (H, W) as GDAL warps it and, of integers, bool (H, W): where there is no data.

    GDAL is shown a file of the size and place of the whole, of which only the window was ever written: how it divides
    the grid, and how wide its kernel is, depend on where the file ends.
    """
    height, width = grid.shape
    whole = {"height": header.shape[0], "width": header.shape[1], "count": 1, "dtype": header.dtype}
    georeference = {"crs": header.crs, "transform": header.transform, "nodata": nodata}
    blocks = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "sparse_ok": True}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **whole, **georeference, **blocks) as dataset:
            dataset.write(pixels, 1, window=window)
            if mask is not None:
                with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                    dataset.write_mask(mask, window=window)
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
def window_under(grid: PixelGrid, header: Header) -> PixelWindow | None:
    """Return the part of the file under the grid, with a margin; None if the file lies elsewhere."""
    crs, (height, width) = CRS.from_user_input(grid.crs), header.shape
    box = inner = _box(grid.transform, grid.shape)
    same = header.crs == crs or (header.epsg is not None and header.epsg == crs.to_epsg())
    if not same:
        own = rasterio.warp.transform_bounds(header.crs, crs, *_box(header.transform, header.shape))
        if own[0] > own[2]:  # it crosses the antimeridian
            return PixelWindow(0, 0, width, height)
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
    margin = math.ceil((MARGIN if same else MARGIN_OTHER_CRS) * max(1, _pixels_per_pixel(grid, crs, box, header)))
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
