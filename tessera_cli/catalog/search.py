"""Tiles + window + source -> Scenes, from live catalogues, ItemCollections or static catalogues."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import shapely

from tessera_cli.catalog.api import api_items
from tessera_cli.catalog.boxes import joined, search_boxes
from tessera_cli.catalog.cmr import granule_items, granule_search
from tessera_cli.catalog.documents import open_document, static_items
from tessera_cli.catalog.endpoint import item_search
from tessera_cli.catalog.hrefs import REFUSED
from tessera_cli.catalog.scene import NOT_STAC, footprint_of, utc_time
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import UsageError, counted
from tessera_cli.extent.antimeridian import Box, rejoin, shifted
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.address import redact
from tessera_cli.net.reach import ASK_HOSTS, ASK_OUTSIDE

logger = logging.getLogger(__name__)


def search(
    tiles: Sequence[Tile],
    windows: Sequence[Window],
    source: Source,
    *,
    client: Client,
    catalog: str | None = None,
    radar_catalog: str | None = None,
) -> Scenes:
    """Return all scenes of the source that intersect the whole tiles (not just the AOI) within the windows.

    `catalog`: another STAC API, or a document, in place of the source's API. `radar_catalog`: another CMR granule
    search, or a document, for a source with granules; without it, their place is a document given as `catalog`.
    Whole tiles, because the scenes of a tile must not depend on which of its pixels are requested. Cloud cover and
    polarisation are filtered here and not by the server, so that what is dropped can be counted. Signatures that hrefs
    came with are left out of the scenes, and handed to the client.
    """
    if radar_catalog and not source.granules:
        raise UsageError(f"--radar-catalog is not for --source {source.name}: its radar lies in --catalog. Omit it.")
    boxes = search_boxes(tiles)
    allow_named(source, client, catalog, radar_catalog)
    document = open_document(catalog, client) if catalog else None
    endpoint = item_search(document, source, client) if document else (f"{source.api}/search", "POST")
    radar = radar_catalog or (source.granules if endpoint else None)
    collections = [source.s2_collection] if radar else source.collections
    if endpoint:
        url, method = endpoint
        items = api_items(url, source, collections, joined(boxes), windows, client=client, method=method)
    else:
        assert document is not None
        items = static_items(document, client)
    elsewhere = set(source.collections).difference(collections)
    items = matching(items, boxes, windows, without=elsewhere)
    if radar:
        items = chain(items, _radar_items(radar, source, boxes, windows, client))
    found = Scenes.from_items(items, source)
    refuse_unallowed(found)
    client.given.add(found.signatures)
    for reason, count in found.skipped.items():
        level = logging.WARNING if reason.startswith(NOT_STAC) else logging.INFO
        logger.log(level, "%s skipped: %s", counted(count, "item"), reason)
    return found


def allow_named(source: Source, client: Client, catalog: str | None, radar_catalog: str | None) -> None:
    """Let the client reach the catalogues that the user has named, or the source's own."""
    for named in (catalog or source.api, radar_catalog or source.granules):
        if named:
            client.reach.add(named)


def refuse_unallowed(scenes: Scenes) -> None:
    """Raise UsageError if files of a catalogue on this machine lie outside its folder, or if every scene of one on
    the web wants a host that it may not name: the user knows whether to.
    """
    refused = [
        [asset for asset in scene.item["assets"].values() if asset.get(REFUSED, "").endswith((ASK_OUTSIDE, ASK_HOSTS))]
        for scene in scenes.scenes
    ]
    if refused and all(refused):
        first = refused[0][0]
        if first[REFUSED].endswith(ASK_HOSTS):
            raise UsageError(
                f"The catalogue names files that are not requested, such as {redact(first['href'])}: "
                f"{first[REFUSED].removesuffix(f'; {ASK_HOSTS}')}. If you trust it, let it with --allow-private-hosts."
            )
    outside = [str(asset["href"]) for each in refused for asset in each if asset[REFUSED].endswith(ASK_OUTSIDE)]
    if outside:
        raise UsageError(
            f"The catalogue names {counted(len(outside), 'file')} outside its own folder, such as {outside[0]}. If you "
            "trust it, let it with --allow-outside; else move the files below its folder."
        )


def _radar_items(
    location: str, source: Source, boxes: Sequence[Box], windows: Sequence[Window], client: Client
) -> Iterator[Mapping[str, Any]]:
    url = granule_search(location)
    if url:
        return over(granule_items(url, source, joined(boxes), windows, client=client), boxes)
    listed = static_items(open_document(location, client), client)
    return matching(listed, boxes, windows, without=[source.s2_collection])


def matching(
    items: Iterable[Mapping[str, Any]], boxes: Sequence[Box], windows: Sequence[Window], *, without: Container[str] = ()
) -> Iterator[Mapping[str, Any]]:
    """Return the items that intersect a box (degrees) and a window, but for collections that are searched elsewhere.

    Items of foreign collections come along, to be counted with all that is of no use.
    """
    return over((item for item in items if item.get("collection") not in without and _within(item, windows)), boxes)


def over(items: Iterable[Mapping[str, Any]], boxes: Sequence[Box]) -> Iterator[Mapping[str, Any]]:
    """Yield the items whose footprint intersects a box (degrees), or is not known."""
    areas = shifted(shapely.union_all([shapely.box(*box) for box in boxes]))
    shapely.prepare(areas)
    for item in items:
        footprint = footprint_of(item)
        if footprint is None or any(area.intersects(rejoin(footprint)) for area in areas):
            yield item


def _within(item: Mapping[str, Any], windows: Sequence[Window]) -> bool:
    """Return whether an item is of one of the windows, or tells no time."""
    properties = item["properties"]
    start = utc_time(properties.get("datetime") or properties.get("start_datetime"))
    end = utc_time(properties.get("datetime") or properties.get("end_datetime")) or start
    return not (start and end) or any(start < _midnight(w.end, 1) and end >= _midnight(w.start) for w in windows)


def _midnight(date: dt.date, days: int = 0) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=days), dt.time(), dt.timezone.utc)
