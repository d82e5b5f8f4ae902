"""Search a live STAC API."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from tessera_cli.catalog.documents import Document
from tessera_cli.catalog.hrefs import absolute, links
from tessera_cli.catalog.items import checked
from tessera_cli.catalog.paging import METHODS, IncompleteError, given_query, paged_items
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import CredentialsError, SourceBusyError, TesseraError
from tessera_cli.extent.antimeridian import Box, both_sides
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.address import redact, resolve, without_query
from tessera_cli.net.client import Causes
from tessera_cli.net.retries import Cause

SHORTEST = 10
"""Items per page below which the length of a page is no longer taken for the reason why it cannot be sent."""

_PERHAPS_TOO_LONG = {413: Cause.TOO_LONG, 502: Cause.TOO_LONG, 504: Cause.TOO_LONG}
_OUT_OF_RANGE = (400, 422, 500)
"""What servers answer that take no longitudes beyond 180 degrees."""

logger = logging.getLogger(__name__)


def search_link(landing: Document, client: Client) -> tuple[str, str]:
    """Return URL and method of item search, by the landing page of an API; POST where there is a choice."""
    usable = [link for link in links(landing.content, "search") if link.get("method") in METHODS]
    for link in sorted(usable, key=lambda link: link.get("method") != "POST"):
        found = client.reach.named(landing.location, resolve(landing.location, link["href"]))
        return found, str(link.get("method") or "GET")
    return f"{without_query(landing.location).rstrip('/')}/search", "POST"


def api_items(
    url: str,
    source: Source,
    collections: Sequence[str],
    boxes: Sequence[Box],
    windows: Sequence[Window],
    *,
    client: Client,
    method: str = "POST",
) -> Iterator[Mapping[str, Any]]:
    """Yield, once each, the items (JSON) of collections that intersect a box (degrees) within a window.

    Near 180 degrees more is asked for, so that footprints are found however they are written: some items lie
    elsewhere. What the query of `url` asks for already stays as it is. Items stay the dictionaries that the API sent,
    but for hrefs, which become absolute: parsing would respell their datetimes, and the order of overlaps goes by the
    spelling. The server's default order is left alone.

    A page may be too long for the server to send: Earth Search answers 502 above 6 MB, each time anew, and footprints
    of up to 98 KB make that depend on the place. Such a page is requested once more, since a 502 may also pass, and
    then the search starts over with pages of half the length, down to SHORTEST, where the usual retry policy holds.
    A search that ends before all is there starts over once: items that are added meanwhile move the pages.
    """
    page, seen = source.page, set()
    for query in _queries(url, method, collections, boxes, windows):
        again = False
        while True:
            try:
                for item in map(checked, _items(url, method, {**query, "limit": page}, source, client)):
                    key = (item["collection"], item["id"])
                    if key not in seen:
                        seen.add(key)
                        yield absolute(item, url, client.reach)
                break
            except IncompleteError as error:
                if again:
                    raise
                again = True
                logger.info("%s Searching once more.", error)
            except TesseraError as error:
                if error.status in _OUT_OF_RANGE and _beyond_180(query):
                    logger.info("%s takes no longitudes beyond 180 degrees", redact(url))
                    break
                if error.status not in _PERHAPS_TOO_LONG or page <= SHORTEST:
                    raise
                page = max(page // 2, SHORTEST)
                logger.info("HTTP %s from %s: going on with pages of %d items", error.status, redact(url), page)


def _queries(
    url: str, method: str, collections: Sequence[str], boxes: Sequence[Box], windows: Sequence[Window]
) -> list[dict[str, Any]]:
    """Return the distinct searches to make; what the address itself says in its query wins."""
    given = given_query(url) if method == "GET" else {}
    queries: list[dict[str, Any]] = []
    for window, box in product(windows, both_sides(boxes)):
        query: dict[str, Any] = {
            "collections": list(collections),
            "bbox": box,
            "datetime": f"{window.start}T00:00:00Z/{window.end}T23:59:59.999999Z",
        }
        if without_query(url).rstrip("/").endswith("/items"):  # of one collection
            del query["collections"]
        if "intersects" in given:
            del query["bbox"]
        if (query := {**query, **given}) not in queries:
            queries.append(query)
    return queries


def _beyond_180(query: Mapping[str, Any]) -> bool:
    box = query.get("bbox")
    return isinstance(box, tuple) and (box[0] < -180 or box[2] > 180)


def _items(
    url: str, method: str, query: Mapping[str, Any], source: Source, client: Client
) -> Iterator[Mapping[str, Any]]:
    """Yield the items of one search, page by page."""
    causes: Causes = {403: Cause.BUSY} if source.forbids_when_busy else {}
    if query["limit"] > SHORTEST:
        causes = {**causes, **_PERHAPS_TOO_LONG}
    try:
        yield from paged_items(url, method, query, client, causes=causes)
    except CredentialsError as error:
        if error.status in causes:
            raise SourceBusyError(
                f"{redact(url)} still refuses (HTTP {error.status}), as it does after too many requests. "
                "Try again later."
            ) from error
        raise
