"""A raster of classes or of values as labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.windows import Window

from tessera_cli.errors import UsageError, plainly
from tessera_cli.extent.raster import open_raster
from tessera_cli.labels.components import Components
from tessera_cli.labels.labels import Hits
from tessera_cli.labels.places import in_utm, projected
from tessera_cli.labels.targets import MOST_CLASSES
from tessera_cli.learning.task import Task

WINDOW = 2048
"""Side in pixels of the windows in which a raster is read."""
MARGIN = 512
"""Pixels around the area of interest in which parcels are followed."""
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class RasterLabels:
    """One band of labels. A pixel has the value at its centre; nodata is no label, nor is 0 a class.

    Parcels are connected components (along edges) of pixels of one value.
    """

    path: Path
    crs: CRS
    transform: Affine
    box: Box
    """Rows and columns that are used."""
    task: Task
    left_out: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        path: Path,
        task: Task | None = "classification",
        near: tuple[float, float, float, float] | None = None,
    ) -> RasterLabels:
        """Open a raster, of which only what lies around `near` (west, south, east, north in degrees) is used.

        Without a task, fractions and more than a hundred distinct whole numbers are values, others classes. UsageError
        if it is no raster of one band with a CRS.
        """
        with _opened(path) as src:
            crs, bands, transform, shape, dtype = src.crs, src.count, src.transform, src.shape, src.dtypes[0]
        if crs is None:
            raise UsageError(f"{path} has no CRS, so its place on Earth is unknown. Assign one.")
        if bands != 1:
            raise UsageError(f"{path} has {bands} bands. Give a raster with one band of classes.")
        if np.dtype(dtype).kind == "c":
            raise UsageError(f"{path} holds {dtype}, neither classes nor values. Give whole numbers or float32.")
        known = CRS.from_user_input(crs)
        box = (slice(0, shape[0]), slice(0, shape[1]))
        found = cls(path, known, transform, box if near is None else _near(known, transform, box, near), "regression")
        return replace(found, task=task or found._told())

    def at(self, places: np.ndarray) -> Hits:
        x, y = projected(places, self.crs)
        to_pixel = ~self.transform
        columns = to_pixel.a * x + to_pixel.b * y + to_pixel.c
        rows = to_pixel.d * x + to_pixel.e * y + to_pixel.f
        (top, bottom), (left, right) = ((each.start, each.stop) for each in self.box)
        inside = np.flatnonzero((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))
        cells = np.stack([rows[inside], columns[inside]], axis=1).astype(np.int64)
        values = np.zeros(len(cells), np.float64 if self.task == "regression" else np.int64)
        there = np.zeros(len(cells), bool)
        windows, members = np.unique(cells // WINDOW, axis=0, return_inverse=True)
        with _opened(self.path) as src:
            for number in range(len(windows)):
                here = members.ravel() == number
                mine = cells[here]
                (low, high) = mine.min(axis=0), mine.max(axis=0) + 1
                read, labels = self._read(src, (slice(low[0], high[0]), slice(low[1], high[1])))
                at = tuple((mine - low).T)
                values[here], there[here] = read[at], labels[at]
        cells = cells[there]
        return Hits(inside[there], values[there], self.components.numbers[tuple((cells - (top, left)).T)].astype(int))

    def name(self, value: int) -> str:
        return str(value)

    def places(self, parcels: np.ndarray) -> np.ndarray:
        rows, columns = (self.components.centroids[parcels] + (self.box[0].start, self.box[1].start)).T
        t = self.transform
        return in_utm(t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f, self.crs)

    @cached_property
    def components(self) -> Components:
        """Find the parcels of the box; 4 bytes a pixel."""
        rows, columns = self.box
        shape = max(rows.stop - rows.start, 0), max(columns.stop - columns.start, 0)
        if not all(shape):
            return Components(np.zeros(shape, np.int32), 0)
        with _opened(self.path) as src:

            def read(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
                return self._read(src, (slice(rows.start + first, rows.start + last), columns))

            return Components.of(read, shape)

    def _read(self, src: rasterio.DatasetReader, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return values (h, w) in the type of the file, and which are labels, bool (h, w)."""
        found = src.read(1, window=Window.from_slices(*box), masked=True)
        values, there = found.data, ~np.ma.getmaskarray(found)
        if values.dtype.kind == "f":
            there &= np.isfinite(values)
        if self.task != "regression":
            there &= values != 0
            if values.dtype.kind == "f" and (values != np.rint(values))[there].any():
                raise UsageError(f"{self.path} holds fractions, which are no classes. Give a raster of whole numbers.")
        return values, there

    def _told(self) -> Task:
        """Return the task that the values tell; they are read until it is clear."""
        seen = np.zeros(0)
        rows, columns = self.box
        with _opened(self.path) as src:
            for top in range(rows.start, rows.stop, 256):
                values, there = self._read(src, (slice(top, min(top + 256, rows.stop)), columns))
                values = values[there]
                if values.dtype.kind == "f" and (values != np.rint(values)).any():
                    return "regression"
                seen = np.union1d(seen, values)
                if len(seen) > MOST_CLASSES + 1:  # 0 is none
                    return "regression"
        return "classification"


def _near(crs: CRS, transform: Affine, box: Box, bounds: tuple[float, float, float, float]) -> Box:
    """Return the part of a box around bounds in degrees; all of it where they cannot be told in its CRS."""
    west, south, east, north = Transformer.from_crs(4326, crs, always_xy=True).transform_bounds(*bounds, densify_pts=21)
    if not (np.isfinite([west, south, east, north]).all() and west <= east):
        return box
    x, y = np.array([west, west, east, east]), np.array([south, north, south, north])
    columns, rows = ~transform * (x, y)
    low, high = np.floor([rows.min(), columns.min()]) - MARGIN, np.ceil([rows.max(), columns.max()]) + MARGIN
    parts = [
        slice(*np.clip([first, last], each.start, each.stop).astype(int).tolist())
        for each, first, last in zip(box, low, high, strict=True)
    ]
    return parts[0], parts[1]


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    try:
        with open_raster(path) as src:
            yield src
    except (rasterio.errors.RasterioError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {plainly(error)}. Give a GeoTIFF of classes.") from error
