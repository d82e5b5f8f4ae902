"""Target `cog`: a cloud-optimised GeoTIFF per window, and per zone unless zones are merged in one coordinate system."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tessera_cli.embeddings.grid import Grid
from tessera_cli.embeddings.tile import Box
from tessera_cli.exports.mosaic import Mosaic, Source, crs_name
from tessera_cli.exports.part import Advance, Part
from tessera_cli.exports.raster import Raster, Read, check_size, write_raster
from tessera_cli.exports.request import ExportRequest
from tessera_cli.exports.warp import Warped, target_grid
from tessera_cli.outputs.layers import CODES, FORMULA, SCALES, VALUES

WITH_OVERVIEWS = 4 / 3
"""Of the pixels alone."""
MERGE = "Choose another --crs, or export to zarr."
"""What to do about tiles that lie too far apart for one raster."""


def parts(request: ExportRequest) -> Iterator[Part]:
    """Yield the rasters: `utm31n_2023.tif` of values, or `utm31n_2023_codes.tif` and `utm31n_2023_scales.tif`."""
    if request.crs is not None:
        yield from _warped(request, request.crs)
        return
    for mosaic in request.mosaics:
        check_size(mosaic.grid, request.dims, MERGE)
        name = f"{mosaic.name}_{mosaic.window_name}"
        if request.dtype == "float32":
            yield raster_part(request, f"{name}.tif", mosaic.grid, mosaic, mosaic.pixels, mosaic=mosaic)
            continue
        scales = f"{name}_scales.tif"
        tags = {**request.tags(mosaic), "TESSERA_DEQUANTIZE": f"{FORMULA} (band 1 of {scales})"}
        for file, layer in ((f"{name}_codes.tif", CODES), (scales, SCALES)):
            read = functools.partial(_codes, mosaic) if layer is CODES else mosaic.scales
            yield _part(
                request, file, Raster(mosaic.grid, layer, request.dims, tags, request.compress), read, mosaic.pixels
            )


def raster_part(
    request: ExportRequest, name: str, grid: Grid, source: Source, pixels: float, *, mosaic: Mosaic, **tags: str
) -> Part:
    """Return the part that writes a raster of values; `mosaic` tells its window, and `pixels` have an embedding."""
    raster = Raster(grid, VALUES, request.dims, {**request.tags(mosaic), **tags}, request.compress)
    return _part(request, name, raster, source.values, pixels)


def _warped(request: ExportRequest, crs: str) -> Iterator[Part]:
    """Yield one raster per window, all on the same grid."""
    grid, ratio = target_grid(request.mosaics, crs, request.resolution)
    check_size(grid, request.dims, MERGE)
    by_window = sorted(request.mosaics, key=lambda mosaic: mosaic.window_name)
    for window, group in itertools.groupby(by_window, key=lambda mosaic: mosaic.window_name):
        of_window = tuple(group)
        pixels = ratio * sum(mosaic.pixels for mosaic in of_window)
        warped = Warped(grid, of_window, request.resampling)
        yield raster_part(request, f"{crs_name(grid.crs)}_{window}.tif", grid, warped, pixels, mosaic=of_window[0])


def _part(request: ExportRequest, name: str, raster: Raster, read: Read, pixels: float) -> Part:
    size = round(pixels * len(raster.bands) * np.dtype(raster.layer.dtype).itemsize * WITH_OVERVIEWS)

    def write(folder: Path, advance: Advance) -> None:
        write_raster(folder / name, raster, read, advance)

    return Part((name,), write, raster.grid.pixels, bytes=size, scratch=size)


def _codes(mosaic: Mosaic, box: Box) -> np.ndarray | None:
    found = mosaic.codes(box, gap=-128)
    return None if found is None else found[0]
