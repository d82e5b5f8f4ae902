"""Finished folders to export, and their pixels read by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from pyproj import Transformer

from tessera_cli.extent.grid import Tile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.files import write_json
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tests.helpers.outputs import arrays, encoded, write_record

YEAR, NEXT, SEASON = Window.from_name("2023"), Window.from_name("2024"), Window.from_name("20230301-20231031")
WEST, EAST = Tile(32631, 112, 1098), Tile(32631, 113, 1098)
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[100:300, 30:500] = True


def put(folder, tile, window=YEAR, seed=0, dtype="int8", format="geotiff", dims=4, requested=REQUESTED, **identity):
    """Write a tile with its record, as `embed` does; a pixel with an embedding and its vector are easy to tell."""
    folder.mkdir(exist_ok=True)
    made = arrays(seed, dims, requested)
    made["counts"] = np.where(requested, made["counts"], 65535).astype(np.uint16)
    about = encoded(made, tile, dtype, format)
    counts = made["counts"] if format == "npy" else None
    about = replace(
        about,
        record=replace(
            about.record,
            window=window,
            identity={**about.record.identity, **identity},
            counts=counts,
            pixels=int((~np.isnan(made["scales"])).sum()),
        ),
    )
    assets = formats.write(folder, about, compress="none")
    write_json(folder / "run.json", {**about.record.identity})
    write_record(TileFolder(folder, {}), replace(about.record, assets=assets))
    return made


def by_hand(folder: Path, tile, window=YEAR):
    """Codes int8 (R, 512, 512) and scales (512, 512) of a tile, from its GeoTIFFs and nothing else."""
    name = tile_name(tile, window)
    with rasterio.open(folder / f"{name}_emb.tif") as codes, rasterio.open(folder / f"{name}_scales.tif") as scales:
        return codes.read(), scales.read(1)


def lonlat(tile: Tile, row: float, column: float) -> tuple[float, float]:
    """Longitude and latitude of the centre of a pixel of a tile."""
    west, _, _, north = tile.bounds
    to_lonlat = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
    return to_lonlat.transform(west + 10 * (column + 0.5), north - 10 * (row + 0.5))
