"""Where an area lies, to be seen at a glance: longitude and latitude are swapped more often than anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from tessera_cli.extent.antimeridian import unwrap
from tessera_cli.extent.aoi import MAX_LAT, MIN_LAT
from tessera_cli.extent.features import polygons
from tessera_cli.extent.grid import from_utm

_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Place:
    """Centre and size of an area."""

    lon: float
    """Degrees east of its centroid."""
    lat: float
    """Degrees north of its centroid."""
    km2: float
    """Geodesic area; what features share counts once."""

    @classmethod
    def of(cls, zones: Mapping[int, BaseGeometry]) -> Place:
        """Return the place of an area that is given as `areas_by_zone` does: EPSG code of UTM -> part in metres."""
        found: list[BaseGeometry] = []
        for epsg, part in zones.items():
            degrees = shapely.transform(part, from_utm(epsg).transform, interleaved=False)
            degrees = unwrap(degrees, centre=6.0 * (epsg % 100) - 183)
            found += list(polygons(degrees)) or [degrees]
        area = np.array([abs(_WGS84.geometry_area_perimeter(each)[0]) for each in shapely.orient_polygons(found)])
        centroids = shapely.centroid(found)
        lon, lat = shapely.get_x(centroids), shapely.get_y(centroids)
        lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # on one side of the antimeridian
        weights = area if area.any() else None
        middle = float(np.average(lon, weights=weights))
        return cls((middle + 180) % 360 - 180, float(np.average(lat, weights=weights)), float(area.sum() / 1e6))

    def __str__(self) -> str:
        """Return `5.0100 E 51.0050 N, 1.56 km2`."""
        return f"{position(self.lon, self.lat)}, {_plain(self.km2)} km2"

    def to_dict(self) -> dict[str, float]:
        return {"lon": round(self.lon, 6), "lat": round(self.lat, 6), "km2": round(self.km2, 6)}

    @property
    def swapped(self) -> str:
        """Return the question whether longitude and latitude are swapped; "" where the grid has no such place."""
        if not MIN_LAT <= self.lon <= MAX_LAT:
            return ""
        return f"Are longitude and latitude swapped ({position(self.lat, self.lon)})?"


def position(lon: float, lat: float) -> str:
    """Return a position as `5.0100 E 51.0050 N`."""
    return f"{abs(lon):.4f} {'E' if lon >= 0 else 'W'} {abs(lat):.4f} {'N' if lat >= 0 else 'S'}"


def _plain(number: float) -> str:
    """Return three significant digits or all of the whole number, never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 1e-4 else f"{number:.6f}"
