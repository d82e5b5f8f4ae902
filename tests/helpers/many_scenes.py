"""A year of scenes over very many tiles: items whose files are never read, and a finished folder for them."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import shapely
from pyproj import Transformer

from tessera_cli.catalog import MPC
from tessera_cli.extent.grid import TILE_METRES, Tile, TileRequest
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.layers import file_name
from tests.helpers import many_tiles
from tests.helpers.outputs import arrays, encoded, record, write_record

FIRST = Tile(32631, 40, 100)
"""South-western tile of the area."""
COLUMNS, ROWS = 116, 87
"""10,092 tiles, 594 x 445 km."""
HOST = "https://sentinel2l2a01.blob.core.windows.net"
SQUARE, FRAME = (100_000, 80_000), (250_000, 170_000)
"""Metres between the squares of Sentinel-2, which are 109.8 km wide; width and height of a frame of Sentinel-1."""
DAYS = {"s2": range(0, 365, 5), "s1": range(0, 320, 2)}


def area(columns: int = COLUMNS, rows: int = ROWS) -> dict[str, Any]:
    """Return a GeoJSON polygon within `columns` x `rows` whole tiles, all of which it touches."""
    west, south, _, _ = FIRST.bounds
    inside = (west + 100, south + 100, west + columns * TILE_METRES - 100, south + rows * TILE_METRES - 100)
    return shapely.geometry.mapping(_lonlat(shapely.segmentize(shapely.box(*inside), 20_000)))


def items(columns: int = COLUMNS, rows: int = ROWS) -> Iterator[dict[str, Any]]:
    """Yield the items of Planetary Computer over the area in 2023; 4,068 of them over 10,092 tiles."""
    rng, (west, south, _, _) = random.Random(0), FIRST.bounds
    east, north = west + columns * TILE_METRES, south + rows * TILE_METRES
    for sensor, (wide, high), side in (("s2", SQUARE, 109_800), ("s1", FRAME, 0)):
        across, down = -(-int(east - west) // wide), -(-int(north - south) // high)
        for number in range(across * down):
            x, y = west + number % across * wide, south + number // across * high
            shape = _lonlat(shapely.box(x, y, x + (side or wide), y + (side or high)))
            for day in DAYS[sensor]:
                yield _item(sensor, number, day, shape, round(rng.uniform(0, 99), 2))


def _item(sensor: str, number: int, day: int, shape: shapely.Geometry, cloud: float) -> dict[str, Any]:
    when = dt.datetime(2023, 1, 1, 10, 50, 31) + dt.timedelta(days=day + number % 3, seconds=number)
    optical = sensor == "s2"
    name = f"{'S2A_MSIL2A' if optical else 'S1A_IW_GRDH'}_{when:%Y%m%dT%H%M%S}_R051_T{number:05}_{when:%Y%m%dT%H%M%S}"
    assets = MPC.s2_assets.values() if optical else MPC.s1_assets.values()
    extra = {"eo:cloud_cover": cloud} if optical else {"sat:orbit_state": "ascending"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": MPC.s2_collection if optical else MPC.s1_collection,
        "geometry": shapely.geometry.mapping(shape),
        "bbox": list(shape.bounds),
        "links": [],
        "properties": {"datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}", "proj:epsg": FIRST.epsg, **extra},
        "assets": {
            key: {
                "href": f"{HOST}/sentinel2-l2/31/{number}/2023/{name}.SAFE/GRANULE/IMG_DATA/R10m/{name}_{key}_10m.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "proj:shape": [10980, 10980],
                "proj:transform": [10.0, 0.0, 600000.0, 0.0, -10.0, 5800020.0],
            }
            for key in assets
        },
    }


def write_catalog(folder: Path, columns: int = COLUMNS, rows: int = ROWS) -> tuple[Path, Path]:
    """Write the area and the items of its scenes; return the paths of both."""
    aoi, catalog = folder / "aoi.geojson", folder / "items.ndjson.gz"
    aoi.write_text(json.dumps(area(columns, rows)))
    with gzip.open(catalog, "wt", compresslevel=1) as lines:
        for item in items(columns, rows):
            lines.write(json.dumps(item) + "\n")
    return aoi, catalog


def finish(folder: TileFolder, requests: Sequence[TileRequest], *, done: float = 0.5) -> None:
    """Finish all tiles of a folder of GeoTIFFs as a run would: a share with 8 x 8 embeddings, the rest empty.

    The rasters are hard links to a few, so they do not tell their own place.
    """
    identity, scenes = folder.identity, tuple(f"S2A_MSIL2A_20230101T105441_R051_T31UFT_{n:015}" for n in range(300))
    made = arrays(0, identity["dims"], many_tiles.REQUESTED)
    assets = formats.write(folder.path, encoded(made, requests[0].tile, "int8"))
    pixels = 64 - int((made["codes"][0, :8, :8] == -128).sum())
    for number, request in enumerate(requests):
        own = {
            "identity": identity,
            "requested": request.pixels,
            "scenes": scenes,
            "missing_scenes": {},
            "tile": request.tile,
        }
        if number < done * len(requests):
            linked = tuple(_linked(folder.path, asset, request.name) for asset in assets)
            write_record(folder, record(**own, assets=linked, pixels=pixels))
        else:
            write_record(folder, record(**own, assets=(), pixels=0, status="empty"))


def _linked(folder: Path, asset: Asset, name: str) -> Asset:
    assert asset.role
    linked = replace(asset, name=file_name(name, asset.role, "geotiff"))
    if linked.name != asset.name:
        (folder / linked.name).hardlink_to(folder / asset.name)
    return linked


def _lonlat(shape: shapely.Geometry) -> shapely.Geometry:
    to_degrees = Transformer.from_crs(FIRST.epsg, 4326, always_xy=True)
    return shapely.transform(shape, to_degrees.transform, interleaved=False)
