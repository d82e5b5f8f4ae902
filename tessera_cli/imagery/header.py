"""Metadata of a raster file: shape, CRS, transform, dtype, nodata, tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from tessera_cli.errors import reason

ODD_FILE = (ArithmeticError, LookupError, OSError, TypeError, ValueError, RasterioError, CPLE_BaseError)
"""What libraries raise over an odd file; errors of ours that mean something else are none of these."""


class BrokenError(Exception):
    """Raised with the reason when bytes are complete but do not decode."""


@dataclass(frozen=True, eq=False)
class Header:
    """Metadata of the first band of a file."""

    shape: tuple[int, int]
    transform: Affine
    crs: CRS
    dtype: str
    nodata: float | None
    tags: Mapping[str, str]
    bands: int = 1
    scale: float = 1
    offset: float = 0
    palette: bool = False
    """Whether values are numbers of colours."""

    @classmethod
    def of(cls, dataset: DatasetReader) -> Header:
        """Return the metadata of an open file. Raise BrokenError where its pixels have no type or no place on Earth."""
        if dataset.crs is None or dataset.transform.is_identity:
            raise BrokenError("it has no georeference")
        shape, dtype, nodata = (dataset.height, dataset.width), dataset.dtypes[0], dataset.nodatavals[0]
        _check_place(shape, dataset.transform, dataset.crs)
        try:
            kind = np.dtype(dtype)
        except TypeError:
            raise BrokenError(f"its pixels are {dtype}") from None
        if nodata is not None and kind.kind in "iu" and not _holds(kind, nodata):
            nodata = None  # no pixel can have it
        palette = dataset.colorinterp[0] == ColorInterp.palette
        more = dataset.count, dataset.scales[0], dataset.offsets[0], palette
        return cls(shape, dataset.transform, dataset.crs, dtype, nodata, dataset.tags(), *more)

    @cached_property
    def epsg(self) -> int | None:
        code = self.crs.to_epsg()
        return None if code is None else int(code)


def _holds(kind: np.dtype, value: float) -> bool:
    """Return whether an integer type has this value."""
    limits = np.iinfo(kind)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _check_place(shape: tuple[int, int], transform: Affine, crs: CRS) -> None:
    """Raise BrokenError unless pixels have a size and a file of this shape lies on Earth."""
    a, b, _, d, e, _ = transform[:6]
    area, (height, width) = a * e - b * d, shape
    corners = [edge for corner in ((0, 0), (width, 0), (0, height), (width, height)) for edge in transform * corner]
    if not all(map(math.isfinite, (*transform[:6], *corners))) or not area or not math.isfinite(1 / area):
        raise BrokenError("its georeference is degenerate")
    try:
        if not (crs.is_projected or crs.is_geographic):
            raise ValueError("it is neither projected nor geographic")
        middle = transform * (width / 2, height / 2)
        found = rasterio.warp.transform(crs, "EPSG:4326", [middle[0]], [middle[1]])
        if not all(math.isfinite(axis[0]) for axis in found):
            raise ValueError("its pixels lie nowhere on Earth")
    except ODD_FILE as error:
        raise BrokenError(f"its coordinate system cannot be used: {reason(error)}") from error
