"""Label files: polygons with a class each, or a raster of classes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import rasterio
import rasterio.windows
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from tessera_cli.errors import UsageError, counted, plainly
from tessera_cli.extent.antimeridian import rejoin, split, unwrap_edges
from tessera_cli.extent.crossings import check_crossings
from tessera_cli.extent.features import bounds_with_holes, check_lonlat, polygons
from tessera_cli.extent.grid import to_utm, utm_epsg
from tessera_cli.extent.raster import open_raster
from tessera_cli.extent.vector import read_vector

logger = logging.getLogger(__name__)

COLUMNS = ("class", "label", "crop", "name")
"""Default columns of classes, in order of preference."""
_WINDOW = 2048  # side in pixels of the windows in which a raster is read


class Hits(NamedTuple):
    """The M labelled pixels among N."""

    numbers: np.ndarray
    """int64 (M,): their positions among the N, rising."""
    values: np.ndarray
    """int64 (M,): their classes, in the numbers of the file."""
    squares: np.ndarray
    """int64 (M, 3): EPSG code, column and row of the square of ground of each pixel's group."""


class Labels(Protocol):
    """A file of labels."""

    def at(self, places: np.ndarray) -> Hits:
        """Label the pixels at int64 (N, 3): EPSG code, easting, northing. An unknown place, code 0, has no label."""
        ...

    def name(self, value: int) -> str:
        """Return the name of a class."""
        ...


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """Parcels. A pixel is labelled if its centre lies within polygons of one class."""

    crs: CRS
    tree: shapely.STRtree
    values: np.ndarray
    """int64 (P,): index into `names` of each polygon."""
    names: tuple[str, ...]
    squares: np.ndarray
    """int64 (P, 3): square of each polygon's centroid."""

    used: np.ndarray
    """bool (P,): polygons that have held a pixel so far; `at` notes them."""

    @classmethod
    def read(cls, path: Path, column: str, side: int, layer: str = "") -> PolygonLabels:
        """Read a vector file; `column` "": the first of `COLUMNS` that is there; `side` of the squares in metres.

        All layers with areas are read, or `layer` alone. Raises UsageError for files that cannot be read, have no CRS,
        no polygon or no column of classes, and for layers that differ in CRS or in the type of their classes.
        """
        layers = read_vector(path, layer or None)
        classes = [_values(each.origin, each.columns, column) for each in layers]
        kept = [each.with_area(given) for each, (given, _) in zip(layers, classes, strict=True)]
        _check_any(path, sum(map(len, kept)))
        if len({(each.crs, values.dtype.kind) for each, (_, values) in zip(layers, classes, strict=True)}) > 1:
            raise UsageError(f"{path}: its layers differ in CRS or in the type of classes. Set probe.layer to one.")
        crs = layers[0].crs
        geometries = np.concatenate([each.geometries[held] for each, held in zip(layers, kept, strict=True)])
        found = [values[held] for (_, values), held in zip(classes, kept, strict=True)]
        names, values = np.unique(np.concatenate(found), return_inverse=True)
        _merge(geometries)
        if crs.is_geographic:
            _unroll(path, geometries)
        _repair(path, geometries)
        enclosing = ~shapely.is_empty(geometries)
        if not enclosing.all():
            text = "%s: left out since nothing is enclosed: %s"
            logger.warning(text, path, counted(int((~enclosing).sum()), "feature"))
            geometries, values = geometries[enclosing], values[enclosing]
        _check_any(path, len(geometries))
        squares = _squares(_centroids(geometries, crs), side)
        if crs.is_geographic:
            _cut(geometries)
        shapely.prepare(geometries)
        texts = tuple(str(name) for name in names)
        return cls(crs, shapely.STRtree(geometries), values, texts, squares, np.zeros(len(geometries), bool))

    def at(self, places: np.ndarray) -> Hits:
        # in the CRS of the polygons, where their edges are straight as drawn
        x, y = _projected(places, self.crs)
        somewhere = np.flatnonzero(np.isfinite(x))
        points, polygons = self.tree.query(shapely.points(x[somewhere], y[somewhere]))
        numbers = somewhere[points]
        inside = shapely.contains_xy(self.tree.geometries[polygons], x[numbers], y[numbers])
        pairs = np.stack([numbers, polygons])[:, inside]
        numbers, polygons = pairs[:, np.lexsort(pairs[::-1])]
        self.used[polygons] = True
        numbers, first = np.unique(numbers, return_index=True)
        values = self.values[polygons]
        one_class = np.minimum.reduceat(values, first) == np.maximum.reduceat(values, first)
        if not one_class.all():
            logger.debug("%d pixels lie in polygons of two classes and are left out", (~one_class).sum())
        return Hits(numbers[one_class], values[first[one_class]], self.squares[polygons[first[one_class]]])

    def name(self, value: int) -> str:
        return self.names[value]


@dataclass(frozen=True, eq=False)
class RasterLabels:
    """A raster of whole numbers; 0 and nodata are no class. A pixel has the class at its centre."""

    path: Path
    crs: CRS
    side: int

    @classmethod
    def open(cls, path: Path, side: int) -> RasterLabels:
        """Open a raster; `side` of the squares in metres. UsageError if it is no raster of one band with a CRS."""
        with _opened(path) as src:
            crs, bands = src.crs, src.count
        if crs is None:
            raise UsageError(f"{path} has no CRS, so its place on Earth is unknown. Assign one.")
        if bands != 1:
            raise UsageError(f"{path} has {bands} bands. Give a raster with one band of classes.")
        return cls(path, CRS.from_user_input(crs), side)

    def at(self, places: np.ndarray) -> Hits:
        x, y = _projected(places, self.crs)
        values = np.zeros(len(places), np.int64)
        with _opened(self.path) as src:
            to_pixel: Affine = ~src.transform
            columns = to_pixel.a * x + to_pixel.b * y + to_pixel.c
            rows = to_pixel.d * x + to_pixel.e * y + to_pixel.f
            inside = np.flatnonzero((rows >= 0) & (rows < src.height) & (columns >= 0) & (columns < src.width))
            cells = np.stack([rows, columns], axis=1)[inside].astype(np.int64)
            windows, members = np.unique(cells // _WINDOW, axis=0, return_inverse=True)
            for number, (row, column) in enumerate((windows * _WINDOW).tolist()):
                here = members.ravel() == number
                size = min(_WINDOW, src.width - column), min(_WINDOW, src.height - row)
                read = src.read(1, window=rasterio.windows.Window(column, row, *size), masked=True)
                values[inside[here]] = self._whole(read[tuple((cells[here] - (row, column)).T)])
        numbers = np.flatnonzero(values)
        return Hits(numbers, values[numbers], _squares(places[numbers], self.side))

    def _whole(self, found: np.ma.MaskedArray) -> np.ndarray:
        values = np.nan_to_num(found.filled(0), posinf=0, neginf=0)
        if (values != np.rint(values)).any():
            raise UsageError(f"{self.path} holds fractions, which are no classes. Give a raster of whole numbers.")
        return values.astype(np.int64)

    def name(self, value: int) -> str:
        return str(value)


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    try:
        with open_raster(path) as src:
            yield src
    except (rasterio.errors.RasterioError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {plainly(error)}. Give a GeoTIFF of classes.") from error


def _values(origin: str, columns: Mapping[str, np.ndarray], wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which features have a class, bool (N,), and the classes (N,): text, or int64 with anything for none."""
    lower = {name.lower(): name for name in reversed(list(columns))}
    name = wanted if wanted else next((lower[usual] for usual in COLUMNS if usual in lower), "")
    if name not in columns:
        what = f"no column {wanted}" if wanted else f"no column called {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
        there = ", ".join(columns) or "none"
        raise UsageError(
            f"{origin} has {what}. Name the classes' one with --set probe.column=NAME; there are: {there}."
        )
    column = columns[name]
    if column.dtype.kind == "O":
        given = np.array([isinstance(value, str) and bool(value.strip()) for value in column], bool)
        return given, np.where(given, column, "").astype(str)
    number = column.dtype.kind in "biuf"
    given = np.isfinite(column) if number else np.zeros(len(column), bool)
    if not number or (column[given] != np.rint(column[given])).any():
        raise UsageError(f"{origin}: the column {name} holds {column.dtype}, no classes. Give text or whole numbers.")
    return given, np.where(given, column, 0).astype(np.int64)  # pyogrio gives whole numbers with nulls as floats


def _check_any(path: Path, count: int) -> None:
    if not count:
        raise UsageError(f"{path} holds no polygon with a class. Give polygons with a column of classes.")


def _unroll(path: Path, geometries: np.ndarray) -> None:
    """Make longitudes continuous across the antimeridian, in place; UsageError for numbers that are no degrees."""
    check_lonlat(str(path), bounds_with_holes(geometries))
    bounds = shapely.bounds(geometries)
    for number in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        try:
            parts = [unwrap_edges(part) for part in shapely.get_parts(geometries[number])]
        except ValueError as error:
            raise UsageError(f"{path}: {error}. Clip the polygon.") from error
        geometries[number] = rejoin(shapely.union_all(parts))


def _merge(geometries: np.ndarray) -> None:
    """Replace collections by the areas in them, in place."""
    for number in np.flatnonzero(shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION):
        geometries[number] = shapely.union_all(list(polygons(geometries[number])))


def _repair(path: Path, geometries: np.ndarray) -> None:
    """Replace bow ties and the like by the areas they enclose, in place."""
    broken = ~shapely.is_valid(geometries)
    for geometry in geometries[broken]:
        check_crossings(geometry, str(path))
    geometries[broken] = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)


def _cut(geometries: np.ndarray) -> None:
    """Bring longitudes within -180..180, as those of pixels are, in place."""
    bounds = shapely.bounds(geometries)
    for number in np.flatnonzero((bounds[:, 0] < -180) | (bounds[:, 2] > 180)):
        geometries[number] = shapely.union_all(split(geometries[number]))


def _centroids(geometries: np.ndarray, crs: CRS) -> np.ndarray:
    """Return centroids float64 (P, 3): EPSG code of the UTM zone, easting, northing; code 0 outside of UTM."""
    centroids = shapely.centroid(geometries)
    to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(shapely.get_x(centroids), shapely.get_y(centroids))
    lon = np.mod(lon + 180, 360) - 180
    places = np.zeros((len(geometries), 3))
    known = np.isfinite(lon) & np.isfinite(lat)
    places[known, 0] = [utm_epsg(*pair) for pair in zip(lon[known], lat[known], strict=True)]
    for zone in np.unique(places[known, 0]):
        here = places[:, 0] == zone
        places[here, 1:] = np.stack(to_utm(int(zone)).transform(lon[here], lat[here]), axis=1)
    return places


def _squares(places: np.ndarray, side: int) -> np.ndarray:
    """Return the squares of `side` metres around places (N, 3): EPSG code, column and row, int64 (N, 3)."""
    return np.floor_divide(places, (1, side, side)).astype(np.int64)


def _projected(places: np.ndarray, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of pixels' centres in a CRS, float64 (N,); NaN for unknown places."""
    found = np.full((2, len(places)), np.nan)
    for zone in np.unique(places[:, 0]):
        if zone > 0:
            here = places[:, 0] == zone
            found[:, here] = _from_zone(int(zone), crs).transform(*places[here, 1:].T)
    found[~np.isfinite(found)] = np.nan
    return found[0], found[1]


@functools.lru_cache
def _from_zone(epsg: int, crs: CRS) -> Transformer:
    return Transformer.from_crs(epsg, crs, always_xy=True)
