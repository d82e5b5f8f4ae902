"""The virtual rasters of a folder of GeoTIFFs: per zone and window, over the finished tiles, clipped to the AOIs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, parse_tile_name, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.files import explained, write_bytes
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs.beside import beside, is_stale, remove_beside
from tessera_cli.outputs.layers import file_name
from tessera_cli.outputs.tags import model_tags
from tessera_cli.outputs.vrt import Bounds, of_mosaic, product_name, vrt_files
from tessera_cli.reading import MB, read_file

logger = logging.getLogger(__name__)

MAX_VRT = 100 * MB


@dataclass(frozen=True)
class Mosaic:
    """What the VRTs of a zone and window show."""

    product: Path
    """The VRT to be opened."""
    window: Window
    tiles: tuple[Tile, ...]
    """Those that are done. There are no VRTs if none is."""
    bounds: Bounds
    """West, south, east, north of what was asked for, in metres of the zone."""

    def files(self, folder: TileFolder) -> Iterator[tuple[Path, str]]:
        """Yield the VRTs and their XML: what one names comes before it, the one to be opened last."""
        identity = folder.identity
        if self.tiles:
            tags = model_tags(identity, folder.note)
            written = {"dims": identity["dims"], "dtype": identity["dtype"], "tags": tags, "bounds": self.bounds}
            for name, xml in vrt_files(self.tiles, self.window, **written):
                yield folder.path / name, xml


def write_mosaics(folder: TileFolder, windows: Sequence[Window], *, known: Collection[str] = ()) -> tuple[Path, ...]:
    """Write the VRTs of `windows`; return those to be opened.

    Tiles and bounds are those of all runs on the folder, not of the last one alone. Only tiles of the grid whose record
    says that they are done are taken, and those named in `known`, whose record the caller has seen; each record is read
    once. Arrays have no VRT. A folder that cannot be written stays as it is, and a warning says so.
    """
    done = _remembered(folder, known)
    found: list[Mosaic] = []
    # Until it holds: of runs that end at the same moment, the last one to write must have seen the tiles of all.
    try:
        with explained(folder.path):
            while found != (found := mosaics(folder, windows, done)):
                for mosaic in found:
                    _write(folder, mosaic)
    except UsageError as error:  # read-only: the tiles are there
        logger.warning("the mosaics are not brought up to date: %s", error)
        return tuple(mosaic.product for mosaic in found if mosaic.product.exists())
    return tuple(mosaic.product for mosaic in found if mosaic.tiles)


def _write(folder: TileFolder, mosaic: Mosaic) -> None:
    """Write the VRTs of a mosaic that are not there as they should be, and remove those that should not be."""
    before, due = of_mosaic(mosaic.product), []
    for path, xml in mosaic.files(folder):
        due.append(path)
        if content_of(path) != xml:
            write_bytes(path, xml.encode())
    for path in before:  # the one to be opened first
        if path not in due:
            path.unlink(missing_ok=True)
            remove_beside(path)
    for path in due:
        if any(is_stale(each, described(path)) for each in beside(path)):
            remove_beside(path)


def mosaics(folder: TileFolder, windows: Sequence[Window], done: Callable[[Tile, Window], bool]) -> list[Mosaic]:
    """Return the mosaics of `windows` over the tiles that are `done`, also those that are to go since no tile is."""
    if folder.identity.get("format") != "geotiff":
        return []
    found = []
    for window in windows:
        tiles, bounds = _requested(folder, window)
        for epsg in sorted(bounds):
            of_zone = sorted(tile for tile in tiles if tile.epsg == epsg)
            finished = tuple(tile for tile in of_zone if done(tile, window))
            path = folder.path / product_name(of_zone[0], window)
            found.append(Mosaic(path, window, finished, bounds[epsg]))
    return found


def is_done(folder: TileFolder, tile: Tile, window: Window) -> bool:
    """Return whether the record of a tile says that it is done, and its files are there."""
    name = tile_name(tile, window)
    if not (folder.path / file_name(name, "emb", "geotiff")).exists():  # of an empty tile the record need not be read
        return False
    record = folder.record(name)
    return record is not None and record.status == "done" and record.tile == tile


def _remembered(folder: TileFolder, known: Collection[str]) -> Callable[[Tile, Window], bool]:
    """Return `is_done` that takes the `known` as done and reads no record again that has not changed."""
    seen: dict[str, tuple[object, bool]] = {}

    def done(tile: Tile, window: Window) -> bool:
        name = tile_name(tile, window)
        if name in known:
            return True
        try:
            stat = folder.item_path(name).stat()
        except OSError:
            return False
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if name not in seen or seen[name][0] != version:
            seen[name] = version, is_done(folder, tile, window)
        return seen[name][1]

    return done


def content_of(vrt: Path) -> str | None:
    """Return what a VRT holds; None if it cannot be read."""
    try:
        return read_file(vrt, MAX_VRT).decode()
    except (OSError, UnicodeDecodeError):
        return None


def described(vrt: Path) -> Iterator[Path]:
    """Yield the files that decide what a VRT shows: the VRTs and the tiles' rasters of its zone and window."""
    yield from of_mosaic(vrt)
    zone, window = vrt.stem.split("_")[:2]
    yield from vrt.parent.glob(f"{zone}_*_{window}_*.tif")


def _requested(folder: TileFolder, window: Window) -> tuple[set[Tile], dict[int, Bounds]]:
    """Return the tiles that any run asked for in the window, and per zone of theirs the box around the AOIs."""
    tiles: set[Tile] = set()
    boxes: dict[int, list[Bounds]] = {}
    for run in folder.runs():
        parsed = map(parse_tile_name, run.get("names", []))
        of_run = {tile for tile, of in filter(None, parsed) if of == window}
        areas = run.get("areas", {})
        for tile in of_run:  # a run without an AOI asked for its tiles as they are
            boxes.setdefault(tile.epsg, []).append(tuple(areas.get(str(tile.epsg), tile.bounds)))
        tiles |= of_run
    return tiles, {epsg: _around(of_zone) for epsg, of_zone in boxes.items()}


def _around(boxes: Sequence[Bounds]) -> Bounds:
    west, south, east, north = zip(*boxes, strict=True)
    return (min(west), min(south), max(east), max(north))
