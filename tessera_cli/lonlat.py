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
