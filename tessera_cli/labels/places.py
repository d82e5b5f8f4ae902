"""Places of pixels and parcels: EPSG code, easting and northing, between coordinate systems."""

from __future__ import annotations

import functools

import numpy as np
from pyproj import CRS, Transformer

from tessera_cli.extent.grid import to_utm, utm_epsg


def projected(places: np.ndarray, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of places (N, 3) in a CRS, float64 (N,); NaN for unknown ones, code 0."""
    found = np.full((2, len(places)), np.nan)
    for zone in np.unique(places[:, 0]):
        if zone > 0:
            here = places[:, 0] == zone
            found[:, here] = _from_zone(int(zone), crs).transform(*places[here, 1:].T)
    found[~np.isfinite(found)] = np.nan
    return found[0], found[1]


def in_utm(x: np.ndarray, y: np.ndarray, crs: CRS) -> np.ndarray:
    """Return places float64 (N, 3) of positions in a CRS: UTM zone, easting, northing; code 0 where there is none."""
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    lon = np.mod(np.asarray(lon) + 180, 360) - 180
    places = np.zeros((len(lon), 3))
    known = np.isfinite(lon) & np.isfinite(lat)
    places[known, 0] = [utm_epsg(*pair) for pair in zip(lon[known], lat[known], strict=True)]
    for zone in np.unique(places[known, 0]):
        here = places[:, 0] == zone
        places[here, 1:] = np.stack(to_utm(int(zone)).transform(lon[here], lat[here]), axis=1)
    return places


def squares(places: np.ndarray, side: int) -> np.ndarray:
    """Return the squares of `side` metres around places (N, 3): EPSG code, column and row, int64 (N, 3)."""
    return np.asarray(np.floor_divide(places, (1, side, side)), np.int64)


@functools.lru_cache
def _from_zone(epsg: int, crs: CRS) -> Transformer:
    return Transformer.from_crs(epsg, crs, always_xy=True)
