"""d-pixels on disk: our Zarr stores and the tile folders of the official code, written and read back."""

from tessera_cli.dpixels.find import describe, find_stores, members, open_dpixels
from tessera_cli.dpixels.official import read_folder, write_folder
from tessera_cli.dpixels.stored import Stored
from tessera_cli.dpixels.zarr_store import read_store, write_store

__all__ = [
    "Stored",
    "describe",
    "find_stores",
    "members",
    "open_dpixels",
    "read_folder",
    "read_store",
    "write_folder",
    "write_store",
]
