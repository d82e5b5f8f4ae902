"""Search a live STAC API."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from tessera_cli.catalog.documents import Document
from tessera_cli.catalog.hrefs import absolute
from tessera_cli.catalog.paging import Pages
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import CredentialsError, SourceBusyError, SourceUnavailableError, TesseraError
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.address import resolve, without_query
from tessera_cli.net.client import Causes
from tessera_cli.net.responses import redact
from tessera_cli.net.retries import Cause

SHORTEST = 10
"""Items per page below which the length of a page is no longer taken for the reason why it cannot be sent."""

_PERHAPS_TOO_LONG = {413: Cause.TOO_LONG, 502: Cause.TOO_LONG, 504: Cause.TOO_LONG}

Box = tuple[float, float, float, float]

logger = logging.getLogger(__name__)


def search_link(landing: Document) -> tuple[str, str]:
    """Return URL and method of item search, by the landing page of an API; POST where there is a choice."""
    links = [link for link in landing.content.get("links") or [] if link.get("rel") == "search" and link.get("href")]
    for link in sorted(links, key=lambda link: link.get("method") != "POST"):
        return resolve(landing.location, str(link["href"])), str(link.get("method") or "GET")
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

    Items stay the dictionaries that the API sent, but for hrefs, which become absolute: parsing would respell their
    datetimes, and the order of overlaps goes by the spelling. The server's default order is left alone.

    A page may be too long for the server to send: Earth Search answers 502 above 6 MB, each time anew, and footprints
    of up to 98 KB make that depend on the place. Such a page is requested once more, since a 502 may also pass, and
    then the search starts over with pages of half the length, down to SHORTEST, where the usual retry policy holds.
    """
    page, seen = source.page, set()
    for window, box in product(windows, boxes):
        query = {
            "collections": list(collections),
            "bbox": box,
            "datetime": f"{window.start}T00:00:00Z/{window.end}T23:59:59.999999Z",
        }
        while True:
            try:
                for item in _items(url, method, {**query, "limit": page}, source, client):
                    key = (item.get("collection"), item["id"])
                    if key not in seen:
                        seen.add(key)
                        yield absolute(item, url)
                break
            except TesseraError as error:
                if error.status not in _PERHAPS_TOO_LONG or page <= SHORTEST:
                    raise
                page = max(page // 2, SHORTEST)
                logger.info("HTTP %s from %s: going on with pages of %d items", error.status, redact(url), page)


def _items(
    url: str, method: str, query: Mapping[str, Any], source: Source, client: Client
) -> Iterator[Mapping[str, Any]]:
    """Yield the items of one search, page by page."""
    from pystac_client import ItemSearch
    from pystac_client.stac_api_io import StacApiIO

    causes: Causes = {403: Cause.BUSY} if source.forbids_when_busy else {}
    if query["limit"] > SHORTEST:
        causes = {**causes, **_PERHAPS_TOO_LONG}

    class Io(StacApiIO):
        """Transport of pystac-client that uses our `Client`, with its retries and counts."""

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            return _page(href, method or "GET", headers or {}, parameters or {}, causes, client)

    pages = Pages(url)
    try:
        for page in ItemSearch(url, method=method, stac_io=Io(max_retries=None), **query).pages_as_dicts():
            onwards = next((link for link in page.get("links") or [] if link.get("rel") == "next"), None)
            pages.check(
                (f"{item.get('collection')}/{item['id']}" for item in page["features"]),
                None if onwards is None else json.dumps(onwards, sort_keys=True),
            )
            yield from page["features"]
    except CredentialsError as error:
        if error.status in causes:
            raise SourceBusyError(
                f"{redact(url)} still refuses (HTTP {error.status}), as it does after too many requests. "
                "Try again later."
            ) from error
        raise


def _page(
    href: str,
    method: str,
    headers: Mapping[str, str],
    parameters: Mapping[str, Any],
    causes: Causes,
    client: Client,
) -> str:
    """Return the text of one page, checked to hold items: pystac-client ends the search at anything else."""
    if method.upper() == "POST":
        posted = json.dumps(parameters).encode()
        response = client.json(
            href, posted=posted, headers={**headers, "Content-Type": "application/json"}, causes=causes
        )
    else:
        from requests import Request

        url = Request("GET", href, params=dict(parameters)).prepare().url or href
        response = client.json(url, headers=headers, causes=causes)
    items = response.json.get("features") if isinstance(response.json, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) and "id" in item for item in items):
        raise SourceUnavailableError(
            f"{redact(href)} answers a search with something else than items. Try again later."
        )
    if not items and any(link.get("rel") == "next" for link in response.json.get("links") or []):
        raise SourceUnavailableError(f"{redact(href)} sends an empty page before the last one. Try again later.")
    return response.body.decode("utf-8")
