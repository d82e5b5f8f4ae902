"""Places on the globe: square blocks of ground, and distances in metres. Longitudes and latitudes in degrees."""

from __future__ import annotations

import numpy as np

RADIUS = 6_371_008.8
"""Mean radius of the Earth in metres."""


def positions(lonlat: np.ndarray) -> np.ndarray:
    """Longitude, latitude (N, 2) -> metres from the centre of the Earth, float64 (N, 3); NaN stays NaN.

    Straight lines between them are as long as distances on the ground, up to 0.1 % for 1,000 km.
    """
    lon, lat = np.radians(lonlat.astype(np.float64)).T
    return RADIUS * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def centroids(lonlat: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the longitude and latitude of each group's middle, float64 (G, 2), and each sample's group, int64 (N,).

    Samples without a place (NaN) are not counted; a group of such alone has no place.
    """
    _, members = np.unique(groups, return_inverse=True)
    xyz, count = positions(lonlat), int(members.max(initial=-1)) + 1
    there = np.isfinite(xyz).all(axis=1)
    sums = np.stack([np.bincount(members[there], xyz[there, axis], count) for axis in range(3)], axis=1)
    known = np.bincount(members[there], minlength=count) > 0
    x, y, z = sums.T
    middle = np.degrees(np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], axis=1))
    middle[~known] = np.nan
    return middle, members.astype(np.int64)


def squares(lonlat: np.ndarray, size: float) -> np.ndarray:
    """Return the number of the square of ground, `size` metres wide, that each place lies in, int64 (N,); NaN: −1.

    Rows of squares follow the parallels, and every row is divided evenly around the globe, so squares are nearly that
    wide everywhere.
    """
    side = np.degrees(size / RADIUS)
    there = np.isfinite(lonlat).all(axis=1)
    lon, lat = lonlat[there].T
    row = np.floor((lat + 90) / side).astype(np.int64)
    middle = np.radians(np.clip((row + 0.5) * side - 90, -90, 90))
    columns = np.maximum(np.round(360 * np.cos(middle) / side), 1).astype(np.int64)
    column = np.floor(np.mod(lon + 180, 360) / 360 * columns).astype(np.int64)
    numbers = np.full(len(lonlat), -1, np.int64)
    numbers[there] = row * (int(360 / side) + 2) + column
    return numbers


def nearest(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the distance in metres of each place (M, 2) to the nearest of others (P, 2), float64 (M,); all finite."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(positions(known)).query(positions(asked))[0])
