"""Metadata of a raster file: shape, CRS, transform, dtype, nodata, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader


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
        if dataset.crs is None or dataset.transform.is_identity:
            raise BrokenError("it has no georeference")
        shape, nodata = (dataset.height, dataset.width), dataset.nodatavals[0]
        palette = dataset.colorinterp[0] == ColorInterp.palette
        more = dataset.count, dataset.scales[0], dataset.offsets[0], palette
        return cls(shape, dataset.transform, dataset.crs, dataset.dtypes[0], nodata, dataset.tags(), *more)

    @cached_property
    def epsg(self) -> int | None:
        code = self.crs.to_epsg()
        return None if code is None else int(code)
