"""Rasters side by side as one source: each a piece that knows its grid and reads a few of its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyproj
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from tessera_cli.embeddings.tile import Box
from tessera_cli.evaluation.samples import FeatureKind
from tessera_cli.evaluation.sources.source import Bounds, Centres, joined_bounds
from tessera_cli.extent.window import Window

SIDE = 512
"""Rows and columns of the boxes that are read."""


class Piece(Protocol):
    """A raster with a place: any transform, north up or not."""

    @property
    def crs(self) -> str: ...

    @property
    def transform(self) -> Affine: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def valid(self, box: Box) -> np.ndarray:
        """Return which pixels of a box have an embedding, bool (h, w)."""

    def vectors(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the vectors of pixels of one box of `SIDE`, int (N,): float32 (N, D), NaN where there is none."""


@dataclass(frozen=True, eq=False)
class TiledSource:
    """Pieces of one kind. Where they overlap, the first one that has an embedding there is used."""

    name: str
    origin: str
    dims: int
    pieces: tuple[Piece, ...]
    model: str = ""
    """What the files say of it."""
    weights: str = ""
    window: Window | None = None
    kind: FeatureKind = "embedding"

    @cached_property
    def bounds(self) -> Bounds:
        return joined_bounds([_bounds(piece) for piece in self.pieces])

    @cached_property
    def _boxes(self) -> tuple[BaseGeometry, ...]:
        return tuple(shapely.box(*_bounds(piece)) for piece in self.pieces)

    def at(self, lonlat: np.ndarray) -> np.ndarray:
        values = np.full((len(lonlat), self.dims), np.nan, np.float32)
        for number, piece in enumerate(self.pieces):
            wanted = np.flatnonzero(np.isnan(values[:, 0]))
            rows, columns = self._pixels(number, lonlat[wanted])
            inside = (rows >= 0) & (rows < piece.shape[0]) & (columns >= 0) & (columns < piece.shape[1])
            for members in in_boxes(rows[inside], columns[inside]):
                at = np.flatnonzero(inside)[members]
                values[wanted[at]] = piece.vectors(rows[at], columns[at])
        return values

    def centres(self) -> Iterator[Centres]:
        for number, piece in enumerate(self.pieces):
            height, width = piece.shape
            for top in range(0, height, SIDE):
                for left in range(0, width, SIDE):
                    box = slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width))
                    rows, columns = np.nonzero(piece.valid(box))
                    t = piece.transform
                    right, down = columns + (left + 0.5), rows + (top + 0.5)
                    places, lonlat = places_of(
                        piece.crs, t.a * right + t.b * down + t.c, t.d * right + t.e * down + t.f
                    )
                    places = places[~self._taken(number, lonlat)]
                    if len(places):
                        yield Centres(places)

    def _taken(self, number: int, lonlat: np.ndarray) -> np.ndarray:
        """Return bool (N,): where a piece before this one has an embedding."""
        taken = np.zeros(len(lonlat), bool)
        for before in range(number if len(lonlat) else 0):
            piece = self.pieces[before]
            if not self._boxes[before].intersects(self._boxes[number]):
                continue
            rows, columns = self._pixels(before, lonlat)
            inside = ~taken & (rows >= 0) & (rows < piece.shape[0]) & (columns >= 0) & (columns < piece.shape[1])
            for members in in_boxes(rows[inside], columns[inside]):
                at = np.flatnonzero(inside)[members]
                low, high = rows[at].min(), columns[at].min()
                box = slice(int(low), int(rows[at].max()) + 1), slice(int(high), int(columns[at].max()) + 1)
                taken[at] = piece.valid(box)[rows[at] - low, columns[at] - high]
        return taken

    def _pixels(self, number: int, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of positions in a piece, int64 (N,); -1 for what has none."""
        piece = self.pieces[number]
        x, y = self._transformers[piece.crs].transform(*lonlat.T)
        to_pixel = ~piece.transform
        columns = to_pixel.a * x + to_pixel.b * y + to_pixel.c
        rows = to_pixel.d * x + to_pixel.e * y + to_pixel.f
        known = np.isfinite(rows) & np.isfinite(columns) & (np.abs(rows) < 2**31) & (np.abs(columns) < 2**31)
        return np.where(known, np.floor(rows), -1).astype(int), np.where(known, np.floor(columns), -1).astype(int)

    @cached_property
    def _transformers(self) -> dict[str, Transformer]:
        return {crs: Transformer.from_crs(4326, crs, always_xy=True) for crs in {piece.crs for piece in self.pieces}}


def in_boxes(rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
    """Yield, for each box of `SIDE` that holds any pixels, which they are."""
    keys = np.stack([rows // SIDE, columns // SIDE])
    order = np.lexsort(keys[::-1])
    starts = np.flatnonzero(np.diff(keys[:, order], prepend=-1).any(axis=0))
    yield from np.split(order, starts[1:]) if len(order) else ()


def places_of(crs: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in a CRS as places, float64 (N, 3) of `Centres`, and in degrees, float64 (N, 2)."""
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    code = _code(crs)
    lonlat = np.stack([lon, lat], axis=-1)
    own = lonlat if code in (0, 4326) else np.stack([x, y], axis=-1)
    return np.concatenate([np.full((len(own), 1), float(code or 4326)), own], axis=1), lonlat


def _code(crs: str) -> int:
    return pyproj.CRS(crs).to_epsg() or 0


def _bounds(piece: Piece) -> Bounds:
    height, width = piece.shape
    x, y = zip(
        *(piece.transform * corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True
    )
    found = Transformer.from_crs(piece.crs, 4326, always_xy=True).transform_bounds(min(x), min(y), max(x), max(y))
    return found[0], found[1], found[2], found[3]
