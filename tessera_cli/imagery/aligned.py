"""Resample files aligned with a grid, at its resolution or half of it, by integers with the results of GDAL's warp.

Nearly all files are like this: Sentinel-2 at 10 m and 20 m and Sentinel-1 at 10 m, in the zone of the tile. GDAL works
out of every pixel where it comes from, which takes ten times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window as PixelWindow

from tessera_cli.imagery.header import Header

_KNOWN = {"uint8": ("nearest", "bilinear"), "uint16": ("nearest", "bilinear"), "float32": ("nearest",)}
"""Type -> resamplings. Weighted sums of floats depend on the order of their terms."""


class PixelGrid(Protocol):
    """Shape, CRS and affine transform of a rectangle of pixels: a tile, or any other."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def crs(self) -> str: ...
    @property
    def transform(self) -> Affine: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Alignment:
    """Offset and ratio between the pixels of a file and of a grid, and how to resample them."""

    ratio: int
    """Pixels of the grid per pixel of the file, along each axis: 1 or 2."""
    row: int
    """Pixels of the grid from the north edge of the file to that of the grid."""
    column: int
    """The same from west edge to west edge."""
    bilinear: bool
    """Else nearest."""
    tagged: bool
    """Whether integers that are 0 have no data."""

    @classmethod
    @lru_cache(256)
    def of(cls, grid: PixelGrid, header: Header, resampling: str) -> Alignment | None:
        """Return the alignment of a file with a grid; None if GDAL has to warp the file."""
        transform, nodata, (step, b, west, d, e, north) = header.transform, header.nodata, grid.transform[:6]
        if step <= 0 or e != -step or b or d:
            return None
        ratio = {step: 1, 2 * step: 2}.get(transform.a)
        upright = transform.e == -transform.a and not transform.b and not transform.d
        if ratio is None or not upright or resampling not in _KNOWN.get(header.dtype, ()):
            return None
        usual = nodata is None or nodata == 0 or (header.dtype == "float32" and (nodata < 0 or math.isnan(nodata)))
        row, column = (transform.f - north) / step, (west - transform.c) / step
        if not usual or not row.is_integer() or not column.is_integer() or header.crs != CRS.from_user_input(grid.crs):
            return None
        return cls(ratio, int(row), int(column), resampling == "bilinear", nodata is not None)

    def put(self, pixels: np.ndarray, window: PixelWindow, box: tuple[slice, slice], out: np.ndarray) -> None:
        """Write the pixels of the grid that lie in the box and on the file into `out` (H, W).

        `pixels`: (h, w) of the window, which goes a pixel beyond the box, or ends with the file. Bilinear at 20 m: of
        the four pixels around a centre the nearest has weight 9, the others 3, 3 and 1; those beyond the file or
        without data are left out; halves are rounded up; there are data where the nearest has data.
        """
        offsets = (self.row - self.ratio * window.row_off, self.column - self.ratio * window.col_off)
        here, there = [], []  # on the grid; in `pixels`, at its resolution
        for wanted, offset, length in zip(box, offsets, pixels.shape, strict=True):
            first, last = max(wanted.start, -offset), min(wanted.stop, self.ratio * length - offset)
            if first >= last:
                return
            here.append(slice(first, last))
            there.append(slice(first + offset, last + offset))
        out[here[0], here[1]] = pixels[there[0], there[1]] if self.ratio == 1 else self._halves(pixels, *there)

    def _halves(self, pixels: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return these rows and columns of `pixels` upsampled by 2."""
        north, west = rows.start // 2, columns.start // 2
        south, east = -(-rows.stop // 2), -(-columns.stop // 2)
        if self.bilinear:
            # Repeating a row or column at the edge is the same as leaving out the one beyond it.
            around = [
                np.arange(a - 1, b + 1).clip(0, n - 1)
                for a, b, n in zip((north, west), (south, east), pixels.shape, strict=True)
            ]
            cells = pixels[around[0][:, None], around[1]]
            fine = _bilinear(cells.astype(np.uint32), self.tagged and not cells.all())
        else:
            fine = _repeated(pixels[north:south, west:east])
        return fine[rows.start - 2 * north : rows.stop - 2 * north, columns.start - 2 * west : columns.stop - 2 * west]


def _repeated(cells: np.ndarray) -> np.ndarray:
    """Return (h, w) repeated to (2h, 2w)."""
    return cells.repeat(2, axis=1).repeat(2, axis=0)


def _bilinear(cells: np.ndarray, gaps: bool) -> np.ndarray:
    """Return (2h, 2w) from uint32 (h + 2, w + 2) up to 65535, interpolated; `gaps`: zeros are left out."""
    if not gaps:
        return (_sums(cells) + 8) >> 4
    present = (cells != 0).astype(np.uint32)
    weights = _sums(present)
    values = (2 * _sums(cells) + weights) // np.maximum(2 * weights, 1)
    return np.where(_repeated(present[1:-1, 1:-1]), values, 0)


def _sums(cells: np.ndarray) -> np.ndarray:
    """Return uint32 (2h, 2w), per quarter of each inner cell of (h + 2, w + 2) the sum of the four nearest cells with
    weights 9, 3, 3 and 1."""
    near, tall = 3 * cells[1:-1], np.empty((2 * (len(cells) - 2), cells.shape[1]), np.uint32)
    np.add(near, cells[:-2], out=tall[::2])
    np.add(near, cells[2:], out=tall[1::2])
    near, both = 3 * tall[:, 1:-1], np.empty((len(tall), 2 * (cells.shape[1] - 2)), np.uint32)
    np.add(near, tall[:, :-2], out=both[:, ::2])
    np.add(near, tall[:, 2:], out=both[:, 1::2])
    return both
