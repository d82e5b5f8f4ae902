"""GeoJSON text: geometry, Feature, FeatureCollection, or a sequence of them; with the CRS member of GeoJSON 2008."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError, reason
from tessera_cli.extent.features import Features
from tessera_cli.json_text import check_memory

EXPECTED = "Give a geometry, Feature or FeatureCollection."
LISTS = {"MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}
"""Levels of lists above those of positions."""


def read_geojson(text: str | bytes, origin: str) -> Features:
    """Return the geometries of GeoJSON; bytes may be UTF-8, -16 or -32, with a byte-order mark or without.

    Raises UsageError for anything else. Properties are not read.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), errors="replace")  # names may be broken, numbers are not
    try:
        check_memory(text)
    except ValueError as error:
        raise UsageError(f"{origin} is too large: {error}. Give a GeoPackage, or cut it into parts.") from error
    try:
        objects = _json_objects(text.removeprefix("\ufeff"), origin)
        found = list(_geometries(objects, origin))
    except RecursionError as error:
        raise UsageError(f"{origin} is not GeoJSON: it is nested too deeply. {EXPECTED}") from error
    shapes = [
        None if geometry is None else _shape(geometry, f"{origin}, feature {number},")
        for number, geometry in enumerate(found, 1)
    ]
    crs = next((c for obj in objects if (c := _declared_crs(obj, origin)) is not None), CRS(4326))
    return Features(origin, crs, np.array(shapes, object))


def _json_objects(text: str, origin: str) -> list[Mapping[str, Any]]:
    try:
        found = [json.loads(text)]
    except ValueError as error:
        lines = [line.strip("\x1e\r\n\t ") for line in text.replace("\x1e", "\n").splitlines()]
        try:
            found = [json.loads(line) for line in lines if line]
        except ValueError:
            raise UsageError(f"{origin} is not GeoJSON: {reason(error)}. {EXPECTED}") from error
        if not found:
            raise UsageError(f"{origin} is empty. Give a GeoJSON geometry, Feature or FeatureCollection.") from error
    if not all(isinstance(obj, dict) for obj in found):
        raise UsageError(f"{origin} is JSON but not GeoJSON. {EXPECTED}")
    return found


def _geometries(objects: Any, origin: str) -> Iterator[Mapping[str, Any] | None]:
    """Yield the geometry objects of all features; None for a feature without one."""
    if not isinstance(objects, list) or not all(isinstance(obj, dict) for obj in objects):
        raise UsageError(f"{origin} is not GeoJSON: a feature is no object. {EXPECTED}")
    for obj in objects:
        if obj.get("type") == "FeatureCollection":
            yield from _geometries(obj.get("features") or [], origin)
        elif obj.get("type") == "Feature":
            yield obj.get("geometry")
        else:
            yield obj


def _shape(geometry: Mapping[str, Any], what: str) -> BaseGeometry:
    try:
        _check_lists(geometry)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of NaN, which is refused by name
            try:
                return shapely.geometry.shape(geometry)
            except ValueError:  # of positions with and without a height, among others
                return shapely.geometry.shape(_flat(geometry))
    except RecursionError as error:
        raise UsageError(f"{what} is not GeoJSON: it is nested too deeply. {EXPECTED}") from error
    except Exception as error:  # shapely raises a dozen kinds for malformed coordinates
        why = reason(error) if isinstance(error, ValueError) else "its coordinates are missing or malformed"
        raise UsageError(f"{what} is not GeoJSON: {why}. {EXPECTED}") from error


def _check_lists(geometry: Any) -> None:
    """Raise ValueError for a geometry object in which rings are no lists or empty: GEOS ends the process at some."""
    malformed = ValueError("its coordinates are missing or malformed")
    if not isinstance(geometry, Mapping):
        raise malformed
    inner = geometry.get("geometries")
    for part in inner if isinstance(inner, list) else ():
        _check_lists(part)
    level, depth = [geometry.get("coordinates")], LISTS.get(str(geometry.get("type")), -1)
    for above in range(depth, -1, -1):  # the last ones are the rings or lines
        lists = [part for part in level if isinstance(part, list) and (part or above)]
        if len(lists) < len(level):
            raise malformed
        level = [part for each in lists for part in each]


def _flat(value: Any) -> Any:
    """Return a geometry object, or its coordinates, with positions of longitude and latitude alone."""
    if isinstance(value, Mapping):
        return {key: _flat(part) if key in ("coordinates", "geometries") else part for key, part in value.items()}
    if not isinstance(value, list):
        return value
    return [_flat(part) for part in value] if any(isinstance(part, list | dict) for part in value) else value[:2]


def _declared_crs(obj: Mapping[str, Any], origin: str) -> CRS | None:
    """Return the `crs` member of GeoJSON 2008; None for longitude and latitude."""
    declared = obj.get("crs")
    if not declared:
        return None
    try:
        crs = CRS.from_user_input(declared["properties"]["name"])
    except (CRSError, KeyError, TypeError, UnicodeEncodeError) as error:  # the last of half a letter
        raise UsageError(f"{origin} declares a CRS that is not known: {declared}. Convert it to WGS84.") from error
    return None if crs.is_geographic and crs.to_epsg() in (4326, None) else crs
