"""Read STAC documents outside an API: ItemCollections, lines of items, static catalogues, from disk or the web."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tessera_cli.catalog.tables import SUFFIXES, Table
from tessera_cli.errors import UsageError
from tessera_cli.net import Client
from tessera_cli.net.responses import redact

KINDS = ("FeatureCollection", "Catalog", "Collection", "Feature")
LINES = (".ndjson", ".ndjson.gz", ".jsonl", ".geojsonl")
ADVICE = (
    "Give a STAC API, a catalog.json, an ItemCollection (.json), one item per line (.ndjson, .ndjson.gz) or "
    "STAC-GeoParquet (.parquet)."
)


@dataclass(frozen=True)
class Document:
    """A parsed STAC document and its location, to which relative hrefs are resolved."""

    location: str
    content: Any


def open_document(location: str, client: Client) -> Document:
    """Read a STAC document from a file or URL; of a folder, its catalog.json. UsageError if it is no STAC."""
    if not _is_url(location):
        path = Path(location)
        with suppress(RuntimeError):  # nobody of that name has a home folder
            path = path.expanduser()
        if path.is_dir():
            path = path / "catalog.json"
        if not path.exists():
            raise UsageError(f"The catalogue {path} does not exist: no such file. {ADVICE}")
        location = str(path.resolve())
    if _path(location).endswith(SUFFIXES):
        table = Table(_shown(location), client.get(location).body if _is_url(location) else Path(location))
        return Document(location, {"type": "FeatureCollection", "features": table})
    text = _read_text(location, client)
    try:
        if _path(location).endswith(LINES):
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
            content: Any = {"type": "FeatureCollection", "features": lines}
        else:
            content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The catalogue {_shown(location)} is not JSON: {error}. {ADVICE}") from error
    if not isinstance(content, dict) or content.get("type") not in KINDS:
        raise UsageError(f"The catalogue {_shown(location)} is JSON but not STAC. {ADVICE}")
    return Document(location, content)


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
            yield _absolute(feature, document.location)
    elif kind == "Feature":
        yield _absolute(document.content, document.location)
    else:
        yield from _walk(document, client, seen=set())


def _walk(document: Document, client: Client, seen: set[str]) -> Iterator[Mapping[str, Any]]:
    seen.add(document.location)
    for link in document.content.get("links") or []:
        if link.get("rel") not in ("child", "item"):
            continue
        location = _join(document.location, str(link["href"]))
        if location not in seen:
            child = open_document(location, client)
            if child.content["type"] == "Feature":
                yield from static_items(child, client)
            else:
                yield from _walk(child, client, seen)


def _absolute(item: Any, location: str) -> Mapping[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict) or "id" not in item:
        raise UsageError(f"The catalogue {_shown(location)} holds features that are not STAC items. {ADVICE}")
    listed = {key: asset for key, asset in item["assets"].items() if isinstance(asset, dict) and "href" in asset}
    assets = {key: {**asset, "href": _join(location, str(asset["href"]))} for key, asset in listed.items()}
    return {**item, "properties": item.get("properties") or {}, "assets": assets}


def _join(base: str, href: str) -> str:
    if "://" in href or href.startswith("/"):
        return href
    if _is_url(base):
        return urljoin(base, href)
    return str((Path(base).parent / href).resolve())


def _is_url(location: str) -> bool:
    return urlsplit(location).scheme in ("http", "https")


def _path(location: str) -> str:
    return urlsplit(location).path if _is_url(location) else location


def _shown(location: str) -> str:
    return redact(location) if _is_url(location) else location


def _read_text(location: str, client: Client) -> str:
    try:
        if not _is_url(location):
            data = Path(location).read_bytes()
        elif _path(location).endswith((".gz", *LINES)):
            data = client.get(location).body
        else:  # a web page in place of JSON is requested again
            data = client.json(location).body
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"The catalogue {_shown(location)} cannot be read: {error}. {ADVICE}") from error
