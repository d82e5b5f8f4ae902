"""Find the blocks of a file that hold the wanted pixels of a tile: few, for a small area."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio.windows import Window as PixelWindow

from tessera_cli.extent.grid import RESOLUTION, Tile
from tessera_cli.imagery.header import Header

CELL = 8
"""Pixels of the tile per side of the squares in which it is looked up."""
MARGIN = 4
"""Pixels of the file around each square: bilinear needs 1, GDAL's approximation of a change of zone less than 1."""


def bounding_slices(wanted: np.ndarray) -> tuple[slice, slice]:
    """Return the slices of rows and columns that bound the true pixels of bool (H, W)."""
    rows, columns = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def pixel_windows(wanted: np.ndarray, tile: Tile, header: Header) -> np.ndarray:
    """Return int64 (N, 4), file pixels around wanted pixels: first row, end row, first column, end column.

    `wanted`: bool (H, W) of the tile.
    """
    height, width = wanted.shape
    transform, crs = header.transform, header.crs
    words = np.ascontiguousarray(wanted).view(np.uint64)  # of CELL pixels
    rows, columns = np.nonzero(words.reshape(height // CELL, CELL, width // CELL).any(axis=1))
    x, y = _apply(tile.transform, (columns + 0.5) * CELL, (rows + 0.5) * CELL)
    if header.epsg != tile.epsg:
        x, y = map(np.array, rasterio.warp.transform(tile.crs, crs, x, y))
    column, row = _apply(~transform, x, y)
    radius = CELL * RESOLUTION * math.sqrt(0.5)  # metres from the centre of a square to its corner
    reach = [radius / math.hypot(a, b) + MARGIN for a, b in ((transform.b, transform.e), (transform.a, transform.d))]
    edges = (row - reach[0], row + reach[0], column - reach[1], column + reach[1])
    return np.stack([np.floor(edges[0]), np.ceil(edges[1]), np.floor(edges[2]), np.ceil(edges[3])], -1).astype(np.int64)


def block_windows(
    pixel_windows: np.ndarray | None, window: PixelWindow, block: tuple[int, int]
) -> Iterator[PixelWindow]:
    """Yield disjoint windows, the parts of `window` in blocks that hold any of `pixel_windows` (None: all).

    `block`: rows and columns of the file's blocks.
    """
    if pixel_windows is None:
        yield window
        return
    (top, bottom), (left, right) = window.toranges()
    first, begin = top // block[0], left // block[1]
    shape = (-(-bottom // block[0]) - first, -(-right // block[1]) - begin)
    inside = np.stack(
        [pixel_windows[:, :2].clip(top, bottom), pixel_windows[:, 2:].clip(left, right)], axis=1
    )  # (N, axis, edge)
    inside = inside[(inside[..., 0] < inside[..., 1]).all(axis=1)]
    ends = np.array(block)
    (a, c), (b, d) = ((inside[..., 0] // ends).T, ((inside[..., 1] - 1) // ends + 1).T)
    a, b, c, d = a - first, b - first, c - begin, d - begin
    corners = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)  # summed up, the number of rectangles on each block
    for rows, columns, sign in ((a, c, 1), (b, c, -1), (a, d, -1), (b, d, 1)):
        np.add.at(corners, (rows, columns), sign)
    needed = corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    row = 0
    while row < len(needed):
        end = row + 1
        while end < len(needed) and (needed[end] == needed[row]).all():
            end += 1
        edges = np.flatnonzero(np.diff(needed[row], prepend=False, append=False))
        for c, d in edges.reshape(-1, 2):
            rows = max(top, (first + row) * block[0]), min(bottom, (first + end) * block[0])
            columns = max(left, int(begin + c) * block[1]), min(right, int(begin + d) * block[1])
            yield PixelWindow.from_slices(rows, columns)
        row = end


def _apply(transform: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the transform of arrays of coordinates, which not every release of affine takes."""
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f
