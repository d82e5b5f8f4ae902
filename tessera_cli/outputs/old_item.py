"""Records that earlier versions wrote, in the form of today: the one place that knows how they looked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import DPIXELS
from tessera_cli.outputs.tags import SOFTWARE

OURS = "tessera:"
"""How the names of our own fields begin."""
_OF_THE_EXTENSION = ("emb:quantization", "emb:runtime_parameters")
"""Fields of items of the STAC extension for embeddings; others with its prefix were ours (up to 0.2)."""
_GONE = ("emb:type", "emb:dimensions")
"""Fields that the extension has for collections alone."""


def is_old(item: Mapping[str, Any]) -> bool:
    """Return whether a record of a tile has a form of earlier versions."""
    properties = item.get("properties")
    return "content" in item or (isinstance(properties, dict) and "emb:identity" in properties)


def upgraded(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the item of a tile as `TileRecord.to_item` writes it today, as far as it is read; new ones as they are.

    Types are not checked. Raises ValueError or LookupError for what no version wrote.
    """
    if "content" in item:
        return _of_store(item)
    if not is_old(item) or not isinstance(item.get("assets"), dict):
        return item
    return {
        **item,
        "properties": {_name(key): value for key, value in item["properties"].items() if key not in _GONE},
        "assets": {"embeddings" if key == "embedding" else key: asset for key, asset in item["assets"].items()},
    }


def _name(key: str) -> str:
    """Return the name that a field of an item has today."""
    return OURS + key.removeprefix("emb:") if key.startswith("emb:") and key not in _OF_THE_EXTENSION else key


def _of_store(old: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the item in place of a record of d-pixels that was written before those were STAC items."""
    if old["content"] != DPIXELS:
        raise ValueError(f"its content is {old['content']!r}")
    window = Window.from_name(old["window"])
    keys = ("identity", "requested", "observations", "scenes", "holes", "warnings", "input_digest", "files")
    return {
        "id": f"{old['tile']}_{old['window']}",
        "properties": {
            "start_datetime": f"{window.start}T00:00:00Z",
            **{OURS + key: old[key] for key in keys},
            f"{OURS}status": "done",
            "processing:software": {SOFTWARE: old["software"]},
        },
        "assets": {"dpixels": {"href": f"./{old['store']}"}},
    }
