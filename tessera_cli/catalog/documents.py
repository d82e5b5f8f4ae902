"""Read STAC documents outside an API: ItemCollections, lines of items, static catalogues, from disk or the web."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog.hrefs import absolute, located, self_link, web_address
from tessera_cli.catalog.tables import SUFFIXES, Table
from tessera_cli.errors import UsageError
from tessera_cli.net import Client
from tessera_cli.net.address import AddressError, is_url, local_path, without_query
from tessera_cli.net.responses import redact

KINDS = ("FeatureCollection", "Catalog", "Collection", "Feature")
LINES = (".ndjson", ".ndjson.gz", ".jsonl", ".geojsonl")
ADVICE = (
    "Give a STAC API, a catalog.json, an ItemCollection (.json), one item per line (.ndjson, .ndjson.gz) or "
    "STAC-GeoParquet (.parquet)."
)


@dataclass(frozen=True)
class Document:
    """A parsed STAC document and where it was read, to which relative hrefs are resolved."""

    location: str
    content: Any


def open_document(location: str, client: Client) -> Document:
    """Read a STAC document from a file or URL; of a folder, its catalog.json. UsageError if it is no STAC."""
    if not is_url(location):
        path = Path(_local(location)).expanduser()
        if path.is_dir():
            path = path / "catalog.json"
        if not path.exists():
            raise UsageError(f"The catalogue {path} does not exist: no such file. {ADVICE}")
        location = str(path.resolve())
    if without_query(location).endswith(SUFFIXES):
        found = client.get(location) if is_url(location) else None
        table = Table(redact(location), found.body if found else Path(location))
        return Document(found.url if found else location, {"type": "FeatureCollection", "features": table})
    text, found_at = _read_text(location, client)
    try:
        if without_query(location).endswith(LINES):
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
            content: Any = {"type": "FeatureCollection", "features": lines}
        else:
            content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The catalogue {redact(location)} is not JSON: {error}. {ADVICE}") from error
    if not isinstance(content, dict) or content.get("type") not in KINDS:
        raise UsageError(f"The catalogue {redact(location)} is JSON but not STAC. {ADVICE}")
    return Document(found_at, content)


def is_api(content: Mapping[str, Any]) -> bool:
    """Return whether the document is the landing page of an API with item search."""
    classes = content.get("conformsTo") or []
    return any("item-search" in str(uri) for uri in classes) or any(
        link.get("rel") == "search" for link in content.get("links") or []
    )


def static_items(document: Document, client: Client) -> Iterator[Mapping[str, Any]]:
    """Yield the items of the document and of those it links to, with absolute asset hrefs."""
    kind = document.content["type"]
    if kind == "FeatureCollection":
        for feature in document.content.get("features") or []:
            yield _absolute(feature, document.location, listed=True)
    elif kind == "Feature":
        yield _absolute(document.content, document.location, listed=False)
    else:
        yield from _walk(document, client, seen=set())


def _walk(document: Document, client: Client, seen: set[str]) -> Iterator[Mapping[str, Any]]:
    seen.add(document.location)
    for link in document.content.get("links") or []:
        if link.get("rel") not in ("child", "item"):
            continue
        location = _linked(document, str(link["href"]))
        if location not in seen:
            child = open_document(location, client)
            if child.location in seen:  # which a redirect led to
                continue
            if child.content["type"] == "Feature":
                yield from static_items(child, client)
            else:
                yield from _walk(child, client, seen)


def _linked(document: Document, href: str) -> str:
    try:
        return web_address(located(document.location, href, self_link(document.content, document.location)))
    except AddressError as error:
        raise UsageError(
            f"The catalogue {redact(document.location)} links to {redact(href)}, which is refused: {error.why}."
        ) from error


def _absolute(item: Any, location: str, *, listed: bool) -> Mapping[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict) or "id" not in item:
        raise UsageError(f"The catalogue {redact(location)} holds features that are not STAC items. {ADVICE}")
    return absolute({**item, "properties": item.get("properties") or {}}, location, listed=listed)


def _local(location: str) -> str:
    try:
        return local_path(location)
    except AddressError as error:
        raise UsageError(f"The catalogue {redact(location)} cannot be read: {error.why}. {ADVICE}") from error


def _read_text(location: str, client: Client) -> tuple[str, str]:
    """Return the text of a document and where it was read, which redirects may change."""
    found = location
    try:
        if not is_url(location):
            data = Path(location).read_bytes()
        else:  # a web page in place of JSON is requested again
            packed = without_query(location).endswith((".gz", *LINES))
            response = client.get(location) if packed else client.json(location)
            data, found = response.body, response.url
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8"), found
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"The catalogue {redact(location)} cannot be read: {error}. {ADVICE}") from error
