"""Search of OPERA RTC-S1 in NASA's Common Metadata Repository. One granule is one Sentinel-1 burst."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any
from urllib.parse import urlencode

import numpy as np
import shapely

from tessera_cli.catalog.items import checked
from tessera_cli.catalog.paging import Pages
from tessera_cli.catalog.scene import NO_SHAPE, POLARISATIONS
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import SourceUnavailableError
from tessera_cli.extent.antimeridian import Box, split, unwrap_edges
from tessera_cli.extent.window import Window
from tessera_cli.net import Client, Response
from tessera_cli.net.address import AddressError, is_url, parse, redact, resolve, without_query
from tessera_cli.net.reach import Reach

CONCEPT = "C2777436413-ASF"
"""CMR's name for the collection OPERA_L2_RTC-S1_V1."""
PAGE = 2000
"""Granules per page: the most that CMR sends."""
STOREHOUSE = "cumulus.asf.earthdatacloud.nasa.gov"
"""Where a granule has several links, this host's is taken: it takes tokens."""
MARGIN = 0.01
"""Degrees around a footprint: edges of CMR's polygons are arcs of great circles, not straight lines on a map."""
DOCUMENTS = (".json", ".ndjson", ".jsonl", ".geojson", ".geojsonl", ".gz", ".parquet")
_NEXT, _HITS = "CMR-Search-After", "CMR-Hits"


def granule_search(location: str) -> str | None:
    """Return the URL of the granule search that --radar-catalog names; None if it is a document of items."""
    path = without_query(location)
    if not is_url(location) or path.endswith("/granules.json"):
        return location if is_url(location) else None
    if path.endswith(DOCUMENTS):
        return None
    return f"{path.rstrip('/')}/granules.json{location[len(path) :]}"


def granule_items(
    url: str, source: Source, boxes: Sequence[Box], windows: Sequence[Window], *, client: Client
) -> Iterator[Mapping[str, Any]]:
    """Yield, once each, a STAC item per granule that intersects a box (degrees) within a window.

    CMR lists what overlaps a window: granules that began on the day before come along, with the date they began on.
    """
    seen: set[str] = set()
    for window, box in product(windows, boxes):
        query = {
            "collection_concept_id": CONCEPT,
            "bounding_box": ",".join(f"{degrees:.7f}" for degrees in box),
            "temporal": f"{window.start}T00:00:00Z,{window.end}T23:59:59.999Z",
            "page_size": PAGE,
        }
        for granule in _granules(f"{url}{'&' if '?' in url else '?'}{urlencode(query)}", client):
            item = checked(item_of(granule, source, client.reach, url))
            if item["id"] not in seen:
                seen.add(item["id"])
                yield item


def item_of(granule: Mapping[str, Any], source: Source, reach: Reach, location: str | None = None) -> dict[str, Any]:
    """Return the granule as a STAC item. Its assets are the files it links to, never guessed from its name.

    `reach`: what the search may name. `location`: where it was listed, if not in the search of the source.
    """
    geometry = footprint_of(granule)
    listed = location or str(source.granules)
    links = {key: _link(granule, f"_{key}.tif", listed, reach) for key in POLARISATIONS}
    start, end = granule.get("time_start"), granule.get("time_end")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": str(granule.get("title") or granule.get("producer_granule_id") or granule["id"]),
        "collection": source.s1_collection,
        "geometry": None if geometry is None else json.loads(shapely.to_geojson(geometry)),
        "bbox": None if geometry is None else list(geometry.bounds),
        "properties": {
            "datetime": start,
            "start_datetime": start,
            "end_datetime": end,
            "updated": granule.get("updated"),
        },
        "links": [],
        "assets": {key: {"href": href} for key, href in links.items() if href},
    }


def footprint_of(granule: Mapping[str, Any]) -> shapely.Geometry | None:
    """Return the footprint in degrees, cut at the antimeridian; None where it is unknown, as around a pole."""
    try:
        shapes = [
            unwrap_edges(shapely.Polygon(_ring(rings[0]), [_ring(hole) for hole in rings[1:]]))
            for rings in granule.get("polygons") or []
        ]
        for box in granule.get("boxes") or [] if not shapes else []:
            south, west, north, east = map(float, box.split())
            shapes.append(shapely.box(west, south, east if east >= west else east + 360, north))
        pieces = [piece for shape in shapes for piece in split(shapely.make_valid(shape).buffer(MARGIN))]
        whole = shapely.union_all(pieces)
    except NO_SHAPE:
        return None
    return whole if np.isfinite(whole.bounds).all() else None  # else it is empty


def _ring(text: str) -> list[tuple[float, float]]:
    """Return `lat lon lat lon ...` as points (longitude, latitude) in degrees."""
    numbers = [float(number) for number in text.split()]
    return list(zip(numbers[1::2], numbers[0::2], strict=True))


def _link(granule: Mapping[str, Any], ending: str, location: str, reach: Reach) -> str | None:
    """Return the address of the file with this ending; of several, the one that accepts tokens."""
    fit: list[tuple[bool, bool, int, str]] = []
    listed = granule.get("links")
    for link in listed if isinstance(listed, list) else []:
        if not isinstance(link, dict) or not isinstance(link.get("href"), str):
            continue
        with suppress(AddressError):  # s3:// and what else a granule may name
            href = reach.named(location, resolve(location, link["href"]))
            url = parse(href)
            if url.path.endswith(ending) and not link.get("inherited"):
                fit.append((url.host != STOREHOUSE, url.scheme != "https", len(fit), href))
    return min(fit)[-1] if fit else None


def _granules(url: str, client: Client) -> Iterator[Mapping[str, Any]]:
    """Yield all granules of a query. CMR names the next page in a header, which the last page lacks."""
    pages, onwards = Pages(url), None
    while True:
        response = client.json(url, headers={_NEXT: onwards} if onwards else {})
        entries = _entries(response, url)
        hits = _count(response.headers.get(_HITS, ""))
        onwards = response.headers.get(_NEXT) if entries else None
        pages.check((str(entry["id"]) for entry in entries), onwards, hits)
        yield from entries
        if onwards is None:
            break
    if hits is None and len(entries) >= PAGE:
        raise SourceUnavailableError(f"{redact(url)} broke off its list after a full page. Try again later.")


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _entries(response: Response, url: str) -> list[Mapping[str, Any]]:
    try:
        entries = response.json["feed"]["entry"]
        if isinstance(entries, list) and all(isinstance(entry, dict) and "id" in entry for entry in entries):
            return entries
    except (TypeError, KeyError):
        pass
    raise SourceUnavailableError(
        f"{redact(url)} answers a granule search with something else than granules. "
        "Check --radar-catalog, or try again later."
    )
