"""Longitude has no end: geometries that cross the antimeridian."""

from __future__ import annotations

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry.base import BaseGeometry

SLIVER = 1e-12
"""Square degrees below which a piece is float noise."""


def unwrap(geometry: BaseGeometry, around: float) -> BaseGeometry:
    """The same places with longitudes within 180 degrees of `around`, so that neighbours are near each other."""
    west, _, east, _ = geometry.bounds
    if around - 180 <= west and east <= around + 180 and east - west < 180:
        return geometry
    return shapely.transform(
        geometry, lambda lon, lat: (np.mod(lon - around + 180, 360) - 180 + around, lat), interleaved=False
    )


def joined(geometry: BaseGeometry) -> BaseGeometry:
    """The same places with longitudes that run on (179 to 181) where the antimeridian divides them.

    A geometry more than half way round the globe is taken at its word.
    """
    west, _, east, _ = geometry.bounds
    if east - west < 180:
        return geometry
    crossing = unwrap(geometry, around=180)
    west, _, east, _ = crossing.bounds
    return crossing if 0 < east - west < 180 else geometry


def turns(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The same places with every longitude by which others may call them: a turn to the west, none, one to the east."""
    return [affinity.translate(geometry, xoff=turn) if turn else geometry for turn in (-360, 0, 360)]


def unroll(polygon: BaseGeometry) -> BaseGeometry:
    """A polygon whose edges jump across the antimeridian (179 to -179), with longitudes that run on (179 to 181).

    The polygon itself if none does. Raises ValueError for one around a pole.
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
    return shapely.Polygon(coordinates[0], coordinates[1:])


def split(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Pieces with longitudes within -180..180 (RFC 7946, 3.1.9), from west to east as they lie on the globe."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180:
        return [geometry]
    pieces = []
    for turn in (-360, 0, 360):
        piece = geometry.intersection(shapely.box(turn - 180, -90, turn + 180, 90))
        if piece.area > SLIVER:
            pieces.append(affinity.translate(piece, xoff=-turn))
    return pieces
