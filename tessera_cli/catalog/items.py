"""STAC items as they come -> items whose fields have the types that STAC gives them: checked once, where they enter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MALFORMED = "tessera:malformed"
"""Field of an item that is none: why. Such items are skipped and counted."""


def checked(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item whose `id`, `collection`, `properties`, `assets`, `geometry`, `bbox` and `links` can be trusted.

    What may be absent and has another type is left out: a geometry, a bbox, links, assets without an href. Where the
    rest is not as it should be, the item is MALFORMED.
    """
    properties, assets = item.get("properties") or {}, item.get("assets")
    name, collection = item.get("id"), item.get("collection")
    if isinstance(name, int | float) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name:
        return _malformed(name, "its id is no text")
    if collection and not isinstance(collection, str):
        return _malformed(name, "the name of its collection is no text")
    if not isinstance(properties, Mapping):
        return _malformed(name, "its properties are no object")
    if not isinstance(assets, Mapping):
        return _malformed(name, "its assets are no object")
    geometry, bbox, links = item.get("geometry"), item.get("bbox"), item.get("links")
    return {
        **item,
        "id": name,
        "collection": collection or None,
        "properties": dict(properties),
        "assets": {key: dict(asset) for key, asset in assets.items() if _has_href(asset)},
        "geometry": geometry if isinstance(geometry, Mapping) else None,
        "bbox": bbox if _is_box(bbox) else None,
        "links": [link for link in links if isinstance(link, Mapping)] if isinstance(links, list | tuple) else [],
    }


def _malformed(name: Any, why: str) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "collection": None,
        "properties": {},
        "assets": {},
        "geometry": None,
        "bbox": None,
        "links": [],
    }
    return {"id": str(name), **empty, MALFORMED: why}


def _has_href(asset: Any) -> bool:
    return isinstance(asset, Mapping) and isinstance(asset.get("href"), str) and bool(asset["href"])


def _is_box(bbox: Any) -> bool:
    """Return whether a bbox has two corners, perhaps with heights."""
    return isinstance(bbox, list | tuple) and len(bbox) in (4, 6) and all(isinstance(v, int | float) for v in bbox)
