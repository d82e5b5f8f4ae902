"""Tiles + window + source -> Scenes, from a live STAC API, an ItemCollection or a static catalogue."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import shapely

from tessera_cli.catalog.local import is_api, open_document, static_items
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import CredentialsError, SourceRefusedError, SourceUnavailableError, UsageError
from tessera_cli.grid import Tile
from tessera_cli.window import Window

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


def search(tiles: Sequence[Tile], windows: Sequence[Window], source: Source, *, catalog: str | None = None) -> Scenes:
    """All scenes of the source that touch the whole tiles (not just the AOI) within the windows.

    Whole tiles, because the scenes of a tile must not depend on which of its pixels are asked for. Cloud cover and
    polarisation are filtered here and not by the server, so that what is dropped can be counted.
    """
    document = open_document(catalog or source.api)
    boxes = search_boxes(tiles)
    if is_api(document.content):
        items = _api_items(document.location, boxes, windows, source)
    else:
        items = matching(static_items(document), boxes, windows, source)
    found = Scenes.from_items(items, source)
    for reason, count in found.skipped.items():
        log.info("%d items skipped: %s", count, reason)
    return found


def search_boxes(tiles: Sequence[Tile]) -> list[Box]:
    """One box in degrees per group of neighbouring tiles, cut at the antimeridian."""
    groups = shapely.get_parts(shapely.unary_union([tile.outline.buffer(1e-6) for tile in tiles]))
    boxes = []
    for west, south, east, north in (group.bounds for group in groups):
        if east > 180:
            boxes += [(west, south, 180.0, north), (-180.0, south, east - 360, north)]
        else:
            boxes.append((west, south, east, north))
    return boxes


def beyond(scenes: Scenes, tiles: Sequence[Tile], windows: Sequence[Window]) -> Scenes:
    """Those scenes that a search for these tiles and windows would not return."""
    found = {
        item["id"] for item in matching((s.item for s in scenes.scenes), search_boxes(tiles), windows, scenes.source)
    }
    return scenes.without(found)


def matching(
    items: Iterable[Mapping[str, Any]], boxes: Sequence[Box], windows: Sequence[Window], source: Source
) -> Iterator[Mapping[str, Any]]:
    """The items a STAC API would return: by collection, geometry and time."""
    collections = (source.s2_collection, source.s1_collection)
    area = shapely.union_all([shapely.box(*box) for box in boxes])
    shapely.prepare(area)
    for item in items:
        if item.get("collection") not in collections:
            continue
        start, end = _interval(item)
        if not any(start < _midnight(w.end, 1) and end >= _midnight(w.start) for w in windows):
            continue
        if item.get("geometry") and not shapely.geometry.shape(item["geometry"]).intersects(area):
            continue
        yield item


def _interval(item: Mapping[str, Any]) -> tuple[dt.datetime, dt.datetime]:
    properties = item["properties"]
    start = properties.get("datetime") or properties.get("start_datetime")
    end = properties.get("datetime") or properties.get("end_datetime") or start
    try:
        return _parse(start), _parse(end)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"STAC item {item.get('id')} has no readable datetime: {error}.") from error


def _parse(text: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=dt.timezone.utc)


def _midnight(date: dt.date, days: int = 0) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=days), dt.time(), dt.timezone.utc)


def _api_items(
    url: str, boxes: Sequence[Box], windows: Sequence[Window], source: Source
) -> Iterator[Mapping[str, Any]]:
    import pystac_client
    import requests
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # pystac-client alone does not retry 5xx answers
    retry = Retry(total=5, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None)
    collections = [source.s2_collection, source.s1_collection]
    try:
        client = pystac_client.Client.open(url, stac_io=StacApiIO(max_retries=retry, timeout=60))
        for window in windows:
            for box in boxes:
                span = f"{window.start}T00:00:00Z/{window.end}T23:59:59Z"
                yield from client.search(collections=collections, bbox=box, datetime=span).items_as_dicts()
    except APIError as error:
        if error.status_code in (401, 403):
            raise CredentialsError(f"{url} refused the search: {error}. Check the credentials.") from error
        if error.status_code is not None and 400 <= error.status_code < 500 and error.status_code != 429:
            raise SourceRefusedError(f"{url} refused the search: {error}. Check --catalog.") from error
        raise SourceUnavailableError(f"{url} did not answer the search: {error}. Try again later.") from error
    except requests.RequestException as error:
        raise SourceUnavailableError(
            f"{url} cannot be reached: {error}. Check the network, try again later, or give --catalog FILE."
        ) from error
