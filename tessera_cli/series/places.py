"""Where samples lie: pixels of the grid, and identities that depend on nothing but the sample's name."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError, plainly
from tessera_cli.extent.grid import RESOLUTION
from tessera_cli.extent.points import pixels_of_points, zones_of_points


def keys_of(ids: np.ndarray) -> np.ndarray:
    """Return hashes, uint64 (N,), of the names of samples, object (N,)."""
    digests = b"".join(hashlib.blake2b(str(each).encode(), digest_size=8).digest() for each in ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def named_places(keys: np.ndarray) -> np.ndarray:
    """Return int32 (N, 3) that stand for the places of what is known by name alone: -1, and two numbers of its key.

    What has one name has one of these, and what has two lies apart.
    """
    low, high = keys & np.uint64(0x7FFFFFFF), keys >> np.uint64(33)
    return np.stack([np.full(len(keys), -1), low.astype(np.int64), high.astype(np.int64)], axis=1).astype(np.int32)


def names_of(values: np.ndarray) -> np.ndarray:
    """Return a column as text, object (N,), None where it has no value; whole numbers are written alike in any type."""
    made = np.full(len(values), None, object)
    for row, value in enumerate(values.tolist()):
        if value is not None and value == value and str(value).strip():
            whole = isinstance(value, float) and value.is_integer()
            made[row] = str(int(value)) if whole else str(value).strip()
    return made


def grid_places(lonlat: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return int32 (N, 3): EPSG code, easting and northing of the centre of the grid's pixel that holds each sample.

    Samples without a place have zone 0 and two numbers of their key, so that no two lie side by side.
    """
    low, high = keys & np.uint64(0x7FFFFFFF), keys >> np.uint64(33)
    places = np.stack([np.zeros(len(keys), np.int64), low.astype(np.int64), high.astype(np.int64)], axis=1)
    known = np.flatnonzero(np.isfinite(lonlat).all(axis=1) & (np.abs(lonlat) <= (180, 84)).all(axis=1))
    zones = zones_of_points([(lon, lat) for lon, lat in lonlat[known].tolist()])
    for zone in np.unique(zones).tolist():
        members = known[zones == zone]
        cells = pixels_of_points(lonlat[members], zone)
        places[members, 0] = zone
        places[members, 1:] = cells * RESOLUTION + RESOLUTION // 2
    return places.astype(np.int32)


def lonlat_of(wkb: list[Any], crs: str | None, origin: str) -> np.ndarray:
    """Return longitude and latitude, float64 (N, 2), of geometries as WKB, of areas those of a point inside."""
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        geometries = shapely.from_wkb(np.array([*wkb, None], object)[:-1], on_invalid="fix")
        known = CRS(4326) if crs is None else CRS(crs)
    except (shapely.errors.ShapelyError, CRSError, TypeError) as error:
        raise UsageError(f"{origin}: its geometries cannot be read: {plainly(error)}.") from error
    points = shapely.point_on_surface(geometries)
    x, y = shapely.get_x(points), shapely.get_y(points)
    if known.to_epsg() != 4326 and not known.is_geographic:
        x, y = Transformer.from_crs(known, 4326, always_xy=True).transform(x, y)
    found = np.stack([x, y], axis=1)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found
