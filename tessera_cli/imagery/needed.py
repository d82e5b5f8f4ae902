"""Which blocks of a file the wanted pixels of a tile need: of a large scene a small area takes few."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from tessera_cli.grid import RESOLUTION, Tile

CELL = 8
"""Pixels of the tile per side of the squares in which it is looked up."""
MARGIN = 4
"""Pixels of the file around each square: bilinear needs 1, GDAL's approximation of a change of zone less than 1."""


def near(wanted: np.ndarray, tile: Tile, transform: Affine, crs: CRS) -> np.ndarray:
    """int64 (N, 4): first row, end row, first column, end column of the file's pixels around wanted pixels.

    `wanted`: bool (H, W) of the tile; `transform` and `crs` are those of the file.
    """
    height, width = wanted.shape
    rows, columns = np.nonzero(wanted.reshape(height // CELL, CELL, width // CELL, CELL).any(axis=(1, 3)))
    x, y = _apply(tile.transform, (columns + 0.5) * CELL, (rows + 0.5) * CELL)
    if crs.to_epsg() != tile.epsg:
        x, y = map(np.array, rasterio.warp.transform(tile.crs, crs, x, y))
    column, row = _apply(~transform, x, y)
    radius = CELL * RESOLUTION * math.sqrt(0.5)  # metres from the centre of a square to its corner
    reach = [radius / math.hypot(a, b) + MARGIN for a, b in ((transform.b, transform.e), (transform.a, transform.d))]
    edges = (row - reach[0], row + reach[0], column - reach[1], column + reach[1])
    return np.stack([np.floor(edges[0]), np.ceil(edges[1]), np.floor(edges[2]), np.ceil(edges[3])], -1).astype(np.int64)


def parts(near: np.ndarray, window: Window, block: tuple[int, int]) -> Iterator[Window]:
    """The window's pixels in blocks that hold any of `near`, as few windows that do not overlap.

    `block`: rows and columns of the file's blocks.
    """
    (top, bottom), (left, right) = window.toranges()
    first, begin = top // block[0], left // block[1]
    needed = np.zeros((-(-bottom // block[0]) - first, -(-right // block[1]) - begin), bool)
    inside = np.stack([near[:, :2].clip(top, bottom), near[:, 2:].clip(left, right)], axis=1)  # (N, axis, edge)
    inside = inside[(inside[..., 0] < inside[..., 1]).all(axis=1)]
    ends = np.array(block)[:, None]
    numbers = np.stack([inside[..., :1] // ends, (inside[..., 1:] - 1) // ends + 1], axis=-1).reshape(-1, 4)
    for a, b, c, d in np.unique(numbers, axis=0):
        needed[a - first : b - first, c - begin : d - begin] = True
    row = 0
    while row < len(needed):
        end = row + 1
        while end < len(needed) and (needed[end] == needed[row]).all():
            end += 1
        edges = np.flatnonzero(np.diff(needed[row], prepend=False, append=False))
        for c, d in edges.reshape(-1, 2):
            rows = max(top, (first + row) * block[0]), min(bottom, (first + end) * block[0])
            columns = max(left, int(begin + c) * block[1]), min(right, int(begin + d) * block[1])
            yield Window.from_slices(rows, columns)
        row = end


def _apply(transform: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of arrays, which not every release of affine takes."""
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f
