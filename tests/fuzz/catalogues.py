"""Catalogues: documents, pages of a search, granules, tables, frozen lists; all that a run does before pixels."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import shapely
from pyarrow import parquet

from tessera_cli.catalog import AWS, MPC, Scenes, Source, search
from tessera_cli.catalog.reprocessing import latest_reprocessing
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import Tile, TileRequest
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.files import write_ndjson_gz
from tessera_cli.net import Client, Response
from tessera_cli.net.address import parse
from tessera_cli.net.responses import error_for, page_instead
from tessera_cli.planning import plan
from tessera_cli.planning.costs import Expected, reads
from tessera_cli.planning.overlaps import Overlaps
from tessera_cli.planning.scene_counts import dates_by_tile, fewest_text, gaps_text
from tessera_cli.planning.volumes import Volumes
from tests.fuzz.target import Target, write

YEAR = Window.from_name("2021")
TILE = Tile(32631, 112, 1098)


def item(number: int, source: Source, *, radar: bool = False) -> dict[str, Any]:
    keys = source.s1_assets.values() if radar else source.s2_assets.values()
    name = f"S1A_IW_{number}" if radar else f"S2A_MSIL2A_2021070{number}T105631_R094_T31UFS_2021070{number}T180000"
    properties: dict[str, Any] = {
        "datetime": f"2021-07-0{number}T10:56:31.024000Z",
        "created": "2021-07-02T00:00:00Z",
        "updated": "2021-07-02T00:00:00Z",
        "proj:epsg": 32631,
        "proj:bbox": [600000, 5690220, 709800, 5800020],
    }
    if radar:
        properties |= {"sat:orbit_state": "ascending", "sat:relative_orbit": 88}
    else:
        properties |= {
            "eo:cloud_cover": 12.5,
            "s2:processing_baseline": "05.09",
            "s2:mgrs_tile": "31UFS",
            "s2:datatake_id": f"GS2A_2021070{number}T105031_031463_N05.09",
            "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_ESRI_2021070{number}T180000_S2021070{number}T105031_N05.09",
            "s2:generation_time": "2021-07-02T00:00:00.000Z",
        }
    asset = {
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": [10980, 10980],
        "proj:transform": [10, 0, 600000, 0, -10, 5800020],
        "raster:bands": [{"data_type": "uint16", "nodata": 0, "spatial_resolution": 10}],
        "file:size": 123456,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": name,
        "collection": source.s1_collection if radar else source.s2_collection,
        "geometry": shapely.geometry.mapping(TILE.outline.buffer(0.1)),
        "bbox": list(TILE.outline.buffer(0.1).bounds),
        "properties": properties,
        "links": [
            {"rel": "self", "href": f"https://x.test/items/{name}"},
            {"rel": "collection", "href": "https://x.test/collections/sentinel"},
        ],
        "assets": {key: {"href": f"https://x.test/{name}/{key}.tif?sig=abc", **asset} for key in keys},
    }


def follow(scenes: Scenes, folder: Path) -> None:
    """Do with scenes what a run does, up to the first pixel."""
    path = folder / "frozen.ndjson.gz"
    write_ndjson_gz(path, scenes.to_ndjson())
    thawed = Scenes.from_ndjson(path, scenes.source)
    if (thawed.digest, len(thawed)) != (scenes.digest, len(scenes)):
        raise AssertionError("a frozen list is another one when it is read")
    json.dumps([*(scene.id for scene in scenes.scenes), *scenes.skipped], ensure_ascii=False).encode()
    scenes.merged(thawed).named([scene.id for scene in scenes.scenes])
    latest_reprocessing(scenes)
    plan._by_sensor(scenes, YEAR)
    overlaps = Overlaps.of(scenes, requests())
    Expected.of(overlaps, requests())
    Volumes.of(scenes).bytes(reads(overlaps, requests()))
    [scene.defect for scene in scenes.scenes]
    found = dates_by_tile(overlaps)
    [*fewest_text(found), *gaps_text(found)]


@functools.cache
def requests() -> Sequence[TileRequest]:
    west, south, _, _ = TILE.outline.bounds
    return tile_requests(Aoi.from_bbox(west + 0.02, south + 0.02, west + 0.021, south + 0.021), [YEAR])


class Answers(Client):
    """Answers from files, as a server sent them; nothing else exists."""

    def __init__(self, answers: Mapping[str, tuple[bytes, Mapping[str, str]]]) -> None:
        super().__init__()
        self._answers, self._asked = answers, 0

    def get(self, url: str) -> Response:
        found = parse(url)
        self._asked += 1
        if self._asked > 50:
            raise error_for(503, url)
        if found.host != "x.test" or found.path not in self._answers:
            raise error_for(404, url)
        body, headers = self._answers[found.path]
        return Response(body, headers, url=url)

    def json(self, url: str, *, posted: bytes | None = None, headers: Any = None, causes: Any = None) -> Response:
        for name, value in (headers or {}).items():
            if not isinstance(value, str) or any(letter in value for letter in "\r\n\0"):
                raise AssertionError(f"the header {name} cannot be sent")
            value.encode("latin-1")
        response = self.get(url)
        try:
            response.json  # noqa: B018 - kept for the caller
        except ValueError as error:
            raise page_instead(url) from error
        return response


def searched(folder: Path, source: Source, catalog: str, client: Any, radar: str | None = None) -> None:
    follow(search([TILE], [YEAR], source, client=client, catalog=catalog, radar_catalog=radar), folder)


def build_items(folder: Path) -> None:
    items = [item(1, MPC), item(2, MPC), item(3, MPC, radar=True)]
    write(folder / "items.json", {"type": "FeatureCollection", "numberMatched": 3, "features": items, "links": []})


def use_items(folder: Path, changed: Path) -> None:
    searched(folder, MPC, str(folder / "items.json"), Answers({}))


def build_tree(folder: Path) -> None:
    link = [{"rel": "self", "href": "https://x.test/catalog.json"}, {"rel": "root", "href": "./catalog.json"}]
    child = [{"rel": "child", "href": f"./{name}/collection.json"} for name in ("s2", "s1")]
    catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x", "links": link + child}
    write(folder / "catalog.json", catalog)
    for name, each in (("s2", item(1, MPC)), ("s1", item(3, MPC, radar=True))):
        links = [{"rel": "item", "href": "./item.json", "type": "application/geo+json"}]
        rows = {"type": "Collection", "id": each.pop("collection"), "stac_version": "1.0.0", "links": links}
        write(folder / name / "collection.json", rows)
        write(folder / name / "item.json", each)


def use_tree(folder: Path, changed: Path) -> None:
    searched(folder, MPC, str(folder / "catalog.json"), Answers({}))


def build_lines(folder: Path) -> None:
    items = [item(1, MPC), item(2, MPC), item(3, MPC, radar=True)]
    scenes = Scenes.from_items(items, MPC)
    write_ndjson_gz(folder / "scenes.ndjson.gz", scenes.to_ndjson())


def use_lines(folder: Path, changed: Path) -> None:
    follow(Scenes.from_ndjson(changed, MPC), folder)


def build_api(folder: Path) -> None:
    core = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
    links = [{"rel": "search", "href": "https://x.test/v1/search", "method": "POST"}]
    links += [{"rel": "root", "href": "https://x.test/v1"}]
    landing = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "conformsTo": core, "links": links}
    write(folder / "v1.json", landing)
    onwards = {"rel": "next", "href": "https://x.test/v1/more", "method": "POST", "merge": True}
    onwards |= {"body": {"token": "2"}, "headers": {"X-Page": "2"}}
    page = {"type": "FeatureCollection", "numberMatched": 3, "numberReturned": 2, "links": [onwards]}
    page |= {"context": {"matched": 3, "returned": 2}}
    write(folder / "v1" / "search.json", {**page, "features": [item(1, MPC), item(3, MPC, radar=True)]})
    onwards = {"rel": "next", "href": "https://x.test/v1/last?token=3", "method": "GET"}
    page = {"type": "FeatureCollection", "numberMatched": 3, "numberReturned": 1, "links": [onwards]}
    write(folder / "v1" / "more.json", {**page, "features": [item(2, MPC)]})
    page = {"type": "FeatureCollection", "numberMatched": 4, "links": []}
    write(folder / "v1" / "last.json", {**page, "features": [item(4, MPC)]})


def answers(folder: Path) -> Answers:
    paths = [path for path in folder.rglob("*.json") if path.is_file()]
    return Answers({f"/{path.relative_to(folder).with_suffix('')}": (path.read_bytes(), {}) for path in paths})


def use_api(folder: Path, changed: Path) -> None:
    searched(folder, MPC, "https://x.test/v1", answers(folder))


def use_get_api(folder: Path, changed: Path) -> None:
    searched(folder, MPC, "https://x.test/v1/search?collections=sentinel-2-l2a", answers(folder))


def build_cmr(folder: Path) -> None:
    write(folder / "s2.json", {"type": "FeatureCollection", "features": [item(1, AWS)], "links": []})
    ring = " ".join(f"{lat} {lon}" for lon, lat in TILE.outline.exterior.coords)
    south, west, north, east = 50.4, 4.0, 50.8, 4.4
    rel = "http://esipfed.org/ns/fedsearch/1.1"

    def granule(number: int) -> dict[str, Any]:
        title = f"OPERA_L2_RTC-S1_T037-077996-IW1_2021070{number}T055203Z_2023083{number}T120000Z_S1A_30_v1.0"
        hosts = ("https://cumulus.asf.earthdatacloud.nasa.gov/x", "s3://asf-cumulus-prod", "http://x.test")
        hrefs = [f"{host}/{title}_{pol}.tif" for host in hosts for pol in ("VV", "VH")]
        return {
            "id": f"G{number}-ASF",
            "title": title,
            "producer_granule_id": title,
            "time_start": f"2021-07-0{number}T05:52:03.000Z",
            "time_end": f"2021-07-0{number}T05:52:06.000Z",
            "updated": "2023-12-01T00:00:00.000Z",
            "polygons": [[ring]] if number == 1 else [],
            "boxes": [f"{south} {west} {north} {east}"],
            "links": [{"rel": f"{rel}/data#", "href": href, "hreflang": "en-US"} for href in hrefs],
        }

    feed = {"updated": "2024-01-01T00:00:00.000Z", "id": "x", "title": "x", "entry": [granule(1), granule(2)]}
    write(folder / "search" / "granules.json", {"feed": feed})


def use_cmr(folder: Path, changed: Path) -> None:
    body = (folder / "search" / "granules.json").read_bytes()
    client = Answers(
        {
            "/search/granules.json": (body, {"CMR-Hits": "2"}),
            "/s2.json": ((folder / "s2.json").read_bytes(), {}),
        }
    )
    radar = "https://x.test/search/granules.json"
    searched(folder, AWS, "https://x.test/s2.json", client, radar)


def build_table(folder: Path) -> None:
    rows = []
    for each in (item(1, MPC), item(3, MPC, radar=True)):
        geometry = shapely.to_wkb(shapely.geometry.shape(each["geometry"]))
        bbox = dict(zip(("xmin", "ymin", "xmax", "ymax"), each["bbox"], strict=True))
        rows.append({**each, **each.pop("properties"), "geometry": geometry, "bbox": bbox})
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "items.parquet", compression="zstd")


def use_table(folder: Path, changed: Path) -> None:
    searched(folder, MPC, str(folder / "items.parquet"), Answers({}))


TARGETS = (
    Target("items", build_items, use_items),
    Target("tree", build_tree, use_tree),
    Target("scenes", build_lines, use_lines),
    Target("api", build_api, use_api),
    Target("api-get", build_api, use_get_api),
    Target("cmr", build_cmr, use_cmr),
    Target("parquet", build_table, use_table),
)
