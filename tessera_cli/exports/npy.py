"""Target `npy`: bare arrays, as the official scripts stitch them, and a raster that tells where they lie."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tessera_cli.embeddings.tile import Box
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.part import Advance, Part
from tessera_cli.exports.raster import Raster, write_raster
from tessera_cli.exports.request import ExportRequest
from tessera_cli.outputs.layers import Layer

MASK = Layer("emb", "roi", "1: there is an embedding", "uint8", None, (), ("roi",))


def parts(request: ExportRequest) -> Iterator[Part]:
    """Yield, per zone and window, `utm31n_2023.npy` (H, W, R), `_scales.npy` (H, W) of codes, and `_roi.tiff`."""
    for mosaic in request.mosaics:
        name = f"{mosaic.name}_{mosaic.window_name}"
        suffixes = (".npy", "_scales.npy") if request.dtype == "int8" else (".npy",)
        size = mosaic.grid.pixels * (request.dims + 4 if request.dtype == "int8" else 4 * request.dims)
        files = tuple(name + suffix for suffix in suffixes)
        yield Part(files, functools.partial(_write, request, mosaic, files), mosaic.grid.pixels, bytes=size)
        roi = f"{name}_roi.tiff"
        yield Part((roi,), functools.partial(_write_roi, request, mosaic, roi), mosaic.grid.pixels, mosaic.grid.pixels)


def _write(request: ExportRequest, mosaic: Mosaic, files: tuple[str, ...], folder: Path, advance: Advance) -> None:
    if request.dtype == "int8":
        write_codes(mosaic, request.dims, folder / files[0], folder / files[1], advance)
        return
    array = new_array(folder / files[0], (*mosaic.grid.shape, request.dims), "float32")
    for box in mosaic.grid.boxes():
        values = mosaic.values(box)
        array[box] = np.nan if values is None else np.moveaxis(values, 0, -1)
        advance(array[box][..., 0].size)
    array.flush()


def write_codes(mosaic: Mosaic, dims: int, codes: Path, scales: Path, advance: Advance) -> None:
    """Write codes int8 (H, W, R), 0 where there is no embedding, and scales float32 (H, W), NaN there."""
    of_codes = new_array(codes, (*mosaic.grid.shape, dims), "int8")
    of_scales = new_array(scales, mosaic.grid.shape, "float32")
    of_scales[:] = np.nan
    for box in mosaic.grid.boxes():
        found = mosaic.codes(box, gap=0)
        if found is not None:
            of_codes[box] = np.moveaxis(found[0], 0, -1)
            of_scales[box] = found[1]
        advance(of_scales[box].size)
    of_codes.flush()
    of_scales.flush()


def new_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    """Return a new .npy file of zeros, little-endian and in C order, as an array that is written to the disk."""
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype).newbyteorder("<"), shape, version=(1, 0))
    if hasattr(os, "posix_fallocate"):  # a disk that is full would end the process when a page is written
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write_roi(request: ExportRequest, mosaic: Mosaic, name: str, folder: Path, advance: Advance) -> None:
    def read(box: Box) -> np.ndarray | None:
        scales = mosaic.scales(box)
        return None if scales is None else (~np.isnan(scales)).astype(np.uint8)

    write_raster(folder / name, Raster(mosaic.grid, MASK, 1, request.tags(mosaic), request.compress), read, advance)
