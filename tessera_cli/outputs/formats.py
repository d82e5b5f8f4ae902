"""Write and check the files of a tile of embeddings, in any format."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import AnyTile
from tessera_cli.files import write_bytes
from tessera_cli.outputs import geotiff, npy, vectors
from tessera_cli.outputs.asset import Asset, damaged
from tessera_cli.outputs.beside import beside, remove_beside
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.geotiff import Compress as Compress
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import NOT_REQUESTED, RUN, Layer, Role, file_name, file_names, layers_of
from tessera_cli.outputs.layers import Format as Format
from tessera_cli.outputs.stac import CATALOG, COLLECTION


def check_tile(format: Format, tile: AnyTile) -> None:
    """Raise UsageError if such a tile cannot be written."""
    if format == "geotiff" and (tile.crs is None or tile.transform is None):
        raise UsageError(f"{tile.id} cannot be a GeoTIFF: it needs a georeference (roi.tiff). Use --format npy.")
    if (file := f"{tile.id}.json") in (RUN, COLLECTION, CATALOG):
        what = "holds the folder's settings" if file == RUN else "lists the folder's tiles"
        raise UsageError(f"{tile.id} cannot be the name of a tile: {file} {what}. Rename it.")


def write(folder: Path, encoded: EncodedTile, *, compress: Compress = "zstd") -> tuple[Asset, ...]:
    """Write the files of a tile and compare them with what was to be written; if that fails, remove them all.

    `compress` is for GeoTIFF; arrays are never compressed. Raises UsageError as `check_tile` does, and TileError where
    the files do not hold the embeddings, as where a value is NaN.
    """
    record, assets = encoded.record, list[Asset]()
    check_tile(record.format, record.tile)
    try:
        for layer in layers_of(record.identity):
            name = file_name(record.name, layer.role, record.format)
            with layer_bytes(layer, encoded, compress) as data:
                assets.append(Asset.of(layer.role, name, data))
                remove_beside(folder / name)
                write_bytes(folder / name, data)
        if not np.array_equal(_embedded(folder, replace(record, assets=tuple(assets))), encoded.pixels):
            raise damaged(folder / assets[0].name, "it does not hold the embeddings that were written")
    except BaseException:
        remove(folder, record.name)
        raise
    return tuple(assets)


def layer_bytes(layer: Layer, encoded: EncodedTile, compress: Compress) -> AbstractContextManager[memoryview]:
    """Return a context that holds the bytes of a layer's file, as `write` writes it."""
    if encoded.record.format == "geotiff":
        return geotiff.layer_bytes(layer, encoded, compress)
    return (npy if encoded.record.format == "npy" else vectors).layer_bytes(layer, encoded)


def remove(folder: Path, name: str) -> None:
    """Remove the files of a tile, of any format, and those beside them, as far as they can be removed."""
    for file in file_names(name):
        for path in (folder / file, *beside(folder / file)):
            with suppress(OSError):
                path.unlink()


def read_back(folder: Path, record: TileRecord) -> None:
    """Compare a tile's files with its record and with each other: bytes, layout, gaps; TileError if they differ."""
    if record.status == "empty":
        check_files(folder, record)
        return
    pixels = int(_embedded(folder, record).sum())
    if pixels != record.pixels:
        file = folder / record.assets[0].name
        raise damaged(file, f"it holds {pixels} embeddings, and {record.pixels} are recorded")
    if record.format != "geotiff" and (
        record.counts is None or (record.counts[:, record.requested] == NOT_REQUESTED).any()
    ):
        raise damaged(folder / f"{record.name}.json", "it lacks counts of requested pixels")


def check_files(folder: Path, record: TileRecord, *, recorded_at: int | None = None) -> dict[Role, Path]:
    """Return the files of a tile by role; TileError unless the record lists those due, and they have its bytes.

    `recorded_at` as in `Asset.verified`.
    """
    if record.status == "empty":
        if record.assets or record.pixels:
            raise damaged(folder / f"{record.name}.json", "it says that the tile is empty, and lists files")
        return {}
    format, listed = record.format, {asset.role: asset.name for asset in record.assets}
    due = {layer.role: file_name(record.name, layer.role, format) for layer in layers_of(record.identity)}
    if listed != due:
        raise TileError(f"{record.name}: files {sorted(listed.values())} recorded, not {sorted(due.values())}.")
    return {asset.role: asset.verified(folder, recorded_at=recorded_at) for asset in record.assets if asset.role}


def _embedded(folder: Path, record: TileRecord) -> np.ndarray:
    """Return bool (H, W): the pixels with an embedding; TileError if a file is absent or damaged."""
    paths = check_files(folder, record)
    return {"geotiff": geotiff, "npy": npy, "vectors": vectors}[record.format].read_back(record, paths)
