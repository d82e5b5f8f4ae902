"""Small real GeoTIFFs and STAC items for tests, keyed as Planetary Computer keys them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer

from tessera_cli.catalog import Scene, Scenes
from tessera_cli.catalog.sources import AWS, MPC, Source
from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels
from tessera_cli.extent.grid import TILE_METRES, Tile, TileRequest, pack_mask
from tessera_cli.extent.window import Window
from tessera_cli.imagery import OFFICIAL, Preprocessing, Reader, read_dpixels
from tessera_cli.net import Client

FINE = ("B02", "B03", "B04", "B08")
ORIGIN = (600000.0, 5800020.0)
"""West and north of the conformance fixture, EPSG:32630."""
EPSG = 32630
CONSTANTS = {
    "B02": 2000,
    "B03": 3000,
    "B04": 4000,
    "B05": 5000,
    "B06": 6000,
    "B07": 7000,
    "B08": 8000,
    "B8A": 8500,
    "B11": 9000,
    "B12": 9500,
}


def lies_on(scene: Scene, tile: Tile) -> bool:
    """Whether a run on the tile reads the scene."""
    return len(Scenes(MPC, (scene,)).on(tile, Window.of_year(scene.date.year))) == 1


def write_tif(
    path: Path, values: np.ndarray, *, origin: tuple[float, float], step: float, epsg: int, nodata: float | None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=values.shape[1],
        height=values.shape[0],
        count=1,
        dtype=values.dtype,
        crs=f"EPSG:{epsg}",
        transform=Affine(step, 0, origin[0], 0, -step, origin[1]),
        nodata=nodata,
    ) as dst:
        dst.write(values, 1)
    return path


def footprint(origin: tuple[float, float], size: float, epsg: int) -> dict[str, Any]:
    west, north = origin
    square = shapely.box(west, north - size, west + size, north)
    lonlat = Transformer.from_crs(epsg, 4326, always_xy=True).transform
    return shapely.geometry.mapping(shapely.transform(shapely.segmentize(square, size / 4), lonlat, interleaved=False))


def make_item(
    item_id: str,
    collection: str,
    when: str,
    assets: Mapping[str, tuple[Path, float]],
    properties: Mapping[str, Any],
    *,
    origin: tuple[float, float],
    size: float,
    epsg: int,
) -> dict[str, Any]:
    geometry = footprint(origin, size, epsg)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": item_id,
        "collection": collection,
        "geometry": geometry,
        "bbox": list(shapely.geometry.shape(geometry).bounds),
        "links": [],
        "properties": {"datetime": when, "proj:epsg": epsg, **properties},
        "assets": {
            key: {
                "href": str(path),
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "proj:shape": [round(size / step)] * 2,
                "proj:transform": [step, 0, origin[0], 0, -step, origin[1]],
            }
            for key, (path, step) in assets.items()
        },
    }


def s2_item(
    folder: Path,
    item_id: str,
    when: str,
    bands: Mapping[str, Any] | None = None,
    scl: Any = 4,
    *,
    size: int = 4,
    nodata: int | None = None,
    origin: tuple[float, float] = ORIGIN,
    epsg: int = EPSG,
    cloud_cover: float | None = 10.0,
) -> dict[str, Any]:
    """`size` in 10 m pixels; a band is a constant or an array at its native resolution."""
    assets = {}
    for key, default in {**CONSTANTS, "SCL": scl}.items():
        step = 10 if key in FINE else 20
        native = size * 10 // step
        given = default if key == "SCL" else (bands or {}).get(key, default)
        values = np.broadcast_to(np.asarray(given), (native, native)).astype("uint8" if key == "SCL" else "uint16")
        path = folder / item_id / f"{key}.tif"
        assets[key] = (write_tif(path, values, origin=origin, step=step, epsg=epsg, nodata=nodata), float(step))
    properties = {} if cloud_cover is None else {"eo:cloud_cover": cloud_cover}
    return make_item(
        item_id,
        "sentinel-2-l2a",
        when,
        assets,
        {**properties, "s2:processing_baseline": "05.09"},
        origin=origin,
        size=size * 10,
        epsg=epsg,
    )


def s1_item(
    folder: Path,
    item_id: str,
    when: str,
    pols: Mapping[str, Any],
    orbit: str = "ascending",
    *,
    size: int = 4,
    origin: tuple[float, float] = ORIGIN,
    epsg: int = EPSG,
) -> dict[str, Any]:
    """`pols`: asset key -> linear power, constant or (size, size) array."""
    assets = {}
    for key, value in pols.items():
        values = np.broadcast_to(np.asarray(value, np.float32), (size, size)).copy()
        path = folder / item_id / f"{key}.tif"
        assets[key] = (write_tif(path, values, origin=origin, step=10, epsg=epsg, nodata=-32768), 10.0)
    return make_item(
        item_id, "sentinel-1-rtc", when, assets, {"sat:orbit_state": orbit}, origin=origin, size=size * 10, epsg=epsg
    )


def on_aws(item: Mapping[str, Any]) -> dict[str, Any]:
    """A Sentinel-2 item with the asset keys of Earth Search."""
    return {**item, "assets": {AWS.s2_assets[key]: asset for key, asset in item["assets"].items()}}


def opera_item(
    folder: Path,
    item_id: str,
    when: str,
    pols: Mapping[str, Any],
    orbit: str | None = "ASCENDING",
    *,
    size: int = 4,
    origin: tuple[float, float] = ORIGIN,
    nodata: float | None = np.nan,
) -> dict[str, Any]:
    """A burst of OPERA RTC-S1: 30 m, `size` pixels, its orbit direction a tag of its files."""
    assets = {}
    for key, value in pols.items():
        values = np.broadcast_to(np.asarray(value, np.float32), (size, size)).copy()
        path = write_tif(folder / item_id / f"{key}.tif", values, origin=origin, step=30, epsg=EPSG, nodata=nodata)
        if orbit is not None:
            with rasterio.open(path, "r+") as dst:
                dst.update_tags(ORBIT_PASS_DIRECTION=orbit)
        assets[key] = (path, 30.0)
    return make_item(item_id, AWS.s1_collection, when, assets, {}, origin=origin, size=size * 30, epsg=EPSG)


def tile_at(origin: tuple[float, float] = ORIGIN, epsg: int = EPSG) -> tuple[Tile, int, int]:
    """The tile that holds the pixel at `origin`, and that pixel's row and column."""
    west, north = origin
    tile = Tile(epsg, int(west // TILE_METRES), int((north - 1) // TILE_METRES))
    return tile, round((tile.bounds[3] - north) // 10), round((west - tile.bounds[0]) // 10)


def whole(tile: Tile, window: Window) -> TileRequest:
    return TileRequest(tile, window, pack_mask(np.ones(tile.shape, bool)))


def read(
    items: Sequence[Mapping[str, Any]],
    *,
    year: int | None = None,
    tile: Tile | None = None,
    pixels: np.ndarray | None = None,
    allow_missing: int = 0,
    source: Source = MPC,
    preprocessing: Preprocessing = OFFICIAL,
) -> DPixels:
    """The d-pixels that the package makes of the items, through the same calls as `embed`; all pixels by default."""
    scenes = Scenes.from_items(items, source)
    tile = tile or tile_at()[0]
    year = year or scenes.scenes[0].date.year
    window = Window(dt.date(year, 1, 1), dt.date(year, 12, 31))
    return read_dpixels(
        scenes.on(tile, window),
        whole(tile, window) if pixels is None else TileRequest(tile, window, pack_mask(pixels)),
        Reader(Client()),
        preprocessing=preprocessing,
        allow_missing=allow_missing,
    )


def block(dpixels: DPixels, band: str, size: int = 4, frame: int = 0) -> np.ndarray:
    """The fixture's pixels of one band of one frame."""
    _, row, column = tile_at()
    return dpixels.s2[frame, row : row + size, column : column + size, S2_BANDS.index(band)]


def mask_block(dpixels: DPixels, size: int = 4, frame: int = 0) -> np.ndarray:
    _, row, column = tile_at()
    return dpixels.s2_mask[frame, row : row + size, column : column + size]
