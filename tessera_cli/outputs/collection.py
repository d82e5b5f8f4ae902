"""The STAC collection and catalogue of a folder, composed from what its items say: the same items, the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from tessera_cli.catalog.sources import SOURCES
from tessera_cli.outputs.georeference import projection, resolution
from tessera_cli.outputs.item import TileRecord, times
from tessera_cli.outputs.layers import DPIXELS, layers_of
from tessera_cli.outputs.stac import (
    CATALOG,
    COLLECTION,
    EMBEDDINGS,
    EO,
    GEOTIFF,
    INDEX,
    PROCESSING,
    PROJECTION,
    RASTER,
    VERSION,
    collection_id,
    layer_fields,
    link,
    store_fields,
)
from tessera_cli.outputs.tags import SOFTWARE, model_url

CONTENT = "tessera:content"
"""The field by which a collection or catalogue of ours is known."""
DIGEST = "tessera:items_digest"
"""The field of a collection, and of its index, that says which items they were made from."""
INDEX_KEY = "items"
"""The key of the index among the assets of a collection."""
ASSETS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    ".vrt": ("application/xml", "Mosaic of the tiles of a zone and window (GDAL VRT)", ("data", "virtual")),
    ".html": ("text/html", "Preview, in a browser", ("overview",)),
    ".png": ("image/png", "Preview", ("overview", "visual")),
    ".tif": (GEOTIFF, "Preview", ("overview", "visual")),
    ".parquet": ("application/vnd.apache.parquet", "All items as STAC-GeoParquet", ("collection-mirror",)),
}
"""Ending of a file for the whole folder -> media type, title, roles."""
LICENCE_OF_IMAGES = "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice"
SENTINEL = "https://sentiwiki.copernicus.eu/web/sentinel-missions"
PYTHON_PACKAGE = "https://pypi.org/project/tessera-embed/"

Box = Sequence[float]
"""West, south, east, north in degrees; west > east crosses the antimeridian."""


@dataclass(frozen=True)
class Member:
    """What a collection says of one of its items."""

    name: str
    digest: str
    """SHA-256 of the item as it lies in the folder."""
    bbox: tuple[float, ...]
    times: tuple[str, ...]
    """Beginning and end, UTC."""
    window: str
    gsd: float
    crs: str | None
    """`EPSG:32631`; None if it has no such code."""
    software: str
    pixels: int

    @classmethod
    def of(cls, record: TileRecord, digest: str) -> Member | None:
        """Return what is kept of a tile's record; None for one that no collection lists."""
        if not record.is_listed or record.window is None or record.outline is None:
            return None
        return cls(
            name=record.name,
            digest=digest,
            bbox=tuple(record.outline[1]),
            times=tuple(times(record.window).values()),
            window=record.window.name,
            gsd=resolution(record.tile) or 0,
            crs=projection(record.tile).get("proj:code"),
            software=record.software,
            pixels=record.pixels,
        )


def compose(
    identity: Mapping[str, Any], note: str, members: Sequence[Member], files: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the collection and the catalogue of a folder.

    Args:
        identity: as in its `run.json`.
        note: what users must know of the contents, if anything.
        members: its items, by name; at least one.
        files: names of files that show the folder as a whole: mosaics, previews, the index of its items.
    """
    stored, id = identity.get("content") == DPIXELS, collection_id(identity)
    title, description = _described(identity, note)
    collection = {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [
            *([] if stored else [EMBEDDINGS, RASTER]),
            *([EO] if not stored and identity["format"] == "geotiff" else []),
            PROJECTION,
            PROCESSING,
        ],
        "id": id,
        "title": title,
        "description": description,
        "keywords": ["Sentinel-1", "Sentinel-2", *(["d-pixels"] if stored else ["TESSERA", "embeddings"])],
        "license": "other",
        "providers": _providers(members),
        "extent": {
            "spatial": {"bbox": [around([member.bbox for member in members])]},
            "temporal": {"interval": [[min(m.times[0] for m in members), max(m.times[1] for m in members)]]},
        },
        "summaries": {
            "gsd": sorted({member.gsd for member in members}),
            "proj:code": sorted({member.crs for member in members if member.crs is not None}),
            "processing:software": [{SOFTWARE: version} for version in sorted({m.software for m in members})],
            "tessera:windows": sorted({member.window for member in members}),
        },
        **({} if stored else _embedding_fields(identity, members)),
        CONTENT: DPIXELS if stored else "embeddings",
        "tessera:identity": dict(identity),
        "tessera:tiles": len(members),
        "tessera:pixels": sum(member.pixels for member in members),
        DIGEST: digest_of(members),
        "item_assets": _item_assets(identity, members),
        "assets": {_key(file): _asset(file) for file in sorted(files)},
        "links": [
            link("root", f"./{CATALOG}"),
            link("parent", f"./{CATALOG}"),
            *_provenance(identity),
            link("license", LICENCE_OF_IMAGES, "application/pdf", title="Terms of Copernicus Sentinel data"),
            *(link("item", f"./{member.name}.json", "application/geo+json") for member in members),
        ],
    }
    catalog = {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": f"{id}-catalog",
        "title": title,
        "description": description,
        CONTENT: collection[CONTENT],
        "links": [link("root", f"./{CATALOG}"), link("child", f"./{COLLECTION}", title=title)],
    }
    return collection, catalog


def digest_of(members: Iterable[Member]) -> str:
    """Return one SHA-256 for the names and contents of all items."""
    return hashlib.sha256("".join(f"{member.name} {member.digest}\n" for member in members).encode()).hexdigest()


def around(boxes: Sequence[Box]) -> list[float]:
    """Return the smallest box around all: west, south, east, north, where west > east crosses the antimeridian.

    Of the gaps between the boxes along the equator the widest is left out.
    """
    spans = sorted((box[0], box[2] + 360 * (box[2] < box[0])) for box in boxes)
    (west, east), gap = spans[0], 0.0
    reached = east
    for start, end in spans[1:]:
        if start - reached > gap:
            gap, west, east = start - reached, start, reached
        reached = max(reached, end)
    if spans[0][0] + 360 - reached >= gap:  # the widest gap lies across the antimeridian, or there is none
        west, east = spans[0][0], reached
    else:
        east = max(east, reached - 360) + 360  # what begins in the west may reach around
    if east - west >= 360:
        west, east = -180.0, 180.0
    return [west, min(b[1] for b in boxes), east - 360 * (east > 180), max(b[3] for b in boxes)]


def _described(identity: Mapping[str, Any], note: str) -> tuple[str, str]:
    """Return title and description."""
    source = {"mpc": "Planetary Computer", "aws": "Earth Search and OPERA"}.get(identity["source"] or "")
    origin = f" from {source}" if source else ""
    warning = f" **{note[:1].upper()}{note[1:]}.**" if note else ""
    if identity.get("content") == DPIXELS:
        what = "d-pixels: every clear observation of Sentinel-2 and Sentinel-1 per pixel"
        return f"d-pixels{origin}", f"{what}{origin}, one item per tile and window.{warning}"
    model = PurePath(identity["model"]).name
    stored = "int8 codes with one float32 scale per pixel (value = code * scale)"
    stored = stored if identity["dtype"] == "int8" else "float32 values"
    return (
        f"TESSERA embeddings, {model}",
        f"Embeddings of Sentinel-1 and Sentinel-2 observations{origin} by the TESSERA model {model}: "
        f"{identity['dims']} dimensions per pixel, as {stored}, one item per tile and window.{warning}",
    )


def _embedding_fields(identity: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """Return the fields that the STAC extension for embeddings has for collections."""
    return {
        "emb:type": "pixel",
        "emb:dimensions": identity["dims"],
        "data_type": identity["dtype"],
        "gsd": min(member.gsd for member in members),
    }


def _providers(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Return who made the images, and what made this of them: who ran it is not recorded."""
    url = "https://www.copernicus.eu"
    images = {"name": "European Union / ESA / Copernicus", "roles": ["licensor", "producer"], "url": url}
    ran = {SOFTWARE: ", ".join(sorted({member.software for member in members}))}
    return [images, {"name": SOFTWARE, "roles": ["processor"], "url": PYTHON_PACKAGE, "processing:software": ran}]


def _provenance(identity: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the links to the model and to the images."""
    links = []
    if identity.get("content") != DPIXELS:
        model = PurePath(identity["model"]).name
        links.append(link("emb:model", model_url(model), "text/html", title=f"TESSERA {model}"))
    source = SOURCES.get(identity["source"] or "")
    if source is None:
        images = [link("emb:source-data", SENTINEL, "text/html", title="Sentinel-1 and Sentinel-2")]
    else:
        images = [link("emb:source-data", f"{source.api}/collections/{source.s2_collection}", title="Sentinel-2")]
        radar = source.granules and f"{source.granules}?short_name={source.s1_collection}"
        radar = radar or f"{source.api}/collections/{source.s1_collection}"
        images.append(link("emb:source-data", radar, title="Sentinel-1"))
    return [*links, *images]


def _item_assets(identity: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """Return what the assets of all items have in common."""
    if identity.get("content") == DPIXELS:
        return {"dpixels": store_fields(identity["format"])}
    format, gsd = identity["format"], {member.gsd for member in members}
    resolution = {"raster:spatial_resolution": min(gsd)}
    return {layer.key: {**layer_fields(layer, format, identity["dims"]), **resolution} for layer in layers_of(identity)}


def _key(file: str) -> str:
    """Return the key of an asset of the whole folder."""
    return INDEX_KEY if file == INDEX else file


def _asset(file: str) -> dict[str, Any]:
    type, title, roles = ASSETS[PurePath(file).suffix]
    return {"href": f"./{file}", "type": type, "title": title, "roles": list(roles)}
