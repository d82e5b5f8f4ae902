"""Compare tiles with GDAL's warp of the whole file: `python -m tests.imagery.margin_sweep TRIALS --seed N [--hard]`.

Latitudes 0 to 84 on both hemispheres; files of the tile's zone that are not aligned with it, and of zones one and two
apart; 10 to 60 m, both resamplings, with and without a nodata tag; files that begin or end anywhere in the tile, and
large ones; all pixels wanted, or some. Prints every trial with a difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tessera_cli.extent.grid import TILE_METRES, Tile, to_utm
from tessera_cli.imagery import blocks, warp
from tessera_cli.imagery.files import Files
from tessera_cli.net import Client

ROUNDING = 0 if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 10) else 1.2e-7
"""Of float32: GDAL 3.9 rounds the last bit by what else it warps at a time."""


@dataclass(frozen=True)
class Trial:
    """A tile, a file, and the pixels wanted."""

    tile: Tile
    epsg: int
    west: float
    north: float
    step: int
    size: int
    dtype: str
    nodata: float | None
    gaps: bool
    resampling: str
    wanted: tuple[int, int, int, int] | None
    """First row, end row, first column, end column; None: all."""
    seed: int


def draw(rng: np.random.Generator, *, hard: bool = False) -> Trial:
    """Return a random trial; `hard`: a file at 10 m that begins or ends in a tile far from the equator."""
    latitude = rng.uniform(55 if hard else 0, 84) * rng.choice([-1, 1])
    hemisphere = 32600 if latitude >= 0 else 32700
    zone = int(rng.integers(1, 61))
    apart = int(rng.choice([-1, 1] if abs(latitude) < 60 else [-2, -1, 1, 2]))
    apart *= hard or rng.random() < 0.8
    other = (zone + apart - 1) % 60 + 1
    longitude = zone * 6 - 183 + 3 * np.sign(apart) + rng.uniform(-1, 1) * min(1, 0.3 / np.cos(np.radians(latitude)))
    x, y = to_utm(hemisphere + zone).transform(longitude, latitude)
    tile = Tile(hemisphere + zone, int(x // TILE_METRES), int(y // TILE_METRES))
    middle = [tile.bounds[0] + TILE_METRES / 2], [tile.bounds[1] + TILE_METRES / 2]
    (x,), (y,) = rasterio.warp.transform(tile.crs, f"EPSG:{hemisphere + other}", *middle)
    step = 10 if hard else int(rng.choice([10, 20, 30, 60]))
    size = int(rng.integers(100, 1700)) if hard or rng.random() < 0.9 else 109800 // step
    side = TILE_METRES / step
    shift = 0 if apart else float(rng.choice([0, 2.5, 3, 5]))
    radar = not hard and step in (10, 30) and rng.random() < 0.4

    def beyond() -> float:
        """Pixels of the file before the middle of the tile, along one axis."""
        kind = rng.random()
        within = rng.uniform(-0.55, 0.55) * side
        return within if kind < 0.4 else size + within if kind < 0.8 else rng.uniform(0, size)

    rows, columns = np.sort(rng.integers(0, 513, (2, 2)), axis=1)
    some = not hard and rng.random() < 0.4 and rows[0] < rows[1] and columns[0] < columns[1]
    return Trial(
        tile,
        hemisphere + other,
        round(x / step - beyond()) * step + shift,
        round(y / step + beyond()) * step + shift,
        step,
        size,
        "float32" if radar else "uint16",
        rng.choice([None, np.nan, -32768]) if radar else rng.choice([None, 0]),
        bool(rng.random() < 0.7),
        "bilinear" if hard else str(rng.choice(["nearest", "bilinear"])),
        (*map(int, rows), *map(int, columns)) if some else None,
        int(rng.integers(1 << 31)),
    )


def differing(trial: Trial, folder: Path) -> int:
    """Return how many wanted pixels differ from those of a WarpedVRT of the whole file."""
    rng = np.random.default_rng(trial.seed)
    shape, radar = (trial.size, trial.size), trial.dtype == "float32"
    values = (rng.gamma(2, 0.1, shape) if radar else rng.integers(1, 9000, shape, "uint16")).astype(trial.dtype)
    gap = np.nan if radar and trial.nodata is None else trial.nodata
    if trial.gaps and gap is not None:
        values[rng.integers(0, trial.size, trial.size), rng.integers(0, trial.size, trial.size)] = gap
    path, transform = folder / "trial.tif", Affine(trial.step, 0, trial.west, 0, -trial.step, trial.north)
    options = {"count": 1, "dtype": trial.dtype, "nodata": trial.nodata, "blockxsize": 64, "blockysize": 64}
    options |= {"height": trial.size, "width": trial.size, "crs": f"EPSG:{trial.epsg}", "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **options) as dst:
        dst.write(values, 1)
    wanted = np.ones(trial.tile.shape, bool)
    if trial.wanted is not None:
        wanted[:] = False
        wanted[slice(*trial.wanted[:2]), slice(*trial.wanted[2:])] = True
    file = Files(Client()).open(str(path))
    found = warp.on_tile(file, trial.tile, trial.resampling, trial.dtype, wanted)
    expected = by_gdal(path, trial.tile, trial.resampling)
    return int((~np.isclose(found, expected, rtol=ROUNDING, atol=0, equal_nan=True) & wanted).sum())


def by_gdal(path: Path, tile: Tile, resampling: str) -> np.ndarray:
    with rasterio.open(path) as src:
        radar = src.dtypes[0] == "float32"
        nodata = np.nan if radar and src.nodata is None else src.nodata
        place = {"crs": tile.crs, "transform": tile.transform, "width": 512, "height": 512}
        place |= {"src_nodata": nodata, "nodata": nodata, "add_alpha": nodata is None}
        with WarpedVRT(src, resampling=Resampling[resampling], **place) as vrt:
            return vrt.read(1) if radar else vrt.read(1, masked=True).filled(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--margin", type=int, help="pixels around the tile and around wanted pixels")
    parser.add_argument("--hard", action="store_true")
    given = parser.parse_args()
    if given.margin is not None:
        warp.MARGIN_OTHER_CRS = blocks.MARGIN = given.margin
    found: Counter[str] = Counter()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.trials):
            trial = draw(rng, hard=given.hard)
            kind = f"{trial.dtype} {trial.step} m {trial.resampling}"
            found[kind] += 1
            if pixels := differing(trial, Path(folder)):
                found[f"{kind}: different"] += 1
                sys.stdout.write(f"{pixels} pixels differ: {trial}\n")
    for kind, count in sorted(found.items()):
        sys.stdout.write(f"{count:6} {kind}\n")


if __name__ == "__main__":
    main()
