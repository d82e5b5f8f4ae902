"""Find the record that a raster, an array or a store belongs to."""

from __future__ import annotations

from pathlib import Path

from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import tiles_of_file


def record_listing(path: Path) -> TileRecord | None:
    """Return the record that lists a raster or array of embeddings, from the same folder; None if there is none."""
    folder = TileFolder(path.parent)
    for name in tiles_of_file(path.name):
        record = folder.read(folder.item_path(name))
        if record is not None and path.name in {asset.name for asset in record.assets}:
            return record
    return None


def record_beside(store: Path) -> TileRecord | None:
    """Return the record beside stored d-pixels, if `fetch` has put both there; else None."""
    store = store.absolute()
    folder = TileFolder(store.parent)
    record = folder.read(folder.item_path(store.name.removesuffix(".zarr")))
    return record if record is not None and record.holds_dpixels and record.store == store.name else None
