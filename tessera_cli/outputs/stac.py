"""Names and links that the STAC items, the collection and the catalogue of a folder share."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tessera_cli.outputs.layers import DPIXELS, Format, Layer

VERSION = "1.1.0"
COLLECTION, CATALOG, INDEX = "collection.json", "catalog.json", "items.parquet"
EMBEDDINGS = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
"""For `eo:bands` alone: odc-stac offers bands by name if they stand there, and not if they stand in `bands`."""
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
GEOTIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA_TYPES: Mapping[str, str] = {"geotiff": GEOTIFF, "zarr": "application/vnd.zarr; version=3"}
ARRAY = "application/octet-stream"
"""Of NumPy's arrays, for which nobody has registered a type."""


def collection_id(identity: Mapping[str, Any]) -> str:
    """Return the id of the collection of a folder, such as `tessera-v1.1-mpc-1a2b3c4d`.

    It follows from the identity alone, so that each tile can name it before there is a collection, and folders of
    other settings have another one.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    what = DPIXELS if identity.get("content") == DPIXELS else f"tessera-{PurePath(identity['model']).name}"
    words = [what, identity["source"] or "unknown", digest]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))


def item_links() -> list[dict[str, str]]:
    """Return the links of an item to what lies in its folder; none to itself, so that folders can be moved."""
    return [
        link("root", f"./{CATALOG}"),
        link("parent", f"./{COLLECTION}"),
        link("collection", f"./{COLLECTION}"),
    ]


def link(rel: str, href: str, type: str = "application/json", **more: str) -> dict[str, str]:
    """Return a link of a STAC object."""
    return {"rel": rel, "href": href, "type": type, **more}


def layer_fields(layer: Layer, format: Format, dims: int) -> dict[str, Any]:
    """Return the fields of a layer's asset that are the same for all tiles of a folder."""
    nodata, bands = layer.nodata, [{"name": name} for name in layer.bands(dims)]
    return {
        "type": MEDIA_TYPES.get(format, ARRAY),
        "title": layer.title,
        "roles": list(layer.stac_roles),
        "data_type": layer.dtype,
        **({} if nodata is None else {"nodata": "nan" if math.isnan(nodata) else nodata}),
        "bands": bands,
        **({"eo:bands": bands} if format == "geotiff" else {}),
    }


def store_fields(format: str) -> dict[str, Any]:
    """Return the same of the asset of stored d-pixels."""
    return {"type": MEDIA_TYPES.get(format, ARRAY), "title": DPIXELS, "roles": ["data"]}
