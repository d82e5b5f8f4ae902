"""The area of interest: polygons in longitude and latitude, from a file, standard input or a bounding box."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.antimeridian import split, unroll

logger = logging.getLogger(__name__)

EXPECTED = "Give a geometry, Feature or FeatureCollection."
MAX_LAT, MIN_LAT = 84.0, -80.0  # the range of UTM


@dataclass(frozen=True)
class Aoi:
    """One or more areas; each is embedded in the UTM zone of its own centroid."""

    name: str
    features: tuple[BaseGeometry, ...]
    """Valid polygons or multipolygons in degrees, longitudes within -180..180, none crossing the antimeridian."""

    @classmethod
    def of(cls, given: AnyAoi) -> Aoi:
        """Return the area that is given as an `Aoi`, a path, a GeoJSON mapping, a geometry or a GeoDataFrame."""
        if isinstance(given, cls):
            return given
        if isinstance(given, str | Path):
            return cls.from_file(Path(given))
        if getattr(given, "crs", None) is not None and hasattr(given, "to_crs"):  # geopandas
            given = given.to_crs(4326)
        mapping = given if isinstance(given, Mapping) else getattr(given, "__geo_interface__", None)
        if mapping is None:
            raise UsageError(f"An area cannot be made of {type(given).__name__}. Give a path, GeoJSON or a geometry.")
        return cls.from_geojson(json.dumps(mapping, default=str))

    @classmethod
    def from_bbox(cls, west: float, south: float, east: float, north: float, *, name: str = "bbox") -> Aoi:
        """A box of longitudes and latitudes; west > east crosses the antimeridian."""
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
    def from_geojson(cls, text: str, *, name: str = "aoi", origin: str = "the AOI") -> Aoi:
        """A geometry, Feature, FeatureCollection, or a text sequence of them."""
        objects = _json_objects(text, origin)
        geometries = [g for obj in objects for g in _geometries(obj, origin)]
        crs = next((c for obj in objects if (c := _declared_crs(obj, origin)) is not None), None)
        return cls._checked(name, _to_lonlat(geometries, crs) if crs else geometries, origin)

    @classmethod
    def from_file(cls, path: Path) -> Aoi:
        """GeoJSON, GeoPackage, Shapefile or whatever else pyogrio reads."""
        if not path.exists():
            raise UsageError(f"{path}: no such file. Give a GeoJSON, GeoPackage or Shapefile, or use --bbox.")
        if path.suffix.lower() in {".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson"}:
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} cannot be read: {error}. Check the file.") from error
            return cls.from_geojson(text, name=path.stem, origin=str(path))
        return cls._checked(path.stem, _read_vector(path), str(path))

    @classmethod
    def _checked(cls, name: str, geometries: Iterable[BaseGeometry], origin: str) -> Aoi:
        features: list[BaseGeometry] = []
        for geometry in geometries:
            if geometry.is_empty:
                continue
            polygons = list(_polygons(geometry))
            if not polygons:
                kind = geometry.geom_type
                raise UsageError(f"{origin} holds a {kind}; an area is needed. Give polygons, or buffer the {kind}.")
            _check_degrees(origin, geometry.bounds)
            features += _by_side_of_antimeridian([_sound(polygon, origin) for polygon in polygons])
        if not features:
            raise NothingToEmbedError(f"{origin} holds no geometry, so there is nothing to embed. Give a polygon.")
        return cls(name, tuple(features))

    @property
    def digest(self) -> str:
        """SHA-256 over the polygons; the name does not matter."""
        parts = (shapely.to_wkb(shapely.normalize(f), byte_order=1) for f in self.features)
        return hashlib.sha256(b"".join(sorted(parts))).hexdigest()

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return tuple(float(v) for v in shapely.total_bounds(list(self.features)))  # type: ignore[return-value]


AnyAoi: TypeAlias = Aoi | str | Path | Mapping[str, Any] | BaseGeometry
"""What `Aoi.of` takes, besides whatever has a `__geo_interface__`."""


def _check_degrees(origin: str, bounds: Iterable[float]) -> None:
    west, south, east, north = bounds
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        hint = "Use a file with a CRS, or convert it to WGS84."
        if max(abs(west), abs(east)) <= 90 and max(abs(south), abs(north)) <= 180:
            hint = "Longitude and latitude look swapped: longitude comes first."
        raise UsageError(f"{origin}: {west:g} {south:g} {east:g} {north:g} are not longitudes and latitudes. {hint}")
    if north > MAX_LAT or south < MIN_LAT:
        raise UsageError(
            f"{origin} reaches latitude {north if north > MAX_LAT else south:g}; UTM ends at {MIN_LAT:g} and "
            f"{MAX_LAT:g} degrees. Clip the area."
        )


def _polygons(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Every polygon within a geometry, whatever it is nested in."""
    if geometry.geom_type == "Polygon":
        yield geometry
    elif geometry.geom_type in ("MultiPolygon", "GeometryCollection"):
        for part in shapely.get_parts(geometry):
            yield from _polygons(part)


def _sound(polygon: BaseGeometry, origin: str) -> BaseGeometry:
    """A valid polygon whose longitudes run on across the antimeridian."""
    try:
        unrolled = unroll(polygon)
    except ValueError as error:
        raise UsageError(f"{origin}: {error}. Clip the area.") from error
    if unrolled is not polygon:
        logger.warning("%s has edges of more than 180 degrees of longitude; taken as crossing the antimeridian", origin)
    if unrolled.is_valid:
        return unrolled
    reason = shapely.is_valid_reason(unrolled)
    logger.warning("%s: a polygon is not valid (%s) and was repaired; check the result", origin, reason)
    return shapely.union_all(list(_polygons(shapely.make_valid(unrolled))))


def _by_side_of_antimeridian(polygons: list[BaseGeometry]) -> list[BaseGeometry]:
    """One feature, or one per side when it reaches the antimeridian from both."""
    parts = [piece for polygon in polygons for piece in split(polygon) if not piece.is_empty]
    east = [part for part in parts if part.bounds[0] > 90]
    west = [part for part in parts if part.bounds[2] < -90]
    middle = [part for part in parts if part.bounds[0] <= 90 and part.bounds[2] >= -90]
    groups = [east, west, middle] if east and west else [parts]
    return [shapely.union_all(group) for group in groups if group]


def _json_objects(text: str, origin: str) -> list[Mapping[str, Any]]:
    try:
        found = [json.loads(text)]
    except json.JSONDecodeError as error:
        lines = [line.strip("\x1e\r\n\t ") for line in text.replace("\x1e", "\n").splitlines()]
        try:
            found = [json.loads(line) for line in lines if line]
        except json.JSONDecodeError:
            raise UsageError(f"{origin} is not GeoJSON: {error}. {EXPECTED}") from error
        if not found:
            raise UsageError(f"{origin} is empty. Give a GeoJSON geometry, Feature or FeatureCollection.") from error
    if not all(isinstance(obj, dict) for obj in found):
        raise UsageError(f"{origin} is JSON but not GeoJSON. {EXPECTED}")
    return found


def _geometries(obj: Mapping[str, Any], origin: str) -> list[BaseGeometry]:
    kind = obj.get("type")
    if kind == "FeatureCollection":
        features = obj.get("features") or []
        if not all(isinstance(feature, dict) for feature in features):
            raise UsageError(f"{origin} is not GeoJSON: a feature is no object. {EXPECTED}")
        return [g for feature in features for g in _geometries(feature, origin)]
    if kind == "Feature":
        return [] if obj.get("geometry") is None else _geometries(obj["geometry"], origin)
    try:
        return [shapely.geometry.shape(obj)]
    except Exception as error:  # shapely raises a dozen kinds for malformed coordinates
        raise UsageError(f"{origin} is not GeoJSON: {error}. {EXPECTED}") from error


def _declared_crs(obj: Mapping[str, Any], origin: str) -> CRS | None:
    """The `crs` member of the older GeoJSON; None for longitude and latitude."""
    declared = obj.get("crs")
    if not declared:
        return None
    try:
        crs = CRS.from_user_input(declared["properties"]["name"])
    except (CRSError, KeyError, TypeError) as error:
        raise UsageError(f"{origin} declares a CRS that is not known: {declared}. Convert it to WGS84.") from error
    return None if crs.is_geographic and crs.to_epsg() in (4326, None) else crs


def _read_vector(path: Path) -> list[BaseGeometry]:
    import pyogrio
    from pyogrio.errors import DataSourceError

    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
    except (DataSourceError, ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read as vector data: {error}. Give GeoJSON or GeoPackage.") from error
    geometries = [] if wkb is None else [g for g in shapely.from_wkb(wkb) if g is not None]
    crs = crs_of(path, meta["crs"])
    return geometries if crs.to_epsg() == 4326 else _to_lonlat(geometries, crs)


def crs_of(path: Path, declared: str | None) -> CRS:
    """What a vector file declares; UsageError where that is no place on Earth."""
    try:
        crs = CRS.from_user_input(declared) if declared else None
    except CRSError:
        crs = None
    if crs is None or crs.is_engineering or "undefined" in crs.name.lower():
        raise UsageError(f"{path} declares no CRS, so its place on Earth is unknown. Assign one (.prj or layer CRS).")
    return crs


def _to_lonlat(geometries: Iterable[BaseGeometry], crs: CRS) -> list[BaseGeometry]:
    """Reproject; edges are densified first, since straight lines do not stay straight."""
    transform = Transformer.from_crs(crs, 4326, always_xy=True).transform
    step = 1000 / crs.axis_info[0].unit_conversion_factor if crs.is_projected else 0.01
    return [
        shapely.transform(shapely.segmentize(g, step), transform, interleaved=False)
        for g in geometries
        if not g.is_empty
    ]
