"""The pixels of the grid that hold points, zone by zone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import RESOLUTION, TILE_SIZE, Tile, to_utm, utm_epsg


def zones_of_points(points: Sequence[tuple[float, float]], epsg: int | None = None) -> np.ndarray:
    """Return the EPSG code of the UTM zone of each point, int64 (N,): the official one, as for areas, or `epsg`."""
    return np.array([epsg or utm_epsg(lon, lat) for lon, lat in points], np.int64)


def pixels_of_points(lonlat: np.ndarray, epsg: int) -> np.ndarray:
    """Return column and row of the pixels that hold points, int64 (N, 2), counted from the origin of a UTM zone.

    Columns count to the east, rows to the north. On the border between two pixels a point belongs to the eastern and
    to the southern one, as for rasterio. UsageError for a point that cannot be projected to the zone.
    """
    lon, lat = np.asarray(lonlat, float).reshape(-1, 2).T
    east, north = to_utm(epsg).transform(lon, lat)
    if not (np.isfinite(east) & np.isfinite(north)).all():
        lost = int(np.argmin(np.isfinite(east) & np.isfinite(north)))
        raise UsageError(
            f"The point {lon[lost]:g} {lat[lost]:g} cannot be projected to EPSG:{epsg}. Choose a nearer --crs."
        )
    return np.stack([np.floor(east / RESOLUTION), np.ceil(north / RESOLUTION) - 1], axis=-1).astype(np.int64)


def pixels_by_zone(points: Sequence[tuple[float, float]], epsg: int | None = None) -> dict[int, np.ndarray]:
    """Return EPSG code of a UTM zone, in order -> the distinct pixels that hold points, as `pixels_of_points` does."""
    lonlat = np.array(points, float).reshape(-1, 2)
    zones = zones_of_points(points, epsg)
    return {
        zone: np.unique(pixels_of_points(lonlat[zones == zone], zone), axis=0) for zone in np.unique(zones).tolist()
    }


def squares(pixels: np.ndarray) -> BaseGeometry:
    """Return the pixels, int (N, 2), as a multipolygon in metres."""
    low = pixels * float(RESOLUTION)
    return shapely.multipolygons(shapely.box(*low.T, *(low + RESOLUTION).T))


def masks_by_tile(epsg: int, pixels: np.ndarray) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield the tiles that hold the pixels, int (N, 2), row by row from the north-west, each with its bool (H, W)."""
    of, within = np.divmod(pixels, TILE_SIZE)
    tiles, which = np.unique(of, axis=0, return_inverse=True)
    order = np.lexsort((tiles[:, 0], -tiles[:, 1]))
    members = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(tiles)))
    for number in order.tolist():
        columns, rows = within[members[ends[number - 1] if number else 0 : ends[number]]].T
        tile = Tile(epsg, *tiles[number].tolist())
        mask = np.zeros(tile.shape, bool)
        mask[TILE_SIZE - 1 - rows, columns] = True
        yield tile, mask
