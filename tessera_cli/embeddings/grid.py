"""Where a raster lies: coordinate system, transform and size; north up."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from affine import Affine

from tessera_cli.embeddings.tile import Box

SIDE = 512
"""Rows and columns of the boxes in which pixels are read and written: of 128 bands in float32, 134 MB."""


@dataclass(frozen=True)
class Grid:
    """A raster without its pixels."""

    crs: str
    """`EPSG:32631`, or WKT."""
    transform: Affine
    """Pixel corner -> units of the coordinate system, without rotation."""
    shape: tuple[int, int]
    """Height and width."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north."""
        west, north = self.transform * (0, 0)
        east, south = self.transform * self.shape[::-1]
        return west, south, east, north

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def epsg(self) -> int | None:
        code = re.fullmatch(r"EPSG:(\d+)", self.crs)
        return int(code[1]) if code else None

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the centres of pixels."""
        x, y = self.transform.c + self.transform.a * (columns + 0.5), self.transform.f + self.transform.e * (rows + 0.5)
        return x, y

    def part(self, box: Box) -> Grid:
        """Return the grid of a box of its pixels, which may reach beyond it."""
        rows, columns = box
        corner = self.transform * Affine.translation(columns.start, rows.start)
        return Grid(self.crs, corner, (rows.stop - rows.start, columns.stop - columns.start))

    def box_of(self, other: Grid) -> Box:
        """Return the rows and columns of a grid of the same lattice, which may lie beyond this one."""
        left, top = (round(value) for value in ~self.transform * (other.transform * (0, 0)))
        return slice(top, top + other.shape[0]), slice(left, left + other.shape[1])

    def boxes(self, side: int = SIDE) -> Iterator[Box]:
        """Yield boxes that cover it, row by row."""
        height, width = self.shape
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def clipped(box: Box, shape: tuple[int, int]) -> Box:
    """Return the part of a box within a raster; empty slices where there is none."""
    rows, columns = (slice(max(each.start, 0), min(each.stop, size)) for each, size in zip(box, shape, strict=True))
    return slice(rows.start, max(rows.start, rows.stop)), slice(columns.start, max(columns.start, columns.stop))


def pixels_in(box: Box) -> int:
    """Return how many pixels a box has."""
    return (box[0].stop - box[0].start) * (box[1].stop - box[1].start)


def is_empty(box: Box) -> bool:
    return any(each.start >= each.stop for each in box)


def grid_around(
    crs: str, step: float, bounds: tuple[float, float, float, float], *, x0: float = 0, y0: float = 0
) -> Grid:
    """Return the grid of all pixels that the bounds touch; corners of pixels lie at x0, y0 and multiples of `step`."""
    west, south, east, north = bounds
    left, right = math.floor((west - x0) / step + 1e-6), math.ceil((east - x0) / step - 1e-6)
    bottom, top = math.floor((south - y0) / step + 1e-6), math.ceil((north - y0) / step - 1e-6)
    transform = Affine(step, 0, x0 + left * step, 0, -step, y0 + top * step)
    return Grid(crs, transform, (max(top - bottom, 1), max(right - left, 1)))
