"""Geometry of the simulated landscape: pixel grid, AOI, edge of a swath. All but `lonlat` in metres."""

from __future__ import annotations

import math

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from shapely.affinity import rotate
from shapely.geometry.base import BaseGeometry

from tessera_cli.extent.grid import TILE_METRES, from_utm
from tessera_cli.simulate.site import BRUSSELS, Site

EPSG = BRUSSELS.epsg
MARGIN = 16  # pixels of landscape around the AOI


def area(size: int, site: Site = BRUSSELS) -> GeoBox:
    """Return the grid of 10 m pixels, on multiples of 20 m, around an AOI of `size` pixels across a tile border."""
    half = 10 * math.ceil(size / 2) + 10 * MARGIN
    border, middle = site.column * TILE_METRES, site.row * TILE_METRES + TILE_METRES // 2 + half % 20
    west = border - 20 * round(size / 6) - 10 * MARGIN
    return GeoBox.from_bbox((west, middle - half, west + 2 * half, middle + half), site.epsg, resolution=10)


def aoi(grid: GeoBox) -> BaseGeometry:
    """Return a square turned by 4 degrees, so that it follows no pixel edge."""
    size = grid.width - 2 * MARGIN
    return rotate(grid.extent.geom.buffer(-10 * (MARGIN + 0.035 * size), join_style="mitre"), 4)


def swath(grid: GeoBox, rng: np.random.Generator) -> BaseGeometry:
    """Return the part on one side of a swath's edge, which leans by 11 degrees."""
    west, south, east, north = grid.extent.geom.bounds
    middle, lean = west + (east - west) * rng.uniform(0.3, 0.7), 0.1 * (north - south)
    far = rng.choice([west, east])
    return shapely.Polygon([(middle + lean, north), (middle - lean, south), (far, south), (far, north)])


def inside(geometry: BaseGeometry, grid: GeoBox) -> np.ndarray:
    """Return bool (H, W): whether a pixel's centre lies in the geometry."""
    x, y = (grid.coords[axis].values for axis in "xy")
    return shapely.contains_xy(geometry, x, y[:, None])


def lonlat(geometry: BaseGeometry, epsg: int = EPSG) -> BaseGeometry:
    """Convert metres to degrees, rounded to 1e-7 (1 cm)."""
    degrees = shapely.transform(geometry, from_utm(epsg).transform, interleaved=False)
    return shapely.transform(degrees, lambda coordinates: np.round(coordinates, 7))
