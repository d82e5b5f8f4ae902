"""Tiles + window + source -> Scenes, from a live STAC API, an ItemCollection or a static catalogue."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import shapely

from tessera_cli.catalog.api import Box, api_items
from tessera_cli.catalog.documents import is_api, open_document, static_items
from tessera_cli.catalog.scene import footprint_of, utc_time
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.catalog.sources import Source
from tessera_cli.grid import Tile
from tessera_cli.lonlat import split
from tessera_cli.window import Window

log = logging.getLogger(__name__)


def search(tiles: Sequence[Tile], windows: Sequence[Window], source: Source, *, catalog: str | None = None) -> Scenes:
    """All scenes of the source that touch the whole tiles (not just the AOI) within the windows.

    Whole tiles, because the scenes of a tile must not depend on which of its pixels are asked for. Cloud cover and
    polarisation are filtered here and not by the server, so that what is dropped can be counted.
    """
    boxes = search_boxes(tiles)
    document = open_document(catalog) if catalog else None
    if document is None or is_api(document.content):
        url = document.location if document else source.api
        items = api_items(url, source.collections, boxes, windows)
    else:
        items = matching(static_items(document), boxes, windows, source)
    found = Scenes.from_items(items, source)
    for reason, count in found.skipped.items():
        log.info("%d items skipped: %s", count, reason)
    return found


def search_boxes(tiles: Sequence[Tile]) -> list[Box]:
    """One box in degrees per group of neighbouring tiles, cut at the antimeridian."""
    groups = shapely.get_parts(shapely.unary_union([tile.outline.buffer(1e-6) for tile in tiles]))
    return [piece.bounds for group in groups for piece in split(group)]


def matching(
    items: Iterable[Mapping[str, Any]], boxes: Sequence[Box], windows: Sequence[Window], source: Source
) -> Iterator[Mapping[str, Any]]:
    """The items a STAC API would return: by collection, geometry and time."""
    area = shapely.union_all([shapely.box(*box) for box in boxes])
    shapely.prepare(area)
    for item in items:
        if item.get("collection") not in source.collections:
            continue
        properties = item["properties"]
        start = utc_time(properties.get("datetime") or properties.get("start_datetime"))
        end = utc_time(properties.get("datetime") or properties.get("end_datetime")) or start
        if start and end and not any(start < _midnight(w.end, 1) and end >= _midnight(w.start) for w in windows):
            continue
        footprint = footprint_of(item)
        if footprint is None or footprint.intersects(area):
            yield item


def _midnight(date: dt.date, days: int = 0) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=days), dt.time(), dt.timezone.utc)
