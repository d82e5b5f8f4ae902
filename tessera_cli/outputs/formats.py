"""The files of a tile in any format: written and read back, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import AnyTile
from tessera_cli.outputs import geotiff, npy
from tessera_cli.outputs.asset import Asset, unsound
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.geotiff import Compress as Compress
from tessera_cli.outputs.item import Expected, TileRecord
from tessera_cli.outputs.layers import LAYERS, NOT_ASKED, RUN, file_name, file_names
from tessera_cli.outputs.layers import Format as Format


def check_tile(format: Format, tile: AnyTile) -> None:
    """Raises UsageError if such a tile cannot be written."""
    if format == "geotiff" and (tile.crs is None or tile.transform is None):
        raise UsageError(f"{tile.id} cannot be a GeoTIFF: it needs a georeference (roi.tiff). Use --format npy.")
    if f"{tile.id}.json" == RUN:
        raise UsageError(f"{tile.id} cannot be the name of a tile: {RUN} holds the folder's settings. Rename it.")


def write(format: Format, folder: Path, encoded: EncodedTile, *, compress: Compress = "zstd") -> tuple[Asset, ...]:
    """Build, write and read back the files of a tile; if that fails, none of them is left.

    `compress` is for GeoTIFF; arrays are never compressed. Raises UsageError as `check_tile` does, and TileError
    also for values that mean that there is none (NaN).
    """
    check_tile(format, encoded.tile)
    try:
        assets = geotiff.write(folder, encoded, compress) if format == "geotiff" else npy.write(folder, encoded)
        if not np.array_equal(_found(format, folder, encoded, assets), encoded.pixels):
            raise unsound(folder / assets[0].name, "it does not hold the embeddings that were written")
    except BaseException:
        remove(folder, encoded.name)
        raise
    return assets


def remove(folder: Path, name: str) -> None:
    """Remove those of a tile's files, of any format, that are there and can be removed."""
    for file in file_names(name):
        with suppress(OSError):
            (folder / file).unlink()


def read_back(folder: Path, record: TileRecord) -> None:
    """Check the files of a tile against its record: bytes, layout, agreement with each other; TileError if not."""
    if record.status == "empty":
        if record.assets or record.pixels:
            raise unsound(folder / f"{record.name}.json", "it says that the tile is empty, and lists files")
        return
    found = int(_found(record.format, folder, record, record.assets).sum())
    if found != record.pixels:
        file = folder / record.assets[0].name
        raise unsound(file, f"it holds {found} embeddings, and {record.pixels} are recorded")
    if record.format == "npy" and (record.counts is None or (record.counts[:, record.requested] == NOT_ASKED).any()):
        raise unsound(folder / f"{record.name}.json", "it lacks counts of requested pixels")


def _found(format: Format, folder: Path, expected: Expected, assets: Iterable[Asset]) -> np.ndarray:
    """bool (H, W): the pixels with an embedding; TileError unless all files are there and sound."""
    recorded = {asset.role: asset.name for asset in assets}
    due = {layer.role: file_name(expected.name, layer.role, format) for layer in LAYERS[format, expected.dtype]}
    if recorded != due:
        raise TileError(f"{expected.name}: files {sorted(recorded.values())} recorded, not {sorted(due.values())}.")
    paths = {asset.role: asset.checked(folder) for asset in assets}
    return geotiff.read_back(expected, paths) if format == "geotiff" else npy.read_back(expected, paths)
