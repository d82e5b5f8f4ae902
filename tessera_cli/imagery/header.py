"""Metadata of a raster file: shape, CRS, transform, dtype, nodata, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from affine import Affine
from rasterio.crs import CRS
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
