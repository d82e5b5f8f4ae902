"""One VRT per zone and window over all finished tiles of a folder, clipped to what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tessera_cli.atomic import write_bytes
from tessera_cli.grid import Tile
from tessera_cli.outputs.folder import OutputFolder
from tessera_cli.outputs.layers import tile_name, vrt_name
from tessera_cli.outputs.vrt import Bounds, embedding_vrt
from tessera_cli.window import Window

log = logging.getLogger(__name__)

MAX_TILES = 256
"""A VRT names every tile twice per band: with so many it has 23 MB; larger ones open slowly."""


def write_mosaics(
    folder: OutputFolder,
    windows: Sequence[Window],
    *,
    dims: int,
    tags: Mapping[str, str],
    known: Collection[str] = (),
) -> tuple[Path, ...]:
    """Write the VRTs of `windows`. Tiles and bounds are those of all runs on the folder, not of the last one alone.

    Only tiles whose record says that they are done are taken, and those named in `known`, whose record the caller has
    seen. `tags` are the model's.
    """

    def done(tile: Tile, window: Window) -> bool:
        name = tile_name(tile, window)
        return name in known or ((record := folder.record(name)) is not None and record.status == "done")

    written = []
    for window in windows:
        tiles, bounds = _asked(folder, window)
        for epsg in sorted({tile.epsg for tile in tiles}):
            of_zone = sorted(tile for tile in tiles if tile.epsg == epsg)
            path = folder.path / vrt_name(of_zone[0], window)
            finished = [tile for tile in of_zone if done(tile, window)]
            if len(finished) > MAX_TILES:
                log.warning("%s is not written: %d tiles are too many for one VRT", path.name, len(finished))
            if not 0 < len(finished) <= MAX_TILES:
                if path.exists():  # of an earlier run: it no longer shows what is there
                    path.unlink()
                continue
            xml = embedding_vrt(finished, window, dims=dims, tags=tags, bounds=bounds[epsg])
            if not path.exists() or path.read_bytes() != xml.encode():
                write_bytes(path, xml.encode())
            written.append(path)
    return tuple(written)


def _asked(folder: OutputFolder, window: Window) -> tuple[set[Tile], dict[int, Bounds]]:
    """The tiles that any run asked for in the window, and per zone the box around the AOIs."""
    tiles: set[Tile] = set()
    bounds: dict[int, Bounds] = {}
    for run in folder.runs():
        if window.name not in run.get("windows", []):
            continue
        tiles |= {Tile.from_id(tile_id) for tile_id in run["tiles"]}
        for zone, (west, south, east, north) in run["areas"].items():
            w, s, e, n = bounds.get(int(zone), (west, south, east, north))
            bounds[int(zone)] = (min(w, west), min(s, south), max(e, east), max(n, north))
    return tiles, bounds
