"""A finished folder of very many tiles, made in seconds: a few rasters under many names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tessera_cli.extent.grid import Tile, tile_name
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tessera_cli.outputs.layers import file_name
from tests.helpers.outputs import TILE, WINDOW, arrays, encoded, identity, record, write_record

KINDS = 3
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[:8, :8] = True


def square(side: int, first: Tile = TILE) -> list[Tile]:
    """Return `side` x `side` tiles."""
    return [Tile(first.epsg, first.column + i % side, first.row + i // side) for i in range(side * side)]


def values_of(number: int, dims: int) -> np.ndarray:
    """Return what the upper left 8 x 8 pixels of tile `number` hold, float32 (dims, 8, 8); the rest is NaN."""
    made = arrays(number % KINDS, dims, REQUESTED)
    return (made["codes"].astype(np.float32) * made["scales"])[:, :8, :8]


def folder_of(path: Path, tiles: Sequence[Tile], *, dims: int = 128, dtype: str = "int8") -> TileFolder:
    """Make a folder whose tiles each hold 8 x 8 pixels, of KINDS different ones; their files are hard links.

    So what the GeoTIFFs say of their own place is right for the first KINDS tiles only, which a mosaic does not read.
    """
    folder = TileFolder(path, identity(dims, dtype))
    folder.start_run("0", {"names": [tile_name(tile, WINDOW) for tile in tiles]}, None)
    kinds = [
        formats.write(path, encoded(arrays(kind, dims, REQUESTED), tile, dtype))
        for kind, tile in enumerate(tiles[:KINDS])
    ]
    scenes = tuple(f"S2A_MSIL2A_20230101T105441_R051_T31UFT_{number:015}" for number in range(300))
    for number, tile in enumerate(tiles):
        name, assets = tile_name(tile, WINDOW), []
        for asset in kinds[number % KINDS]:
            assert asset.role
            assets.append(replace(asset, name=file_name(name, asset.role, "geotiff")))
            if number >= KINDS:
                os.link(path / asset.name, path / assets[-1].name)
        own = {"identity": folder.identity, "requested": REQUESTED, "scenes": scenes, "pixels": 60}
        write_record(folder, record(tile=tile, assets=tuple(assets), **own))
    return folder
