"""Where the simulated landscape lies: its pixel grid, its AOI and the way to longitude and latitude."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from tessera_cli.grid import TILE_METRES, from_utm

EPSG = 32631
MARGIN = 16
"""Pixels of landscape around the AOI."""
# South of Brussels, in the strip that the granules 31UES and 31UFS share.
_TILE_BORDER_E, _CENTRE_N = 118 * TILE_METRES, 1098 * TILE_METRES + TILE_METRES // 2


@dataclass(frozen=True)
class Area:
    """A square of landscape around an AOI of about `size` pixels of 10 m, on multiples of 20 m."""

    size: int

    @property
    def shape(self) -> tuple[int, int]:
        """In pixels of 10 m, even numbers."""
        return (2 * math.ceil(self.size / 2) + 2 * MARGIN,) * 2

    def transform(self, step: int = 10, column: int = 0) -> Affine:
        """Of pixels of `step` metres, from a 10 m column on. A third of the AOI lies west of the tile border."""
        west = _TILE_BORDER_E - 20 * round(self.size / 6) - 10 * MARGIN + 10 * column
        return Affine(step, 0, west, 0, -step, _CENTRE_N + 20 * math.ceil(self.shape[0] / 4))

    def outline(self, columns: slice = slice(None)) -> BaseGeometry:
        """In metres."""
        west, north = self.transform().c, self.transform().f
        left, right, _ = columns.indices(self.shape[1])
        return shapely.box(west + 10 * left, north - 10 * self.shape[0], west + 10 * right, north)

    def aoi(self, rng: np.random.Generator) -> BaseGeometry:
        """In metres: a slightly irregular octagon of nearly the whole `size` square."""
        corners = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])
        corners += rng.uniform(0, 0.06, (8, 2)) * np.sign(0.5 - corners)
        west, north = self.transform().c, self.transform().f
        return shapely.Polygon((west, north) + (MARGIN + self.size * corners) * (10, -10))

    def beside_swath_edge(self, rng: np.random.Generator) -> BaseGeometry:
        """In metres: the part on one side of an orbit's swath edge, which runs 12 degrees off north."""
        west, south, east, north = self.outline().bounds
        centre = west + (east - west) * rng.uniform(0.3, 0.7)
        lean = (north - south) / 2 * math.tan(math.radians(12))
        far = rng.choice([2 * west - east, 2 * east - west])
        swath = shapely.Polygon([(centre + lean, north), (centre - lean, south), (far, south), (far, north)])
        return swath & self.outline()


def inside(geometry: BaseGeometry, shape: tuple[int, int], transform: Affine) -> np.ndarray:
    """bool (H, W): pixels whose centre lies in the geometry (metres)."""
    y, x = np.indices(shape) + 0.5
    mask: np.ndarray = shapely.contains_xy(geometry, transform.c + transform.a * x, transform.f + transform.e * y)
    return mask


def lonlat(geometry: BaseGeometry) -> BaseGeometry:
    """Metres -> degrees, rounded to 1e-7 (1 cm)."""
    degrees = shapely.transform(geometry, from_utm(EPSG).transform, interleaved=False)
    return shapely.transform(degrees, lambda coordinates: np.round(coordinates, 7))
