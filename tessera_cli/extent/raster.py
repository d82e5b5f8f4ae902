"""Rasters on this machine: GDAL opens one file, with the one driver that is meant, and nothing that the file names.

Left to itself it goes by what a file holds: a `.tif` may be a VRT that names other files and servers, and a GeoTIFF may
name its overviews anywhere, as may what lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader, MemoryFile

from tessera_cli.reading import open_file, read_file

ALONE: Mapping[str, str | bool] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "none",
}
"""GDAL's settings under which nothing beside a file is read, and nothing on servers."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF begin."""
JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""How JPEG 2000 begins, whose files stand for themselves, too."""
LARGEST = 1 << 30
"""Bytes of a JPEG 2000 file: GDAL is given them all, and no name."""


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as TIFFs do; OSError if it cannot be read."""
    return _beginning(path).startswith(TIFF)


@contextmanager
def open_raster(path: Path) -> Iterator[DatasetReader]:
    """Open a GeoTIFF, or a JPEG 2000 file, by itself; RasterioIOError for anything else, OSError of the disk.

    Read its pixels in full resolution only: for others GDAL opens overviews, which the file may name anywhere.
    """
    with ExitStack() as stack:
        begins = _beginning(path)
        stack.enter_context(rasterio.Env(**ALONE))
        if begins.startswith(TIFF):  # an absolute path is never taken for a URL
            yield stack.enter_context(rasterio.open(path.absolute(), driver="GTiff", sharing=False))
            return
        if not begins.startswith(JPEG_2000):
            raise RasterioIOError("it is no GeoTIFF, nor JPEG 2000; other formats are not read")
        memory = stack.enter_context(MemoryFile(read_file(path, LARGEST)))
        yield stack.enter_context(memory.open(driver="JP2OpenJPEG"))


def _beginning(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read(16)
