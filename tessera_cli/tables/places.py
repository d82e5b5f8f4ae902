"""Places to sample: the points or polygons of a file, with its columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError, counted
from tessera_cli.extent.antimeridian import split
from tessera_cli.extent.aoi import Repairs, to_lonlat
from tessera_cli.extent.features import Features, bounds_with_holes, check_lonlat, polygons
from tessera_cli.extent.point_features import NOWHERE, Kind, check_finite, points_in_degrees, points_or_polygons
from tessera_cli.extent.vector import read_vector
from tessera_cli.reading import is_there
from tessera_cli.tables.csv_places import read_csv
from tessera_cli.tables.parquet_places import read_parquet

logger = logging.getLogger(__name__)

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".geoparquet")


@dataclass(frozen=True, eq=False)
class Places:
    """N points, or N polygons, in the order in which they were given."""

    origin: str
    """The file: what messages say."""
    kind: Kind
    geometries: np.ndarray
    """object (N,): Points, or Polygons and MultiPolygons cut at the antimeridian, in degrees (WGS84), longitudes within
    -180..180. None where a row has no geometry."""
    ids: np.ndarray
    """(N,): no value twice. The column `id` of the file, or the index of a GeoDataFrame; else the number of the row
    from 0."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The file's other columns -> values (N,)."""

    @classmethod
    def of(cls, given: AnyPlaces, *, layer: str | None = None) -> Places:
        """Return the places that are given: a path, a GeoDataFrame, geometries or positions.

        Args:
            given: `Places`; the path of a file (see `read`); a GeoDataFrame or GeoSeries; a sequence of shapely
                geometries in degrees; an array (N, 2) of longitude and latitude.
            layer: The layer of a file that has several.

        Raises:
            UsageError: It is none of these, cannot be read, or holds other geometries than points or polygons alone.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str | Path):
            return cls.read(Path(given), layer=layer)
        if layer is not None:
            raise UsageError(f"--layer {layer} chooses a layer of a file, and the places are none. Leave it out.")
        return cls.of_features(_features(given))

    @classmethod
    def read(cls, path: Path, *, layer: str | None = None) -> Places:
        """Return the places of a file: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, KML, GeoParquet or CSV.

        CSV, and Parquet without geometries, must have columns lon and lat (or longitude and latitude, or x and y) in
        degrees. Of a file with several layers one must be chosen. Raises UsageError.
        """
        if not is_there(path):
            raise UsageError(f"{path}: no such file. Give points or polygons: GeoPackage, GeoJSON, CSV or GeoParquet.")
        suffix = path.suffix.lower()
        if suffix in CSV + PARQUET:
            if layer is not None:
                raise UsageError(f"{path} has no layers. Leave out --layer.")
            return cls.of_features(read_csv(path) if suffix in CSV else read_parquet(path))
        layers = read_vector(path, layer, areas=False)
        if len(layers) > 1:
            names = ", ".join(each.origin.removeprefix(f"{path}, layer ") for each in layers)
            raise UsageError(f"{path} has several layers with geometries: {names}. Choose one with --layer.")
        if not layers:
            raise UsageError(f"{path} holds no geometry. Give points or polygons.")
        return cls.of_features(layers[0])

    @classmethod
    def of_features(cls, features: Features) -> Places:
        """Return the features of a layer as places; UsageError unless they are points alone, or polygons alone."""
        kind, geometries = points_or_polygons(features)
        made = _points(features, geometries) if kind == "point" else _polygons(features, geometries)
        absent = int(shapely.is_missing(made).sum())
        if absent == len(made):
            raise UsageError(f"{features.origin} holds no geometry. Give points or polygons.")
        if absent:
            logger.warning("%s: %d of %s have no geometry", features.origin, absent, counted(len(made), "row"))
        ids, columns = _ids(features)
        return cls(features.origin, kind, made, ids, columns)

    def __len__(self) -> int:
        return len(self.geometries)

    @cached_property
    def lonlat(self) -> np.ndarray:
        """Return longitude and latitude, float64 (N, 2), of polygons those of a point inside; NaN without geometry."""
        points = self.geometries if self.kind == "point" else shapely.point_on_surface(self.geometries)
        return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=-1)

    def take(self, positions: np.ndarray | slice) -> Places:
        """Return the places at these positions, in their order."""
        columns = {name: values[positions] for name, values in self.columns.items()}
        return Places(self.origin, self.kind, self.geometries[positions], self.ids[positions], columns)


AnyPlaces: TypeAlias = Places | str | Path | Sequence[BaseGeometry] | np.ndarray | Any
"""What `Places.of` takes; Any: a GeoDataFrame or GeoSeries."""


def _features(given: Any) -> Features:
    """Return the features of a GeoDataFrame or GeoSeries, of geometries, or of positions."""
    if hasattr(given, "to_crs") and hasattr(given, "geometry"):  # geopandas
        if given.crs is None:
            raise UsageError("The places declare no CRS, so their place on Earth is unknown. Assign one with set_crs.")
        own = [name for name in getattr(given, "columns", ()) if name != given.geometry.name]
        columns = {str(name): np.asarray(given[name]) for name in own}
        if not any(name.lower() == "id" for name in columns):
            columns["id"] = np.asarray(given.index)
        return Features("the places", CRS(given.crs), np.array(given.geometry, object), columns)
    try:
        values = np.asarray(given, object)
        if values.ndim == 2 and values.shape[1] == 2:
            numbers = values.astype(np.float64)
            absent = np.isnan(numbers).any(axis=1)
            geometries = np.full(len(numbers), None, object)
            geometries[~absent] = shapely.points(numbers[~absent])
            return Features("the places", CRS(4326), geometries)
        if values.ndim == 1 and all(each is None or isinstance(each, BaseGeometry) for each in values):
            return Features("the places", CRS(4326), values)
    except (TypeError, ValueError):
        pass
    raise UsageError(
        f"Places cannot be made of {type(given).__name__}. Give a path, a GeoDataFrame, geometries or (N, 2) positions."
    )


def _points(features: Features, geometries: np.ndarray) -> np.ndarray:
    """Return points in degrees."""
    lonlat = points_in_degrees(features, geometries)
    there = np.flatnonzero(~shapely.is_missing(geometries))
    made = np.full(len(geometries), None, object)
    made[there] = shapely.points(lonlat[there])
    return made


def _polygons(features: Features, geometries: np.ndarray) -> np.ndarray:
    """Return valid polygons in degrees, cut at the antimeridian; None of those that enclose nothing."""
    there = np.flatnonzero(~shapely.is_missing(geometries))
    coordinates, owners = shapely.get_coordinates(geometries[there], return_index=True)
    x, y = coordinates.T
    check_finite(features, x, y, there[owners], NOWHERE)
    given = geometries[there]
    if features.crs.to_epsg() != 4326:
        given = to_lonlat(given, features)
    made, repairs = np.full(len(geometries), None, object), Repairs()
    for position, geometry in zip(there, given, strict=True):
        check_lonlat(features.origin, bounds_with_holes(geometry))
        whole = [repairs.made(polygon, features.origin) for polygon in polygons(geometry)]
        parts = [part for polygon in whole for part in split(polygon) if part.area > 0]
        if parts:
            made[position] = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    repairs.tell(features.origin)
    return made


def _ids(features: Features) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return an id per row, and the other columns."""
    columns = {name: _plain(values) for name, values in features.columns.items()}
    name = next((name for name in columns if name.lower() == "id"), None)
    if name is not None:
        seen = columns[name].tolist()
        if not any(map(_is_absent, seen)) and len(set(seen)) == len(seen):
            return columns.pop(name), columns
        text = "%s: column %s has empty or equal values, so rows are numbered from 0 in its place"
        logger.warning(text, features.origin, name)
    return np.arange(len(features.geometries)), columns


def _plain(values: np.ndarray) -> np.ndarray:
    """Return a column as numbers, truth values, datetime64, or text, object (N,), None where it has no value."""
    kind = values.dtype.kind
    if kind in "biM":
        return values
    if kind in "uf":
        return values.astype({"float16": np.float32}.get(values.dtype.name, values.dtype))
    given = values.tolist()
    absent = np.array([_is_absent(each) for each in given], bool)
    if kind == "O" and not absent.all():
        there = [each for each in given if not _is_absent(each)]
        if all(isinstance(each, int | float) and not isinstance(each, bool) for each in there):
            return np.array([np.nan if _is_absent(each) else each for each in given], np.float64)
    made = np.full(len(given), None, object)
    made[~absent] = [str(each) for each in given if not _is_absent(each)]
    return made


def _is_absent(value: Any) -> bool:
    """Return whether a value is None, NaN, or what pandas has for neither."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # of pandas.NA
        return True
    except ValueError:  # of an array
        return False
