"""Geometries in degrees that cross the antimeridian: the same place has longitudes 181 and -179."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry.base import BaseGeometry

SLIVER = 1e-12
"""Square degrees below which a part is rounding noise."""
REACH = 3.6
"""Degrees of longitude at the equator, 400 km: no scene of Sentinel-1 or Sentinel-2 is wider."""

Box = tuple[float, float, float, float]


def unwrap(geometry: BaseGeometry, centre: float) -> BaseGeometry:
    """Return the geometry with each longitude shifted by multiples of 360 degrees to within 180 of `centre`."""
    west, _, east, _ = geometry.bounds
    if centre - 180 <= west and east <= centre + 180 and east - west < 180:
        return geometry
    return shapely.transform(
        geometry, lambda lon, lat: (np.mod(lon - centre + 180, 360) - 180 + centre, lat), interleaved=False
    )


def rejoin(geometry: BaseGeometry) -> BaseGeometry:
    """Return parts on both sides of the antimeridian with continuous longitudes (179 to 181): the inverse of `split`.

    A geometry that is still 180 degrees wide or wider then is returned as it is.
    """
    west, _, east, _ = geometry.bounds
    if east - west < 180:
        return geometry
    crossing = unwrap(geometry, centre=180)
    west, _, east, _ = crossing.bounds
    return crossing if 0 < east - west < 180 else geometry


def shifted(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the geometry shifted by -360, 0 and 360 degrees, to compare with others whatever their longitudes."""
    return [affinity.translate(geometry, xoff=shift) if shift else geometry for shift in (-360, 0, 360)]


def shifted_all(geometries: np.ndarray) -> np.ndarray:
    """Return an array of geometries shifted by -360, then as they are, then shifted by 360 degrees: (3 N,)."""
    west, east = (
        shapely.transform(geometries, lambda lon, lat, by=shift: (lon + by, lat), interleaved=False)  # type: ignore[misc]
        for shift in (-360.0, 360.0)
    )
    return np.concatenate([west, geometries, east])


def unwrap_edges(polygon: BaseGeometry) -> BaseGeometry:
    """Return a polygon with edges across the antimeridian (179 to -179) with continuous longitudes (179 to 181).

    Returns the polygon itself if it has no such edge. ValueError for a polygon around a pole or the Earth.
    """
    rings = [polygon.exterior, *polygon.interiors]
    coordinates = [shapely.get_coordinates(ring) for ring in rings]
    if all(np.abs(np.diff(ring[:, 0])).max(initial=0) <= 180 for ring in coordinates):
        return polygon
    for ring in coordinates:
        ring[:, 0] = np.unwrap(ring[:, 0], period=360)
        if abs(ring[-1, 0] - ring[0, 0]) > 180:
            raise ValueError("a polygon goes around a pole")
    centre = coordinates[0][:, 0].mean()
    for ring in coordinates[1:]:
        ring[:, 0] += 360 * np.round((centre - ring[:, 0].mean()) / 360)
    made = shapely.Polygon(coordinates[0], coordinates[1:])
    if made.area < SLIVER < polygon.area:  # its edges from -180 to 180 are no jumps
        raise ValueError("a polygon goes around the Earth")
    return made


def split(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Cut at the antimeridian; return parts with longitudes in -180..180 (RFC 7946, 3.1.9), from west to east."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180:
        return [geometry]
    parts = []
    for shift in (-360, 0, 360):
        part = geometry.intersection(shapely.box(shift - 180, -90, shift + 180, 90))
        if part.area > SLIVER:
            parts.append(affinity.translate(part, xoff=-shift))
    return parts


def both_sides(boxes: Iterable[Box]) -> list[Box]:
    """Return the boxes (west, south, east, north in degrees) to ask a server for that compares longitudes as numbers.

    Near the antimeridian, further ones find every footprint over a box, however it is written: the border on the other
    side those that cross it or whose edges jump (179 to -179), the box shifted by 360 degrees those that lie beyond it.
    """
    asked = dict.fromkeys(boxes)
    for west, south, east, north in list(asked):
        reach = min(REACH / math.cos(math.radians(max(abs(south), abs(north)))), 90)
        if east > 180 - reach:
            asked |= {(-180.0, south, reach - 180, north): None, (west - 360, south, east - 360, north): None}
        if west < reach - 180:
            asked |= {(180 - reach, south, 180.0, north): None, (west + 360, south, east + 360, north): None}
    return list(asked)
