"""Features that are points alone, or areas alone: which of the two a layer holds, and its points in degrees."""

from __future__ import annotations

from typing import Literal

import numpy as np
import shapely
from pyproj import Transformer

from tessera_cli.errors import UsageError
from tessera_cli.extent.features import Features, check_lonlat, kinds, polygons

Kind = Literal["point", "polygon"]
NOWHERE = "has the position {:g} {:g}, which is nowhere. Correct or remove it."


def points_or_polygons(features: Features) -> tuple[Kind, np.ndarray]:
    """Return what the features are, and their geometries: a MultiPoint of one point as that, what is empty as None.

    UsageError, with the number of the feature, for other geometries, and for points and areas in one layer.
    """
    geometries = features.geometries.copy()
    geometries[shapely.is_empty(geometries)] = None
    single = (shapely.get_type_id(geometries) == shapely.GeometryType.MULTIPOINT) & (
        shapely.get_num_geometries(geometries) == 1
    )
    geometries[single] = shapely.get_geometry(geometries[single], 0)
    geometries = shapely.force_2d(geometries)
    given = geometries[~shapely.is_missing(geometries)]
    points = shapely.get_type_id(geometries) == shapely.GeometryType.POINT
    areas = np.array([g is not None and next(polygons(g), None) is not None for g in geometries], bool)
    for position, geometry in enumerate(geometries):
        if geometry is not None and not points[position] and not areas[position]:
            raise UsageError(
                f"{features.origin} holds a {geometry.geom_type} (feature {position + 1}); points or polygons are "
                "needed. Buffer lines, and split groups of points into points."
            )
    if points.any() and areas.any():
        raise UsageError(f"{features.origin} mixes {kinds(given)}. Give points and polygons in files of their own.")
    return "polygon" if areas.any() else "point", geometries


def points_in_degrees(features: Features, geometries: np.ndarray) -> np.ndarray:
    """Return longitude and latitude, float64 (N, 2), of points in the CRS of the features, NaN of None.

    UsageError for positions that are not finite, cannot be converted, or are no degrees.
    """
    there = np.flatnonzero(~shapely.is_missing(geometries))
    lon, lat = shapely.get_coordinates(geometries[there]).T
    check_finite(features, lon, lat, there, NOWHERE)
    if features.crs.to_epsg() != 4326:
        x, y = lon, lat
        lon, lat = Transformer.from_crs(features.crs, 4326, always_xy=True).transform(x, y)
        lost = f"cannot be converted from {features.crs.name} to degrees. Check its CRS."
        check_finite(features, lon, lat, there, lost)
    if len(there):
        check_lonlat(features.origin, (lon.min(), lat.min(), lon.max(), lat.max()))
    made = np.full((len(geometries), 2), np.nan)
    made[there] = np.stack([np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon), lat], axis=1)
    return made


def check_finite(features: Features, x: np.ndarray, y: np.ndarray, numbers: np.ndarray, text: str) -> None:
    """Raise UsageError, with the number of the feature, for a position that is not finite."""
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        first = int(np.argmax(bad))
        raise UsageError(f"{features.origin}: feature {numbers[first] + 1} {text.format(x[first], y[first])}")
