"""The area of interest: polygons or points in longitude and latitude, from a file, standard input or a bounding box."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import NothingToEmbedError, UsageError, counted, reason
from tessera_cli.extent.antimeridian import split, unwrap_edges
from tessera_cli.extent.crossings import check_crossings
from tessera_cli.extent.features import Features, bounds_with_holes, check_lonlat, densified, polygons
from tessera_cli.extent.geojson import EXPECTED, read_geojson
from tessera_cli.extent.vector import read_vector

logger = logging.getLogger(__name__)

MAX_LAT, MIN_LAT = 84.0, -80.0  # the range of UTM


@dataclass(frozen=True)
class Aoi:
    """One or more areas, or points; each is embedded in the UTM zone of its own centroid."""

    name: str
    features: tuple[BaseGeometry, ...]
    """Valid polygons or multipolygons in degrees, longitudes within -180..180, none crossing the antimeridian."""
    points: tuple[tuple[float, float], ...] = ()
    """Longitude and latitude in degrees of points, whose pixels are meant; beside areas or in place of them."""

    @classmethod
    def of(cls, given: AnyAoi, *, layer: str | None = None) -> Aoi:
        """Return the area that is given as an `Aoi`, a path, a GeoJSON mapping, a geometry or a GeoDataFrame.

        `layer` chooses one layer of a file; by default every layer that holds areas is used.
        """
        if isinstance(given, str) and not given:
            raise UsageError("The AOI is an empty name. Give a GeoJSON, GeoPackage or Shapefile, or use --bbox.")
        if isinstance(given, str | Path):
            return cls.from_file(Path(given), layer=layer)
        if layer is not None:
            raise UsageError(f"--layer {layer} chooses a layer of a file, and the area is none. Leave it out.")
        if isinstance(given, cls):
            return given
        if getattr(given, "crs", None) is not None and hasattr(given, "to_crs"):  # geopandas
            try:
                given = given.to_crs(4326)
            except Exception as error:  # it has no error of its own
                raise UsageError(f"The area has a CRS that leads nowhere: {reason(error)}. Assign another.") from error
        mapping = given if isinstance(given, Mapping) else getattr(given, "__geo_interface__", None)
        if mapping is None:
            raise UsageError(f"An area cannot be made of {type(given).__name__}. Give a path, GeoJSON or a geometry.")
        try:
            text = json.dumps(mapping, default=_plain)
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"The AOI is not GeoJSON: {reason(error)}. {EXPECTED}") from error
        return cls.from_geojson(text)

    @classmethod
    def from_bbox(cls, west: float, south: float, east: float, north: float, *, name: str = "bbox") -> Aoi:
        """Return a box of longitudes and latitudes; west > east crosses the antimeridian."""
        text = f"--bbox {west:g} {south:g} {east:g} {north:g}"
        if not all(map(np.isfinite, (west, south, east, north))):
            raise UsageError(f"{text}: four finite numbers are needed. Write --bbox WEST SOUTH EAST NORTH in degrees.")
        _check_degrees(text, (west, south, east, north))
        if south >= north:
            raise UsageError(f"{text}: south is not below north. Write --bbox WEST SOUTH EAST NORTH.")
        if west == east:
            raise UsageError(f"{text}: west equals east. Write --bbox WEST SOUTH EAST NORTH.")
        if west < east:
            boxes = split(shapely.box(west, south, east, north))
        elif east + 360 - west < 180:
            boxes = [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
        else:
            raise UsageError(
                f"{text}: west lies east of east. Swap them: --bbox {east:g} {south:g} {west:g} {north:g}."
            )
        return cls(name, tuple(boxes))

    @classmethod
    def from_geojson(cls, text: str | bytes, *, name: str = "aoi", origin: str = "the AOI") -> Aoi:
        """Return the areas of a GeoJSON geometry, Feature, FeatureCollection, or a text sequence of them."""
        return cls.from_layers([read_geojson(text, origin)], name=name, origin=origin)

    @classmethod
    def from_points(cls, lonlat: np.ndarray, *, name: str = "points", origin: str = "the points") -> Aoi:
        """Return points given as longitude and latitude in degrees, (N, 2)."""
        positions = np.asarray(lonlat, float).reshape(-1, 2)
        if not len(positions):
            raise NothingToEmbedError(f"{origin}: there is no point, so there is nothing to embed.")
        _check_degrees(origin, (*positions.min(axis=0), *positions.max(axis=0)))
        return cls(name, (), tuple((lon, lat) for lon, lat in positions.tolist()))

    @classmethod
    def from_file(cls, path: Path, *, layer: str | None = None) -> Aoi:
        """Return the areas of a GeoJSON, GeoPackage, Shapefile or another vector file, or a folder of them.

        Of a file with several layers all are used that hold areas, or `layer` alone.
        """
        try:
            there = path.exists()
        except OSError as error:
            raise UsageError(f"{str(path)[:60]} cannot be read: {error.strerror}. Check the path.") from error
        if not there:
            raise UsageError(f"{path}: no such file. Give a GeoJSON, GeoPackage or Shapefile, or use --bbox.")
        name = path.stem if layer is None else f"{path.stem}-{layer}"
        return cls.from_layers(read_vector(path, layer, columns=False), name=name, origin=str(path))

    @classmethod
    def from_layers(cls, layers: Iterable[Features], *, name: str, origin: str) -> Aoi:
        """Return the areas of layers, made valid and cut at the antimeridian; `origin` is what messages call them."""
        features: list[BaseGeometry] = []
        repairs, collapsed = Repairs(), 0
        for layer in layers:
            geometries = layer.geometries[layer.with_area()]
            if layer.crs.to_epsg() != 4326:
                geometries = to_lonlat(geometries, layer)
            for geometry in geometries:
                _check_degrees(layer.origin, bounds_with_holes(geometry))
                parts = [repairs.made(polygon, layer.origin) for polygon in polygons(geometry)]
                sides = _by_side_of_antimeridian(parts)
                features += sides
                collapsed += not sides
        repairs.tell(origin)
        if collapsed:
            logger.warning("%s: left out since nothing is enclosed: %s", origin, counted(collapsed, "feature"))
        if not features:
            raise NothingToEmbedError(f"{origin} holds no geometry, so there is nothing to embed. Give a polygon.")
        return cls(name, tuple(features))

    @property
    def digest(self) -> str:
        """SHA-256 of the polygons or of the distinct points, without the name."""
        features = (shapely.normalize(feature) for feature in self.features)
        points = map(shapely.Point, set(self.points))
        parts = (shapely.to_wkb(each, byte_order=1) for each in (*features, *points))
        return hashlib.sha256(b"".join(sorted(parts))).hexdigest()

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east and north in degrees."""
        given = [*self.features, *([shapely.MultiPoint(self.points)] if self.points else [])]
        return tuple(float(v) for v in shapely.total_bounds(given))  # type: ignore[return-value]

    @property
    def contents(self) -> str:
        """Return what it holds, such as `2 areas` or `1,000 points`; points beside areas are not told."""
        return counted(len(self.features or self.points), self.kind)

    @property
    def kind(self) -> str:
        return "area" if self.features else "point"


AnyAoi: TypeAlias = Aoi | str | Path | Mapping[str, Any] | BaseGeometry
"""What `Aoi.of` takes, besides whatever has a `__geo_interface__`."""


def _check_degrees(origin: str, bounds: Sequence[float]) -> None:
    check_lonlat(origin, bounds)
    west, south, east, north = bounds
    if north > MAX_LAT or south < MIN_LAT:
        hint = "Clip the area."
        if west >= MIN_LAT and east <= MAX_LAT:
            hint = "Clip the area. Are longitude and latitude swapped? Longitude comes first."
        raise UsageError(
            f"{origin} reaches latitude {north if north > MAX_LAT else south:g}; UTM ends at {MIN_LAT:g} and "
            f"{MAX_LAT:g} degrees. {hint}"
        )


class Repairs:
    """Makes polygons valid, and counts what it changed."""

    def __init__(self) -> None:
        self.crossing = 0
        self.invalid: list[str] = []

    def made(self, polygon: BaseGeometry, origin: str) -> BaseGeometry:
        """Return a valid polygon, with continuous longitudes where it crosses the antimeridian."""
        try:
            unwrapped = unwrap_edges(polygon)
        except ValueError as error:
            raise UsageError(f"{origin}: {error}. Clip the area.") from error
        self.crossing += unwrapped is not polygon
        if unwrapped.is_valid:
            return unwrapped
        check_crossings(unwrapped, origin)
        self.invalid.append(shapely.is_valid_reason(unwrapped))
        return shapely.union_all(list(polygons(shapely.make_valid(unwrapped))))

    def tell(self, origin: str) -> None:
        """Warn of the repairs."""
        if self.crossing:
            text = "%s: taken as crossing the antimeridian: %s with edges of more than 180 degrees of longitude"
            logger.warning(text, origin, counted(self.crossing, "polygon"))
        if self.invalid:
            text = "%s: repaired: %s not valid (%s); check the result"
            logger.warning(text, origin, counted(len(self.invalid), "polygon"), self.invalid[0])


def _by_side_of_antimeridian(polygons: list[BaseGeometry]) -> list[BaseGeometry]:
    """Return one feature, or one per side if the polygons reach the antimeridian from both sides."""
    parts = [part for polygon in polygons for part in split(polygon) if not part.is_empty]
    east = [part for part in parts if part.bounds[0] > 90]
    west = [part for part in parts if part.bounds[2] < -90]
    middle = [part for part in parts if part.bounds[0] <= 90 and part.bounds[2] >= -90]
    groups = [east, west, middle] if east and west else [parts]
    return [shapely.union_all(group) for group in groups if group]


def _plain(value: Any) -> Any:
    """Return arrays as lists, geometries as mappings, and what else JSON has no type for as text."""
    return value.tolist() if isinstance(value, np.ndarray) else getattr(value, "__geo_interface__", str(value))


def to_lonlat(geometries: np.ndarray, layer: Features) -> np.ndarray:
    """Reproject areas of a layer to degrees; edges are densified first, since straight lines do not stay straight."""
    crs = layer.crs
    transform = Transformer.from_crs(crs, 4326, always_xy=True).transform
    step = 1000 / crs.axis_info[0].unit_conversion_factor if crs.is_projected else 0.01
    made = [shapely.transform(densified(g, step, layer.origin), transform, interleaved=False) for g in geometries]
    if not np.isfinite(shapely.get_coordinates(made)).all():
        raise UsageError(f"{layer.origin} cannot be converted from {crs.name} to degrees. Check its CRS.")
    return np.array(made, object)
