"""One VRT per zone and window over all finished tiles of a folder, clipped to what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tessera_cli.atomic import write_bytes
from tessera_cli.grid import Tile
from tessera_cli.outputs.folder import OutputFolder
from tessera_cli.outputs.item import raster_name
from tessera_cli.outputs.vrt import Bounds, embedding_vrt, vrt_name
from tessera_cli.window import Window

log = logging.getLogger(__name__)

MAX_TILES = 256
"""A VRT names every tile twice per band; beyond this it grows past 60 MB and opens slowly."""


def write_mosaics(
    folder: OutputFolder, windows: Sequence[Window], *, dims: int, tags: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write the VRTs of `windows`. Tiles and bounds are those of all runs on the folder, not of the last one alone."""
    written = []
    for window in windows:
        tiles, bounds = _asked(folder, window)
        for epsg in sorted({tile.epsg for tile in tiles}):
            of_zone = sorted(
                t for t in tiles if t.epsg == epsg and (folder.path / raster_name(t, window, "emb")).exists()
            )
            if not of_zone:
                continue
            name = vrt_name(of_zone[0], window)
            if len(of_zone) > MAX_TILES:
                log.warning("%s is not written: %d tiles are too many for one VRT", name, len(of_zone))
                continue
            named = {**tags, "TESSERA_YEAR": window.name, "TESSERA_WINDOW": f"{window.start}/{window.end}"}
            xml = embedding_vrt(of_zone, window, dims=dims, tags=named, bounds=bounds[epsg])
            path = folder.path / name
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
