"""A raster file, wherever it lies: what it says of itself, and the pixels of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tessera_cli.imagery.cache import Cache
from tessera_cli.imagery.tiff import Blocks

DESCRIPTION_BYTES = 16 * 2**20
"""Kept of directories whose meaning is known."""


class BrokenError(Exception):
    """The bytes are all there and do not decode; the text says what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of its first band."""

    shape: tuple[int, int]
    transform: Affine
    crs: CRS
    dtype: str
    nodata: float | None
    tags: Mapping[str, str]

    @classmethod
    def of(cls, dataset: DatasetReader) -> Header:
        if dataset.crs is None or dataset.transform.is_identity:
            raise BrokenError("it has no georeference")
        shape, nodata = (dataset.height, dataset.width), dataset.nodatavals[0]
        return cls(shape, dataset.transform, dataset.crs, dataset.dtypes[0], nodata, dataset.tags())

    @cached_property
    def epsg(self) -> int | None:
        code = self.crs.to_epsg()
        return None if code is None else int(code)


class Headers:
    """What GDAL made of directories. Most files of a granule's year describe themselves in the same bytes, and opening
    a file with GDAL takes as long as reading half a million pixels of it."""

    def __init__(self) -> None:
        self._known: Cache[Header] = Cache(DESCRIPTION_BYTES)

    def of(self, description: bytes, opened: Callable[[], AbstractContextManager[DatasetReader]]) -> Header:
        """Of a file with this description (empty: of which no other file has to be the same), opened if need be."""
        header = self._known.get(description) if description else None
        if header is None:
            with opened() as dataset:
                header = Header.of(dataset)
            if description:
                self._known.put(description, header, len(description))
        return header


class File(Protocol):
    """A raster file."""

    def header(self) -> Header: ...

    def pixels(self, window: Window, pixel_windows: np.ndarray | None = None) -> np.ndarray:
        """(H, W) of the first band, of a window within the image.

        `pixel_windows`: int (N, 4), the only pixels that matter, as rectangles: first row, end row, first column, end
        column. Blocks that hold none of them are not read, and 0 in the answer; None: all matter.
        """


def numbers_of(blocks: Blocks, wanted: Sequence[Window]) -> list[int]:
    """Of the blocks under the wanted parts of an image that were ever written."""
    return [n for part in wanted for n in blocks.under(*part.toranges()) if blocks.lengths[n]]


def read_parts(dataset: DatasetReader, window: Window, wanted: Sequence[Window]) -> np.ndarray:
    """The window's pixels in the wanted parts of it, 0 elsewhere."""
    (top, bottom), (left, right) = window.toranges()
    pixels = np.zeros((bottom - top, right - left), dataset.dtypes[0])
    for part in wanted:
        (first, last), (begin, end) = part.toranges()
        dataset.read(1, window=part, out=pixels[first - top : last - top, begin - left : end - left])
    return pixels
