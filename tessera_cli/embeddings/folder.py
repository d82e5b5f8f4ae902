"""A folder that `embed` wrote, opened: its finished tiles, all of one identity, by window and place."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.raster import is_tiff
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.run_record import read_or_none
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import DPIXELS, Format, layers_of

WindowLike = Window | int | str
Windows = WindowLike | Iterable[WindowLike] | None


@dataclass(frozen=True, eq=False)
class EmbeddingFolder:
    """The finished tiles of a folder that hold embeddings; at least one."""

    path: Path
    tiles: tuple[StoredTile, ...]
    """By name, so zone after zone, and the windows of a tile one after the other."""
    empty: tuple[StoredTile, ...] = ()
    """Tiles of these windows that were made, and have no embedding since too little was observed: without files."""

    @classmethod
    def open(
        cls, path: str | PathLike[str], windows: Windows = None, *, formats: Collection[str] = get_args(Format)
    ) -> EmbeddingFolder:
        """Read the records of the folder, and look at the files that they list.

        Args:
            path: the folder.
            windows: those wanted, such as 2023, "2023", "20230701-20240630" or "2023-07/2024-06"; None: all.
            formats: those that the caller can use.

        Raises:
            UsageError: it holds no embeddings, those of several settings, files that are not whole or of another
                format, or lacks a window.
            NothingToEmbedError: no tile holds an embedding.
        """
        found, empty = _finished(TileFolder.open(Path(path)), formats)
        tiles = tuple(_of_windows(Path(path), found, windows))
        there = {tile.record.window for tile in tiles}
        return cls(Path(path), tiles, tuple(tile for tile in empty if tile.record.window in there))

    @property
    def first(self) -> TileRecord:
        """Return the record of a tile: model, source, format and type are those of all."""
        return self.tiles[0].record

    @property
    def windows(self) -> tuple[Window, ...]:
        """Return the windows in order of time, without the one of tiles whose window is not known."""
        return tuple(sorted({tile.record.window for tile in self.tiles if tile.record.window is not None}))

    def check_single(self, how: str) -> None:
        """Raise UsageError unless all tiles are of one window; `how` to choose one, such as "with --after"."""
        if len({tile.record.window for tile in self.tiles}) > 1:
            names = ", ".join(each.name for each in self.windows)
            raise UsageError(f"{self.path} holds {names}: say which one {how}.")

    @property
    def zones(self) -> tuple[str, ...]:
        """Return the coordinate systems of the tiles: `EPSG:32631`, or WKT."""
        return tuple(sorted({tile.record.tile.crs for tile in self.tiles if tile.record.tile.crs is not None}))


def _finished(folder: TileFolder, formats: Collection[str]) -> tuple[list[StoredTile], list[StoredTile]]:
    """Return the finished tiles that hold embeddings, after a look at their files, and those that hold none."""
    path = folder.path
    if not path.is_dir():
        raise UsageError(f"{path} is no folder. Give the folder that `tessera embed` wrote.")
    if folder.holds_dpixels:
        raise UsageError(f"{path} holds {DPIXELS}, not embeddings. `open_dpixels` opens d-pixels.")
    found: list[StoredTile] = []
    empty: list[StoredTile] = []
    for item_path in sorted(path.glob("*.json")):
        item = read_or_none(item_path)
        if not isinstance(item, dict):
            raise UsageError(f"{item_path} cannot be read. Run the command that wrote it again.")
        if item.get("type") != "Feature":
            continue
        try:
            record = TileRecord.from_item(item)
        except UsageError as error:
            raise UsageError(f"{item_path} is no record of embeddings. Remove it.") from error
        if record.status == "empty":
            empty.append(StoredTile(record, path))
            continue
        _check(folder, record, formats)
        found.append(StoredTile(record, path))
    if not found and empty:
        raise NothingToEmbedError(f"{path}: all tiles are empty, no pixel had enough observations to be embedded.")
    if not found and folder.identity:
        raise NothingToEmbedError(f"{path}: no tile is finished. Run the command that wrote it again.")
    if not found:
        raise UsageError(f"{path} holds no embeddings. Give the folder that `tessera embed` wrote.")
    identities = {json.dumps(tile.record.identity, sort_keys=True) for tile in found}
    if len(identities) > 1:
        raise UsageError(f"{path} mixes tiles of {len(identities)} settings. Open them from folders of their own.")
    return found, empty


def _check(folder: TileFolder, record: TileRecord, formats: Collection[str]) -> None:
    """Raise UsageError unless the tile is of one of the formats and has all its files, in their full size."""
    item_path = folder.item_path(record.name)
    if record.format not in formats:
        written = "--points" if record.format == "vectors" else f"--format {record.format}"
        raise UsageError(f"{folder.path} holds arrays ({written}). Open them with numpy.load, or embed to geotiff.")
    layers, listed = layers_of(record.identity), {asset.role for asset in record.assets}
    if unlisted := [layer.role for layer in layers if layer.role not in listed]:
        raise UsageError(f"{item_path} lists no file of {unlisted[0]}. Run the command that wrote it again.")
    if file := folder.incomplete(record):
        raise UsageError(f"{file} is absent or incomplete. Run the command that wrote it again.")
    for asset in record.assets if record.format == "geotiff" else ():
        if not is_tiff(folder.path / asset.name):  # GDAL would open whatever it is
            raise UsageError(f"{folder.path / asset.name} is no GeoTIFF. Run the command that wrote it again.")


def _of_windows(folder: Path, found: list[StoredTile], windows: Any) -> list[StoredTile]:
    """Return the tiles of these windows, all of which the folder must hold."""
    if windows is None:
        return found
    one = isinstance(windows, (Window, Integral, str))
    wanted = {_window(value) for value in ([windows] if one else windows)}
    there = {tile.record.window for tile in found}
    if missing := wanted - there:
        held = ", ".join(sorted(window.name for window in there if window)) or "none with a date"
        raise UsageError(
            f"{folder} has no embeddings of {', '.join(w.name for w in sorted(missing))}. Its windows: {held}."
        )
    return [tile for tile in found if tile.record.window in wanted]


def _window(value: WindowLike) -> Window:
    if isinstance(value, Window):
        return value
    if "/" in str(value):
        return Window.parse(str(value))
    try:
        return Window.from_name(str(value))
    except ValueError as error:
        raise UsageError(f"{value!r} is no window. Write 2023, 20230701-20240630 or 2023-07/2024-06.") from error
