"""Read STAC documents outside an API: ItemCollections, lines of items, static catalogues, from disk or the web."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog.hrefs import absolute, links, located, self_link, web_address
from tessera_cli.catalog.items import checked
from tessera_cli.catalog.paging import Pages, given_query, matches, paged_items
from tessera_cli.catalog.tables import SUFFIXES, Table
from tessera_cli.errors import UsageError, plainly, reason
from tessera_cli.json_text import parse_json
from tessera_cli.net import Client
from tessera_cli.net.address import AddressError, is_url, local_path, redact, without_query
from tessera_cli.net.client import check_json
from tessera_cli.reading import GZIP, MB, inflate, is_there, read_file, read_json

KINDS = ("FeatureCollection", "Catalog", "Collection", "Feature")
NAMES = ("catalog.json", "items.json", "collection.json", "items.ndjson", "items.ndjson.gz", "items.parquet")
"""What is looked for in a folder, in this order."""
OUTPUT, OUTPUTS = "run.json", ("catalog.json", "collection.json", "items.parquet")
"""What shows that `tessera` wrote into a folder, and the lists of its tiles, which are no catalogue of scenes."""
DEEPEST = 100
"""Levels of catalogues below one another."""
MAX_DOCUMENTS, TOLD = 1_000_000, 1000
"""Documents of one catalogue; after how many it is told how far it is."""
MAX_DOCUMENT = 512 * MB
"""Bytes of a document, packed and unpacked: some 50,000 items; a larger list is given as .parquet, or cut."""
LINES = (".ndjson", ".ndjson.gz", ".jsonl", ".geojsonl")
ADVICE = (
    "Give a STAC API, a catalog.json, an ItemCollection (.json), one item per line (.ndjson, .ndjson.gz) or "
    "STAC-GeoParquet (.parquet)."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Document:
    """A parsed STAC document and where it was read, to which relative hrefs are resolved."""

    location: str
    content: Any


def open_document(location: str, client: Client) -> Document:
    """Read a STAC document from a file or URL; of a folder, the first of NAMES. UsageError if it is no STAC."""
    if not is_url(location):
        path = Path(_local(location))
        with suppress(RuntimeError):  # nobody of that name has a home folder
            path = path.expanduser()
        if is_there(path) and path.is_dir():
            path = _in_folder(path)
        if not is_there(path):
            raise UsageError(f"The catalogue {path} does not exist: no such file. {ADVICE}")
        location = str(path.resolve())
    if without_query(location).endswith(SUFFIXES):
        found = client.get(location) if is_url(location) else None
        table = Table(redact(location), found.body if found else Path(location))
        return Document(found.url if found else location, {"type": "FeatureCollection", "features": table})
    text, found_at = _read_text(location, client)
    try:
        if without_query(location).endswith(LINES):
            lines = [parse_json(line) for line in text.splitlines() if line.strip()]
            content: Any = {"type": "FeatureCollection", "features": lines}
        else:
            content = parse_json(text)
    except ValueError as error:
        raise UsageError(f"The catalogue {redact(location)} is not JSON: {reason(error)}. {ADVICE}") from error
    if not isinstance(content, dict) or (content.get("type") not in KINDS and "collections" not in content):
        raise UsageError(f"The catalogue {redact(location)} is JSON but not STAC. {ADVICE}")
    return Document(found_at, content)


def is_api(content: Mapping[str, Any]) -> bool:
    """Return whether the document is the landing page of an API with item search."""
    classes = content.get("conformsTo")
    listed = classes if isinstance(classes, list) else []
    return any("item-search" in str(uri) for uri in listed) or bool(links(content, "search"))


def static_items(document: Document, client: Client) -> Iterator[Mapping[str, Any]]:
    """Yield the items of the document and of those it links to, with absolute asset hrefs.

    An item that does not name its collection belongs to that of its link, else to the one that led to it. UsageError
    for a file that is one page of several.
    """
    return _items(document, client)


def refuse_page(document: Document, why: str) -> None:
    """Raise UsageError: the document is one page of a search."""
    api = next((redact(link["href"]) for link in links(document.content, "root")), None)
    raise UsageError(
        f"The catalogue {redact(document.location)} is one page of a search: {why}. Give the address of the search or "
        f"the API{f' ({api})' if api else ''} to read all pages, or a file with all items."
    )


def _items(document: Document, client: Client) -> Iterator[Mapping[str, Any]]:
    seen: set[str] = set()
    count = 0
    waiting: list[tuple[str, Document | None, str | None, int]] = [(document.location, document, None, 0)]
    while waiting:
        location, opened, parent, level = waiting.pop()
        if location in seen:
            continue
        found = opened or open_document(location, client)
        if found.location in seen:  # which a redirect may lead to
            continue
        seen |= {location, found.location}
        count += 1
        if count == MAX_DOCUMENTS:
            raise UsageError(f"The catalogue {redact(document.location)} has no end: {count:,} documents. {ADVICE}")
        if count % TOLD == 0:
            logger.info("%s: %d documents so far", redact(document.location), count)
        content, kind = found.content, found.content.get("type")
        if kind in ("FeatureCollection", "Feature"):
            listed = kind != "Feature"
            for feature in _features(found, client) if listed else [content]:
                yield _in_collection(_absolute(feature, found.location, client, listed=listed), parent)
            continue
        if level == DEEPEST:
            raise UsageError(
                f"The catalogue {redact(found.location)} lies {DEEPEST} levels below {redact(document.location)}, so "
                f"there may be no end. {ADVICE}"
            )
        if kind == "Collection":
            parent = str(content.get("id") or "") or parent
        linked = links(content, "child", "item") or links(content, "items")  # the latter: one list of all items
        waiting += [(_linked(found, link["href"], client), None, parent, level + 1) for link in reversed(linked)]


def _features(document: Document, client: Client) -> Iterable[Any]:
    """Return all features of the search that an ItemCollection is a page of."""
    features, total = document.content.get("features") or [], matches(document.content)
    if isinstance(features, Table):
        return features
    if not isinstance(features, list):
        raise UsageError(f"The catalogue {redact(document.location)} has no list of features. {ADVICE}")
    if is_url(document.location):
        if links(document.content, "next"):
            return paged_items(document.location, "GET", given_query(document.location), client)
        if total is not None:
            Pages(document.location).check((str(_key(feature)) for feature in features), None, total)
    elif total is not None:
        if total > len(features):
            refuse_page(document, f"it holds {len(features)} of {total} items")
    elif links(document.content, "next", "prev", "previous"):
        refuse_page(document, f"it holds {len(features)} items and links to another page")
    return features


def _key(feature: Any) -> tuple[Any, Any] | None:
    return (feature.get("collection"), feature.get("id")) if isinstance(feature, dict) else None


def _in_collection(item: Mapping[str, Any], parent: str | None) -> Mapping[str, Any]:
    """Return the item with the collection that it names, or links to, or was found in."""
    if item.get("collection"):
        return item
    for link in links(item, "collection"):
        parts = [part for part in without_query(link["href"]).split("/") if part not in ("", "collection.json")]
        if parts and parts[-1] not in (".", ".."):
            parent = parts[-1].removesuffix(".json")
    return {**item, "collection": parent} if parent else item


def _in_folder(folder: Path) -> Path:
    """Return the catalogue that a folder holds."""
    found = [folder / name for name in NAMES if (folder / name).exists()]
    ours = [path for path in found if (folder / OUTPUT).exists() and path.name in OUTPUTS and _lists_outputs(folder)]
    if ours and ours == found:
        raise UsageError(f"The catalogue {folder} is what `tessera` wrote: d-pixels or embeddings, no scenes. {ADVICE}")
    found = [path for path in found if path not in ours]
    if not found:
        raise UsageError(f"The folder {folder} holds no catalogue: neither {' nor '.join(NAMES)}. {ADVICE}")
    if len(found) > 1:
        logger.info("%s holds %s; reading the first", folder, ", ".join(path.name for path in found))
    return found[0]


def _lists_outputs(folder: Path) -> bool:
    """Return whether the catalogue in a folder is the one that `tessera` writes over its tiles."""
    with suppress(OSError, ValueError):
        catalog = read_json(folder / "catalog.json")
        return isinstance(catalog, dict) and "tessera:content" in catalog
    return False


def _linked(document: Document, href: str, client: Client) -> str:
    location, reach = document.location, client.reach
    try:
        return web_address(located(location, location, href, self_link(document.content, location, reach), reach))
    except AddressError as error:
        raise UsageError(
            f"The catalogue {redact(document.location)} links to {redact(href)}, which is refused: {error.why}. "
            "Correct the link."
        ) from error


def _absolute(item: Any, location: str, client: Client, *, listed: bool) -> Mapping[str, Any]:
    if not isinstance(item, dict) or "assets" not in item or "id" not in item:
        raise UsageError(f"The catalogue {redact(location)} holds features that are not STAC items. {ADVICE}")
    return absolute(checked(item), location, client.reach, listed=listed)


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
            data = read_file(Path(location), MAX_DOCUMENT)
        else:  # a web page in place of JSON is requested again
            packed = without_query(location).endswith((".gz", *LINES))
            response = client.get(location) if packed else client.json(location)
            data, found = response.body, response.url
        if data[:2] == b"\x1f\x8b":
            data = inflate(data, MAX_DOCUMENT, wbits=GZIP)
        if is_url(location):
            check_json(location, data)
        return data.decode("utf-8"), found
    except (OSError, ValueError) as error:
        why = plainly(error)
        raise UsageError(f"The catalogue {redact(location)} cannot be read: {why}. {ADVICE}") from error
