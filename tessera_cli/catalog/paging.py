"""The pages of a search, followed to the end: no pages without end, and no end before all is there."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

from tessera_cli.catalog.hrefs import links
from tessera_cli.errors import SourceRefusedError, SourceUnavailableError
from tessera_cli.json_text import parse_json
from tessera_cli.net import Client
from tessera_cli.net.address import query_of, redact, resolve, with_query
from tessera_cli.net.client import Causes

ESTIMATED = 100_000
"""Matches from which on servers (pgstac) may tell an estimate of their number."""

METHODS = (None, "GET", "POST")
"""Of links that are followed; without one it is GET."""
_HEADER, _VALUE = re.compile(r"[A-Za-z0-9-]+"), re.compile(r"[\x20-\x7e]*")
_OWN_HEADERS = ("host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect", "range")
"""What the client alone says of a request."""

MAX_PAGES, TOLD = 10_000, 100
"""Pages of a search, a million items at least; after how many it is told how far it is."""

logger = logging.getLogger(__name__)


class IncompleteError(SourceUnavailableError):
    """A list ended before all that the server says matches."""


class Pages:
    """Check of the pages of one search, which ends it if the server leads in circles or stops too early."""

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._ids: set[str] = set()
        self._ways: set[str] = set()
        self._pages = 0

    def check(self, ids: Iterable[str], onwards: str | None, matched: int | None = None) -> None:
        """Record the ids of a page. `onwards` identifies the next page; None if this is the last.

        `matched` is the number of all matches by this page, None if it does not tell. It may change from page to page
        while items are added, so the last page's counts. Raises SourceRefusedError if the next page was requested
        before, nothing on this one is new or there are MAX_PAGES, and IncompleteError if fewer items than match have
        come with the last.
        """
        new = set(ids) - self._ids
        if onwards is not None and (not new or onwards in self._ways):
            raise SourceRefusedError(
                f"{self._url} leads in circles: it keeps sending items that it has sent before. "
                "Search with another --catalog, and tell the provider."
            )
        self._ids |= new
        self._pages += 1
        if self._pages == MAX_PAGES:
            raise SourceRefusedError(
                f"{self._url} sends page after page, {MAX_PAGES:,} so far. Ask for a smaller area or a shorter window."
            )
        if self._pages % TOLD == 0:
            logger.info("%s: %d items so far, on %d pages", self._url, len(self._ids), self._pages)
        if onwards is not None:
            self._ways.add(onwards)
        elif matched is not None and matched > len(self._ids):
            self._end_early(matched)

    def _end_early(self, matched: int) -> None:
        told = f"{self._url} sends {len(self._ids)} of {matched} items that match"
        if matched >= ESTIMATED:
            logger.warning("%s; so large a number may be an estimate", told)
            return
        raise IncompleteError(
            f"{told}, and no more. Ask for less at a time (a smaller area, a shorter window), "
            "search with another --catalog, or try again later."
        )


def paged_items(
    url: str, method: str, query: Mapping[str, Any], client: Client, *, causes: Causes | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yield the items of a search page by page: of the query posted to `url`, or of `url` with what it lacks of it.

    Raises SourceUnavailableError for answers that are no items; the errors of `Pages` and of `Client` as they come.
    """
    from pystac_client.stac_api_io import StacApiIO

    guard = Pages(url)

    class Io(StacApiIO):
        """Transport of pystac-client that uses our `Client`, with its retries and counts, and checks every page."""

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            found = client.reach.named(url, resolve(url, href))
            return _page(found, method or "GET", headers or {}, parameters or {}, causes, client, guard)

    for page in Io(max_retries=None).get_pages(url, method, dict(query)):
        yield from page["features"]


def matches(page: Mapping[str, Any]) -> int | None:
    """Return how many items match in all, as a page tells it in one of two places; None if it does not."""
    context = page.get("context")
    told = page.get("numberMatched"), context.get("matched") if isinstance(context, dict) else None
    return next((number for number in told if isinstance(number, int)), None)


def given_query(url: str) -> dict[str, Any]:
    """Return the query of an address as the search that it would be if it were posted."""
    given: dict[str, Any] = dict(parse_qsl(query_of(url)))
    for key, text in given.items():
        with suppress(ValueError):
            if key == "bbox":
                given[key] = [float(number) for number in text.split(",")]
            elif key in ("collections", "ids"):
                given[key] = text.split(",")
            elif text[:1] in ("{", "["):
                given[key] = parse_json(text)
    return given


def _page(
    href: str,
    method: str,
    headers: Mapping[str, str],
    parameters: Mapping[str, Any],
    causes: Causes | None,
    client: Client,
    guard: Pages,
) -> str:
    """Return the text of one page, checked to hold items: pystac-client ends the search at anything else."""
    if method.upper() == "POST":
        posted = json.dumps(parameters).encode()
        response = client.json(
            href, posted=posted, headers={**headers, "Content-Type": "application/json"}, causes=causes
        )
    else:
        own = parse_qs(query_of(href), keep_blank_values=True)
        lacking = {key: _as_text(value) for key, value in parameters.items() if key not in own}
        asked = with_query(href, "&".join(filter(None, (query_of(href), urlencode(lacking)))))
        response = client.json(asked if lacking else href, headers=headers, causes=causes)
    page = response.json
    items = page.get("features") if isinstance(page, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) and "id" in item for item in items):
        raise SourceUnavailableError(
            f"{redact(href)} answers a search with something else than items. Try again later."
        )
    onwards = [_followed(link, href) for link in links(page, "next")[:1]]
    if not items and onwards:
        raise SourceUnavailableError(f"{redact(href)} sends an empty page before the last one. Try again later.")
    returned = page.get("numberReturned")
    if isinstance(returned, int) and returned > len(items):
        raise IncompleteError(f"{redact(href)} sends {len(items)} of {returned} items of a page. Try again later.")
    guard.check(
        (f"{item.get('collection')}/{item['id']}" for item in items),
        json.dumps(onwards[0], sort_keys=True) if onwards else None,
        matches(page),
    )
    return json.dumps({**page, "links": onwards})


def _followed(link: Mapping[str, Any], href: str) -> dict[str, Any]:
    """Return a link to the next page with what is used of it, its address absolute.

    SourceUnavailableError if that makes no request, and AddressError for an address that is refused.
    """
    method, body, headers = (link.get(key) for key in ("method", "body", "headers"))
    body, headers = {} if body is None else body, {} if headers is None else headers
    why = None
    if method not in METHODS:
        why = "by another method than GET and POST"
    elif not isinstance(body, dict):
        why = "with a body that is no object"
    elif not isinstance(headers, dict) or not all(_is_header(*header) for header in headers.items()):
        why = "with headers that cannot be sent"
    if why:
        raise SourceUnavailableError(
            f"{redact(href)} leads to its next page {why}. Search with another --catalog, and tell the provider."
        )
    more = {"method": method or "GET", "body": body, "headers": headers, "merge": link.get("merge") is True}
    return {"rel": "next", "href": resolve(href, link["href"]), **more}  # pystac would read addresses in its own way


def _is_header(name: str, value: Any) -> bool:
    return (
        _HEADER.fullmatch(name) is not None
        and name.lower() not in _OWN_HEADERS
        and isinstance(value, str)
        and _VALUE.fullmatch(value) is not None
    )


def _as_text(value: Any) -> str:
    """Return a value of a posted search as it stands in a query."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
