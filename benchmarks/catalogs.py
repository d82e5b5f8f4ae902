"""Simulated catalogues over whole tiles, and areas on them."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TILE_METRES, Tile, from_utm
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.simulate import sentinel1, sentinel2, simulate
from tessera_cli.simulate.area import EPSG
from tessera_cli.simulate.catalog import TIME, write_cog
from tessera_cli.simulate.landscape import field

SIZE = 3104
"""Pixels: five whole tiles each way, as the simulated area lies."""
YEAR = 2023
EVERY = 20
"""Such passes cover the whole area, once."""
SKIES = 24


def square(catalog: Path, side: int, share: float = 1.0) -> dict[str, Any]:
    """The block of whole tiles that holds most of the simulated area, or its southern share, as GeoJSON."""
    asked = tile_requests(Aoi.from_file(catalog / "aoi.geojson"), [Window.of_year(YEAR)])
    requests = {request.tile: request.count for request in asked}
    steps = range(side)
    blocks = {
        tile: sum(requests.get(Tile(tile.epsg, tile.column + i, tile.row + j), 0) for i in steps for j in steps)
        for tile in requests
    }
    west, south, _, _ = max(blocks, key=blocks.__getitem__).bounds
    north = south + share * side * TILE_METRES
    box = shapely.box(west + 1, south + 1, west + side * TILE_METRES - 1, north - 1)
    lonlat = shapely.transform(shapely.segmentize(box, 500), from_utm(EPSG).transform, interleaved=False)
    return dict(shapely.geometry.mapping(lonlat))


def make_few(folder: Path) -> None:
    """Write 8 Sentinel-2 and 4 Sentinel-1 passes over 25 whole tiles without a cloud (1 GB)."""
    with (
        mock.patch.object(sentinel1, "passes", _some(sentinel1.passes)),
        mock.patch.object(sentinel2, "passes", _some(sentinel2.passes)),
    ):
        simulate(folder, size=SIZE, year=YEAR, cloud=0)


def make_year(folder: Path, cloud: float) -> Path:
    """Write an ItemCollection of all passes of a year and return its path: the files of `make_few` again and again.

    What is read and held is that of a year; only the skies differ, of mean cover `cloud`.
    """
    items = json.loads((folder / "items.json").read_text())["features"]
    optical = [item for item in items if item["collection"] == "sentinel-2-l2a"]
    radar = {
        state: [item for item in items if item["properties"]["sat:orbit_state"] == state and item not in optical]
        for state in ("ascending", "descending")
    }
    features = []
    for number, (flown, cover) in enumerate(sentinel2.passes(0, YEAR, cloud)):
        item = _dated(optical[number % len(optical)], flown.when, f"S2_{number:03}")
        item["properties"]["eo:cloud_cover"] = min(100 * cover, 99.9)
        if cloud:
            item["assets"]["SCL"]["href"] = _sky(folder, item, round(cover * SKIES) / SKIES)
        features.append(item)
    for number, (flown, _) in enumerate(sentinel1.passes(YEAR)):
        same = radar[flown.state] or radar["ascending"]
        item = _dated(same[number % len(same)], flown.when, f"S1_{number:03}")
        item["properties"]["sat:orbit_state"] = flown.state
        features.append(item)
    path = folder / f"year-{cloud:g}.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _sky(folder: Path, item: dict[str, Any], cover: float) -> str:
    """Write the mask of a sky unless it is there; return its href."""
    name = f"{cover:.3f}"
    if not (folder / "cogs" / name / "SCL.tif").exists():
        scl = item["assets"]["SCL"]
        height, width = scl["proj:shape"]
        grid = GeoBox((height, width), Affine(*scl["proj:transform"]), f"EPSG:{EPSG}")
        thick = field(np.random.default_rng(round(1000 * cover)), (height, width), 100)
        values = np.where(thick > np.quantile(thick, 1 - cover), 9, 4).astype(np.uint8)
        write_cog(folder / "cogs" / name / "SCL.tif", values, grid, 0)
    return f"./cogs/{name}/SCL.tif"


def _dated(item: dict[str, Any], when: dt.datetime, name: str) -> dict[str, Any]:
    made = copy.deepcopy(item)
    made["id"] = name
    for key in made["properties"].keys() & {"datetime", "start_datetime", "end_datetime"}:
        made["properties"][key] = f"{when:{TIME}}"
    return made


def _some(passes: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Every so many of the passes of a sensor."""
    return lambda *arguments: [one for one in passes(*arguments) if one[0].number % EVERY == 0]
