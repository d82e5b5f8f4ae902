"""One VRT per zone and window over all finished tiles of a folder of GeoTIFFs, clipped to what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tessera_cli.extent.grid import Tile, parse_tile_name, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.files import write_bytes
from tessera_cli.outputs.beside import beside, is_stale, remove_beside
from tessera_cli.outputs.layers import vrt_name
from tessera_cli.outputs.tags import model_tags
from tessera_cli.outputs.vrt import Bounds, embedding_vrt
from tessera_cli.reading import MB, read_file
from tessera_cli.runs.folder import TileFolder

logger = logging.getLogger(__name__)

MAX_SOURCES = 256 * 128 * 2
"""Most rasters named in a VRT, once per band: 256 tiles of 128 codes and scales take 23 MB; larger ones open slowly."""
MAX_VRT = 100 * MB


def write_mosaics(folder: TileFolder, windows: Sequence[Window], *, known: Collection[str] = ()) -> tuple[Path, ...]:
    """Write the VRTs of `windows`. Tiles and bounds are those of all runs on the folder, not of the last one alone.

    Only tiles of the grid whose record says that they are done are taken, and those named in `known`, whose record the
    caller has seen. Arrays have no VRT.
    """
    found: dict[Path, str] = {}
    # Until it holds: of runs that end at the same moment, the last one to write must have seen the tiles of all.
    while found != (found := mosaics(folder, windows, known=known)):
        for path, xml in found.items():
            if not is_vrt(xml):
                path.unlink(missing_ok=True)  # of an earlier run: it no longer shows what is there
                remove_beside(path)
                continue
            if content_of(path) != xml:
                write_bytes(path, xml.encode())
            if any(is_stale(each, described(path)) for each in beside(path)):
                remove_beside(path)
    for path, xml in found.items():
        if xml and not is_vrt(xml):
            logger.warning("%s is not written: %s", path.name, xml)
    return tuple(path for path, xml in found.items() if is_vrt(xml))


def mosaics(folder: TileFolder, windows: Sequence[Window], *, known: Collection[str] = ()) -> dict[Path, str]:
    """Return the VRTs of `windows` as `write_mosaics` writes them; where it writes none, why, or nothing."""
    if folder.identity.get("format") != "geotiff":
        return {}
    dims, dtype, tags = folder.identity["dims"], folder.identity["dtype"], model_tags(folder.identity, folder.note)

    def done(tile: Tile, window: Window) -> bool:
        name = tile_name(tile, window)
        if name in known:
            return True
        record = folder.record(name)
        return record is not None and record.status == "done" and record.tile == tile

    found: dict[Path, str] = {}
    for window in windows:
        tiles, bounds = _requested(folder, window)
        for epsg in sorted(bounds):
            of_zone = sorted(tile for tile in tiles if tile.epsg == epsg)
            path = folder.path / vrt_name(of_zone[0], window)
            finished = [tile for tile in of_zone if done(tile, window)]
            sources = len(finished) * dims * (2 if dtype == "int8" else 1)
            if 0 < sources <= MAX_SOURCES:
                found[path] = embedding_vrt(finished, window, dims=dims, dtype=dtype, tags=tags, bounds=bounds[epsg])
            else:
                found[path] = f"{len(finished)} tiles are too many for one VRT" if sources else ""
    return found


def is_vrt(xml: str) -> bool:
    """Return whether it is one, not the reason why there is none."""
    return xml.startswith("<")


def content_of(vrt: Path) -> str | None:
    """Return what a VRT holds; None if it cannot be read."""
    try:
        return read_file(vrt, MAX_VRT).decode()
    except (OSError, UnicodeDecodeError):
        return None


def described(vrt: Path) -> Iterator[Path]:
    """Yield the VRT and the rasters of the tiles of its zone and window: what lies beside it describes them all."""
    zone, _, window = vrt.stem.partition("_")
    yield vrt
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
