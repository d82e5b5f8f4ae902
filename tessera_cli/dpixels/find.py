"""Find stored d-pixels by path, and open them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.dpixels.official import describe_folder, is_folder, read_folder, shape_of_folder
from tessera_cli.dpixels.stored import Stored
from tessera_cli.dpixels.zarr_store import SUFFIX, describe_store, is_store, open_store, read_store
from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import AnyTile, ForeignTile, pack_mask, parse_tile_name
from tessera_cli.extent.window import Window
from tessera_cli.parts import PART

if TYPE_CHECKING:
    import xarray as xr


def find_stores(paths: Sequence[Path], *, broken: bool = False) -> tuple[Stored, ...]:
    """Return the d-pixels at `paths`, by name: Zarr stores, official tile folders, or folders that directly hold such.

    No observations are read. UsageError where nothing is found, where one cannot be described, and where two have
    the same name; a path given twice counts once. With `broken`, those of known names that cannot be described are
    returned beside sound ones, and raise their TileError when they are read.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        inside = list(members(path))
        if not inside:
            why = "it holds no Zarr stores and no official tile folders" if path.is_dir() else "there is no such folder"
            raise UsageError(f"{path} has no d-pixels: {why}. Give what `tessera fetch` wrote.")
        folders |= {member.resolve(): member for member in inside}
    stores: dict[str, Stored] = {}
    refusal = None
    for member in folders.values():
        try:
            stored = describe(member)
        except TileError as error:
            refusal = refusal or UsageError(f"{error} Or leave {member.name} out.")
            unread = _undescribed(member, error) if broken else None
            if unread is None:
                raise refusal from error
            stored = unread
        if (other := stores.setdefault(stored.name, stored)) is not stored:
            raise UsageError(
                f"{other.path} and {member} are both {stored.name}: results would overwrite each other. Give one."
            )
    if refusal is not None and all(stored.error is not None for stored in stores.values()):
        raise refusal  # where they come from is not known either
    return tuple(stores[name] for name in sorted(stores))


def members(path: Path) -> Iterator[Path]:
    """Yield the stores and official tile folders that a path is or directly holds."""
    if is_store(path) or is_folder(path):
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.suffix != PART and (is_store(inner) or is_folder(inner)):  # .part: a killed run left it
                yield inner


def _undescribed(path: Path, error: TileError) -> Stored | None:
    """Return what stands for damaged d-pixels, so that they fail as a tile; None if their name is not known."""
    if is_store(path):
        known = parse_tile_name(path.name.removesuffix(SUFFIX))
        if known is None:
            return None
        tile: AnyTile = known[0]
        window: Window | None = known[1]
    else:
        tile, window = ForeignTile(path.absolute().name, shape_of_folder(path)), None
    return Stored(
        path=path,
        tile=tile,
        window=window,
        source=None,
        preprocessing="",
        packed=pack_mask(np.zeros(tile.shape, bool)),
        input_digest="",
        load=read_store,
        load_dates=_no_dates,
        error=error,
    )


def _no_dates(path: Path) -> Mapping[str, np.ndarray]:
    return {}


def describe(path: Path) -> Stored:
    """Describe a Zarr store or an official tile folder, without its observations; TileError where it is damaged."""
    return describe_store(path) if is_store(path) else describe_folder(path)


def open_dpixels(path: Path | str, *, chunks: Any = None) -> xr.Dataset:
    """Open stored d-pixels of one tile as a lazy xarray Dataset.

    Args:
        path: A Zarr store that `tessera fetch` wrote, or a tile folder of the official code.
        chunks: Chunks of dask arrays, as `xarray.Dataset.chunk` takes them; by default no dask is used, and values are
            read when they are asked for.

    Returns:
        The Dataset that `DPixels.to_xarray` describes: `s2` uint16 (s2_time, y, x, band), `s2_mask` uint8,
        `s1_asc` and `s1_desc` int16 (their time, y, x, pol), `roi` bool (y, x). `.odc.crs` and `.rio.crs` give the
        CRS. Official folders know days of year only: their dates are those of 2024, and attribute `window` is None.

    Raises:
        UsageError: There are no d-pixels at `path`, or they are of another version of the format.
        TileError: They are damaged. Observations are not read, so damage there is found when they are.
    """
    path = Path(path)
    if not (is_store(path) or is_folder(path)):
        why = "Give a store such as those that `tessera fetch` writes, <tile>_<window>.zarr"
        raise UsageError(f"{path} is neither a store of d-pixels nor an official tile folder. {why}.")
    dataset = open_store(path) if is_store(path) else read_folder(path, lazy=True).to_xarray()
    return dataset if chunks is None else dataset.chunk(chunks)
