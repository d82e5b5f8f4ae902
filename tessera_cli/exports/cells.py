"""The 0.1 degree cells of the published embeddings, and which of our pixels they take.

A cell's name holds its centre, its raster is in UTM. That of the published ones surrounds the whole cell; ours is
clipped to the pixels that there are. Cells lie in the zone of the pixels, which are never resampled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyproj

from tessera_cli.embeddings.grid import Grid
from tessera_cli.errors import UsageError, listed
from tessera_cli.exports.mosaic import Mosaic

logger = logging.getLogger(__name__)

PER_DEGREE = 10


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell and the mosaics of one zone on its raster, one per window."""

    column: int
    """floor(10 x longitude)."""
    row: int
    """floor(10 x latitude)."""
    mosaics: tuple[Mosaic, ...]

    @property
    def lon(self) -> float:
        """Return the longitude of the centre."""
        return round((self.column + 0.5) / PER_DEGREE, 2)

    @property
    def lat(self) -> float:
        return round((self.row + 0.5) / PER_DEGREE, 2)

    @property
    def name(self) -> str:
        return f"grid_{self.lon:.2f}_{self.lat:.2f}"

    @property
    def grid(self) -> Grid:
        return self.mosaics[0].grid


def check_years(mosaics: Iterable[Mosaic], target: str) -> None:
    """Raise UsageError unless every window is a calendar year: these files are named by it."""
    others = sorted({mosaic.window_name for mosaic in mosaics if mosaic.window is None or not mosaic.window.is_year})
    if others:
        raise UsageError(
            f"{listed(others)} is no calendar year, and files of --to {target} are named by year. Choose others by "
            "--year, or --to cog or zarr."
        )


def cells(mosaics: Sequence[Mosaic]) -> list[Cell]:
    """Return the cells that hold embeddings, from south to north and west to east.

    A cell on the border of two zones goes to the one with more embeddings in it; the others' are left out, which is
    logged. Reads one band of every tile.
    """
    zones = [tuple(group) for _, group in groupby(mosaics, key=lambda mosaic: mosaic.name)]
    found: dict[tuple[int, int], list[tuple[int, int, Grid]]] = {}
    for number, of_zone in enumerate(zones):
        for place, (count, grid) in _pixels_by_cell(of_zone).items():
            found.setdefault(place, []).append((count, number, grid))
    lost, made = 0, []
    for row, column in sorted((row, column) for column, row in found):
        (_, number, grid), *others = sorted(found[column, row], key=lambda each: (-each[0], each[1]))
        lost += sum(count for count, *_ in others)
        made.append(Cell(column, row, tuple(mosaic.on(grid) for mosaic in zones[number])))
    if lost:
        logger.warning("%d pixels are left out: a cell is of one zone, and another has more pixels in theirs", lost)
    odd = [cell.name for cell in made if cell.grid.epsg not in (None, _plain_epsg(cell))]
    if odd:
        logger.warning(
            "%d cells are not in the zone that their longitude has in the published grid: %s. Tools that take the zone "
            "from the raster read them rightly; those that take it from the name do not",
            len(odd),
            listed(odd, 3),
        )
    return made


def _pixels_by_cell(mosaics: Sequence[Mosaic]) -> dict[tuple[int, int], tuple[int, Grid]]:
    """Return the cells with embeddings of a zone: how many, and the grid around them, one pixel wider on each side.

    Wider, since a pixel at the border of a cell shows a part of the next one.
    """
    to_lonlat = pyproj.Transformer.from_crs(mosaics[0].grid.crs, 4326, always_xy=True)
    counts: dict[tuple[int, int], int] = {}
    edges: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for mosaic in mosaics:
        for rows, columns in mosaic.valid():
            lon, lat = to_lonlat.transform(*mosaic.grid.centres(rows, columns))
            keys = np.stack([np.floor(np.multiply(each, PER_DEGREE)).astype(np.int64) for each in (lon, lat)])
            cells, inverse, found = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
            for number, (column, row) in enumerate(cells.T.tolist()):
                here = inverse.ravel() == number
                y, x = rows[here], columns[here]
                top, bottom, left, right = int(y.min()), int(y.max()), int(x.min()), int(x.max())
                known = edges.get((column, row), (top, bottom, left, right))
                edges[column, row] = (
                    min(top, known[0]),
                    max(bottom, known[1]),
                    min(left, known[2]),
                    max(right, known[3]),
                )
                counts[column, row] = counts.get((column, row), 0) + int(found[number])
    grid = mosaics[0].grid
    return {
        place: (counts[place], grid.part((slice(top - 1, bottom + 2), slice(left - 1, right + 2))))
        for place, (top, bottom, left, right) in edges.items()
    }


def _plain_epsg(cell: Cell) -> int:
    """Return the code of the zone of six degrees, without Norway's and Svalbard's exceptions."""
    return (32600 if cell.lat >= 0 else 32700) + min(int((cell.lon + 180) // 6) + 1, 60)
