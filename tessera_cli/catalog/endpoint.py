"""What --catalog names: the item search of an API, whichever of its addresses is given, or documents of items."""

from __future__ import annotations

import logging

from tessera_cli.catalog.api import search_link
from tessera_cli.catalog.documents import Document, is_api, open_document, refuse_page
from tessera_cli.catalog.hrefs import linked, links
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import AbsentError, TesseraError, UsageError
from tessera_cli.net import Client
from tessera_cli.net.address import is_url, parse, redact, without_query

COLLECTIONS = "/collections"
SEARCHES = ("/search", "/items")
"""Ends of addresses that STAC and OGC API prescribe for searches; the latter searches one collection."""

logger = logging.getLogger(__name__)


def item_search(document: Document, source: Source, client: Client) -> tuple[str, str] | None:
    """Return URL and method of the item search that the document belongs to; None for documents of items.

    It is searched through the landing page of the API, through one of its collections, or by the address of a search
    itself. UsageError for a collection that the source does not read, and for a later page of a search.
    """
    content, location = document.content, document.location
    if content.get("type") == "FeatureCollection":
        if not _path(location).endswith(SEARCHES):
            return None
        if links(content, "prev", "previous"):
            refuse_page(document, "others come before it")
        return location, "GET"
    if content.get("type") == "Feature":
        return None
    if is_api(content):
        return search_link(document, client)
    searches = [href for href in linked(content, location, client.reach, "items") if _path(href).endswith(SEARCHES)]
    static = links(content, "child", "item") or COLLECTIONS not in _path(location)
    if not searches and static and "collections" not in content:
        return None
    api = _api_of(document, client)
    if content.get("type") == "Collection" and content.get("id") not in source.collections:
        raise UsageError(
            f"--catalog: {redact(location)} is the collection {content.get('id')}; --source {source.name} reads "
            f"{' and '.join(source.collections)}. Give the API itself{f' ({redact(api.location)})' if api else ''}."
        )
    if api is not None:
        logger.info("%s belongs to the API %s, which is searched", redact(location), redact(api.location))
        return search_link(api, client)
    if searches:
        return searches[0], "GET"
    if "collections" in content:
        raise UsageError(f"--catalog: {redact(location)} is a list of collections. Give the API itself.")
    return None


def _api_of(document: Document, client: Client) -> Document | None:
    """Return the landing page of the API that a collection, or the list of them, belongs to; None if there is none."""
    location, content = document.location, document.content
    known = [location, *linked(content, location, client.reach, "self", "items")]
    above = [without_query(href).rpartition(COLLECTIONS)[0] for href in known if COLLECTIONS in _path(href)]
    upwards = [href for rel in ("root", "parent") for href in linked(content, location, client.reach, rel)]
    for href in dict.fromkeys([*upwards, *above]):
        if not _path(href) or href == location:
            continue
        try:
            landing = open_document(href, client)
        except TesseraError as error:
            if href in above or isinstance(error, UsageError | AbsentError):
                continue
            raise
        if is_api(landing.content):
            return landing
    return None


def _path(location: str) -> str:
    """Return the path of a web address; empty for a file."""
    return (parse(location).path.rstrip("/") or "/") if is_url(location) else ""
