"""STAC items as Planetary Computer ships them, from those of a small catalogue, and enough of them to fill pages."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import shapely

from tessera_cli.catalog import MPC
from tests.helpers.builders import EPSG, ORIGIN, footprint

Item = dict[str, Any]
API = "https://planetarycomputer.microsoft.com/api"
PROJECTIONS: tuple[Mapping[str, Any], ...] = ({"proj:epsg": EPSG}, {"proj:code": f"EPSG:{EPSG}"}, {"proj:epsg": None})
"""How items say it, or do not."""


def in_year(items: Sequence[Item], year: int) -> list[Item]:
    """The same scenes of 2021 in another year; files keep their names."""

    def moved(text: str) -> str:
        return text.replace("2021-", f"{year}-")

    return [
        {
            **copy.deepcopy(item),
            "id": moved(item["id"]),
            "properties": {**item["properties"], "datetime": moved(item["properties"]["datetime"])},
        }
        for item in items
    ]


def shipped(items: Sequence[Item], base: str) -> list[Item]:
    """As the API of Planetary Computer describes them, with files below `base`."""
    return [_shipped(copy.deepcopy(item), base, PROJECTIONS[n % len(PROJECTIONS)]) for n, item in enumerate(items)]


def _shipped(item: Item, base: str, projection: Mapping[str, Any]) -> Item:
    properties = {key: value for key, value in item["properties"].items() if key != "proj:epsg"}
    optical = item["collection"] == "sentinel-2-l2a"
    more = {"platform": "Sentinel-2A", "s2:mgrs_tile": "30UWC"} if optical else {"platform": "SENTINEL-1A"}
    item["properties"] = {**properties, **projection, **more, "created": "2022-05-06T17:02:03Z", "grid:code": None}
    for asset in item["assets"].values():
        asset["href"] = f"{base}/{asset['href'].removeprefix('./cogs/')}"
    folder = next(iter(item["assets"].values()))["href"].rpartition("/")[0]
    here = f"{API}/data/v1/item/tilejson.json?collection={item['collection']}&item={item['id']}&format=png"
    item["assets"]["tilejson"] = {"href": here, "type": "application/json", "roles": ["tiles"]}
    if optical:
        for key in ("AOT", "WVP", "visual"):
            item["assets"][key] = {"href": f"{folder}/{key}.tif", "type": "image/tiff", "roles": ["data"]}
        item["assets"]["product-metadata"] = {"href": f"{folder}/MTD.xml", "type": "application/xml"}
    item["links"] = [
        {"rel": "license", "href": "https://sentinel.esa.int/legal"},
        {"rel": "preview", "href": f"{API}/data/v1/item/map?item={item['id']}", "type": "text/html"},
    ]
    item["stac_extensions"].append("https://stac-extensions.github.io/sat/v1.0.0/schema.json")
    return item


def without_datetime(items: Sequence[Item]) -> list[Item]:
    """`datetime` null with start and end."""
    changed = copy.deepcopy(list(items))
    for item in changed:
        start = item["properties"]["datetime"]
        end = start.replace(":31.", ":51.").replace(":00Z", ":25Z")
        item["properties"] |= {"datetime": None, "start_datetime": start, "end_datetime": end}
    return changed


def crowd(origin: tuple[float, float] = ORIGIN) -> list[Item]:
    """640 scenes of 2018 around `origin`, most with the same few times in two spellings; nothing lies behind them."""
    geometry = footprint(origin, 400.0, EPSG)
    items = []
    for number in range(640):
        optical = number % 8 != 0
        minute = f"2018-0{1 + number % 3}-11T10:5{number % 2}:31.024"
        orbit = "descending" if number % 3 == 0 else "ascending"
        more: Item = {"eo:cloud_cover": 5.0} if optical else {"sat:orbit_state": orbit}
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"S{2 if optical else 1}_{number * 271 % 640:03d}",
                "collection": "sentinel-2-l2a" if optical else "sentinel-1-rtc",
                "geometry": geometry,
                "bbox": list(shapely.geometry.shape(geometry).bounds),
                "links": [],
                "properties": {"datetime": minute + ("Z" if number % 5 else "000Z"), **more},
                "assets": {key: {"href": f"https://nowhere.invalid/{key}.tif"} for key in _keys(optical)},
            }
        )
    return items


def _keys(optical: bool) -> tuple[str, ...]:
    return tuple(MPC.s2_assets.values()) if optical else tuple(MPC.s1_assets.values())
