"""The fixed output grid (UTM, 10 m, tiles of 512 x 512 pixels at multiples of 5120 m), and requests for its tiles."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError
from tessera_cli.extent.antimeridian import unwrap
from tessera_cli.extent.window import Window
from tessera_cli.reading import inflate

RESOLUTION = 10
TILE_SIZE = 512
TILE_METRES = RESOLUTION * TILE_SIZE
MAX_TILES = 100_000
"""Of an area: 2.6 million km2, a quarter of Europe. One million more would be searched and listed for hours."""
MAX_PIXELS = 8192**2
"""Of a tile of any kind: twice a hundred observations of more would not fit into memory."""
_TILE_ID = re.compile(r"utm(0[1-9]|[1-5][0-9]|60)([ns])_c(-?[0-9]{1,6})_r(-?[0-9]{1,6})")


@dataclass(frozen=True, order=True)
class Tile:
    """One cell of the grid: column = floor(E / 5120), row = floor(N / 5120), in metres of the UTM zone."""

    epsg: int
    column: int
    row: int

    @classmethod
    def from_id(cls, tile_id: str) -> Tile:
        match = _TILE_ID.fullmatch(tile_id)
        if not match:
            raise ValueError(f"{tile_id!r} is not a tile id such as utm31n_c0112_r1098")
        zone, hemisphere, column, row = match.groups()
        return cls((32600 if hemisphere == "n" else 32700) + int(zone), int(column), int(row))

    @property
    def id(self) -> str:
        hemisphere = "n" if self.epsg < 32700 else "s"
        return f"utm{self.epsg % 100:02d}{hemisphere}_c{self.column:04d}_r{self.row:04d}"

    @property
    def crs(self) -> str:
        return f"EPSG:{self.epsg}"

    @property
    def shape(self) -> tuple[int, int]:
        return (TILE_SIZE, TILE_SIZE)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        west, south = self.column * TILE_METRES, self.row * TILE_METRES
        return (west, south, west + TILE_METRES, south + TILE_METRES)

    @property
    def transform(self) -> Affine:
        west, _, _, north = self.bounds
        return Affine(RESOLUTION, 0, west, 0, -RESOLUTION, north)

    @functools.cached_property
    def outline(self) -> BaseGeometry:
        """Return the square in longitude and latitude; near the antimeridian longitudes exceed 180."""
        return _outline(self.bounds, from_utm(self.epsg))


@dataclass(frozen=True)
class ForeignTile:
    """A rectangle of pixels off the grid: an official tile folder, with or without a georeference."""

    id: str
    shape: tuple[int, int]
    crs: str | None = None
    """`EPSG:32631`, or WKT; None if unknown."""
    transform: Affine | None = None
    """Pixel corner -> metres, north up; None if unknown."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of `crs`."""
        assert self.transform is not None
        (height, width), t = self.shape, self.transform
        return (t.c, t.f + t.e * height, t.c + t.a * width, t.f)

    @functools.cached_property
    def outline(self) -> BaseGeometry:
        """Return the rectangle in longitude and latitude; near the antimeridian longitudes exceed 180."""
        return _outline(self.bounds, Transformer.from_crs(self.crs, 4326, always_xy=True))


AnyTile = Tile | ForeignTile


def pixel_positions(tile: AnyTile, numbers: np.ndarray) -> np.ndarray:
    """Return int64 (N, 3) for flat pixel numbers (N,): EPSG code, easting and northing of the centre in metres.

    For a tile without a georeference: 0, column and row.
    """
    rows, columns = np.divmod(np.asarray(numbers, np.int64), tile.shape[1])
    if tile.transform is None:
        return np.stack([np.zeros_like(rows), columns, rows], axis=-1)
    east = tile.transform.c + tile.transform.a * (columns + 0.5)
    north = tile.transform.f + tile.transform.e * (rows + 0.5)
    code = re.fullmatch(r"EPSG:(\d+)", tile.crs or "")
    zone = np.full_like(rows, int(code[1]) if code else 0)
    return np.stack([zone, np.floor(east).astype(np.int64), np.floor(north).astype(np.int64)], axis=-1)


def _outline(bounds: tuple[float, float, float, float], to_lonlat: Transformer) -> BaseGeometry:
    side = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    square = shapely.segmentize(shapely.box(*bounds), side / 21)
    lonlat = shapely.transform(square, to_lonlat.transform, interleaved=False)
    return unwrap(lonlat, centre=180) if lonlat.bounds[2] - lonlat.bounds[0] > 180 else lonlat


def outlines(tiles: Sequence[Tile]) -> np.ndarray:
    """Return the outlines of many tiles, geometries (N,), projected at once: each tile keeps its own."""
    lacking = [tile for tile in tiles if "outline" not in tile.__dict__]
    for epsg in {tile.epsg for tile in lacking}:
        of_zone = [tile for tile in lacking if tile.epsg == epsg]
        squares = shapely.segmentize(shapely.box(*np.array([tile.bounds for tile in of_zone]).T), TILE_METRES / 21)
        lonlat = shapely.transform(squares, from_utm(epsg).transform, interleaved=False)
        for tile, shape, (west, _, east, _) in zip(of_zone, lonlat, shapely.bounds(lonlat), strict=True):
            tile.__dict__["outline"] = unwrap(shape, centre=180) if east - west > 180 else shape
    return np.array([tile.outline for tile in tiles], object)


@functools.lru_cache
def to_utm(epsg: int) -> Transformer:
    """Return the transformer from longitude, latitude to easting, northing."""
    return Transformer.from_crs(4326, epsg, always_xy=True)


@functools.lru_cache
def from_utm(epsg: int) -> Transformer:
    """Return the transformer from easting, northing to longitude, latitude."""
    return Transformer.from_crs(epsg, 4326, always_xy=True)


_SPECIAL_ZONES = {
    (56.0, 64.0): {31: (0.0, 3.0), 32: (3.0, 12.0)},
    (72.0, 84.0): {31: (0.0, 9.0), 33: (9.0, 21.0), 35: (21.0, 33.0), 37: (33.0, 42.0)},
}
"""Norway and Svalbard: latitudes -> zone -> its longitudes where they differ from six degrees."""


def zone_limits(zone: int, lat: float) -> tuple[float, float]:
    """Return the west and east longitude of a UTM zone at a latitude."""
    special = next((zones for (south, north), zones in _SPECIAL_ZONES.items() if south <= lat < north), {})
    west = (zone - 1) * 6.0 - 180
    return special.get(zone, (west, west + 6))


def utm_zone(lon: float, lat: float) -> int:
    """Return the zone number 1..60 with the Norway and Svalbard exceptions; longitude 180 belongs to zone 60."""
    for (south, north), zones in _SPECIAL_ZONES.items():
        for zone, (west, east) in zones.items():
            if south <= lat < north and west <= lon < east:
                return zone
    return min(int((lon + 180) // 6) + 1, 60)


def utm_epsg(lon: float, lat: float) -> int:
    return (32600 if lat >= 0 else 32700) + utm_zone(lon, lat)


def utm_code(text: str) -> int:
    """Parse `EPSG:32631` or `32631`; UsageError for anything but UTM on WGS84."""
    digits = text.upper().removeprefix("EPSG:")
    if digits.isdigit() and (32601 <= int(digits) <= 32660 or 32701 <= int(digits) <= 32760):
        return int(digits)
    raise UsageError(f"--crs {text}: the grid is UTM on WGS84. Give EPSG:32601..32660 or EPSG:32701..32760.")


def tiles_touching(geometry: BaseGeometry, epsg: int) -> list[Tile]:
    """Return the tiles whose square intersects `geometry` (in metres of `epsg`), row by row from the north-west."""
    if geometry.is_empty:
        return []
    west, south, east, north = (round(v, 6) for v in geometry.bounds)  # 1e-6 m: no tile for rounding noise
    first = np.floor(np.array([west, south]) / TILE_METRES).astype(np.int64)
    last = np.floor(np.array([east, north]) / TILE_METRES).astype(np.int64)
    shapely.prepare(geometry)
    cells = np.zeros((1, 2), np.int64) + first  # column and row of the south-west tile of each block of tiles
    side = 1 << int((last - first).max()).bit_length()
    while True:
        low, high = cells * TILE_METRES, (cells + side) * TILE_METRES
        cells = cells[shapely.intersects(geometry, shapely.box(*low.T, *high.T))]
        if side == 1:
            break
        side = max(side // 4, 1)
        steps = side * np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2)
        cells = np.unique((cells[:, None] + steps).reshape(-1, 2), axis=0)
        cells = cells[(cells <= last).all(axis=1)]
    cells = cells[np.lexsort((cells[:, 0], -cells[:, 1]))]
    return [Tile(epsg, column, row) for column, row in cells.tolist()]


def tile_name(tile: AnyTile, window: Window | None) -> str:
    """Return `<tile>_<window>`, the name of everything made of a tile; the tile's id alone for a window of None."""
    return tile.id if window is None else f"{tile.id}_{window.name}"


def parse_tile_name(name: str) -> tuple[Tile, Window] | None:
    """Return the tile of the grid and the window of `<tile>_<window>`; None for any other name."""
    tile_id, _, window = name.rpartition("_")
    try:
        return Tile.from_id(tile_id), Window.from_name(window)
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class TileRequest:
    """A tile in a window, and the pixels of it that are asked for."""

    tile: AnyTile
    window: Window | None
    """None if only days of year are known, as of official tile folders."""
    packed: bytes
    """The mask of the pixels, by `pack_mask`: a large AOI keeps thousands of these."""

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def pixels(self) -> np.ndarray:
        """Unpack the mask: bool (H, W), true where a pixel is asked for."""
        return unpack_mask(self.packed, self.tile.shape)

    @functools.cached_property
    def count(self) -> int:
        """Number of pixels asked for."""
        return _count(self.packed, self.tile.shape)

    def on_grid(self) -> tuple[Tile, Window]:
        """Return tile and window; ValueError unless both are those of the grid."""
        if not isinstance(self.tile, Tile) or self.window is None:
            raise ValueError(f"{self.name} is not a tile of the grid in a window")
        return self.tile, self.window


def pack_mask(mask: np.ndarray) -> bytes:
    """Compress bool (H, W) to a few hundred bytes: zlib of bits, row by row, first pixel in the highest bit."""
    return zlib.compress(np.packbits(mask).tobytes(), 6)


def unpack_mask(packed: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Undo `pack_mask`; return a writable bool array of `shape`. ValueError where it is the mask of another shape."""
    pixels = check_shape(shape)
    bits = np.frombuffer(inflate(packed, -(-pixels // 8)), np.uint8)
    if len(bits) != -(-pixels // 8):
        raise ValueError(f"a mask of {shape[0]} x {shape[1]} pixels has {len(bits)} bytes")
    return np.unpackbits(bits, count=pixels).astype(bool).reshape(shape)


@functools.lru_cache(maxsize=64)  # of a large area most tiles are whole, and have the same mask
def _count(packed: bytes, shape: tuple[int, int]) -> int:
    return int(unpack_mask(packed, shape).sum())


def check_shape(shape: tuple[int, int]) -> int:
    """Return the number of pixels of a tile of this shape; ValueError if no tile has it."""
    height, width = shape
    if not (type(height) is type(width) is int and height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f"no tile has the shape {str(shape)[:60]}: at most {MAX_PIXELS:,} pixels")
    return height * width
