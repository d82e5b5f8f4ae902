"""Where a tile lies, in the words of STAC's projection extension and of GeoJSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import shapely
from affine import Affine

from tessera_cli.extent.antimeridian import split
from tessera_cli.extent.grid import AnyTile, ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import parse_tile_name

_AUTHORITY = re.compile(r"\w+:\w+")


def projection(tile: AnyTile) -> dict[str, Any]:
    """The `proj:` fields; the shape alone where nobody said where the tile lies."""
    if tile.crs is None or tile.transform is None:
        return {"proj:shape": list(tile.shape)}
    return {
        "proj:code" if _AUTHORITY.fullmatch(tile.crs) else "proj:wkt2": tile.crs,
        "proj:shape": list(tile.shape),
        "proj:transform": [_number(value) for value in tile.transform[:6]],
        "proj:bbox": [_number(value) for value in tile.bounds],
    }


def resolution(tile: AnyTile) -> float | None:
    """Metres per pixel, if known."""
    return None if tile.transform is None else _number(tile.transform.a)


def footprint(tile: AnyTile) -> tuple[dict[str, Any], list[float]] | None:
    """Geometry and bbox in longitude and latitude; cut and wrapped at the antimeridian (RFC 7946, 3.1.9 and 5.2)."""
    if tile.transform is None:
        return None
    rounded = (shapely.transform(part, lambda lonlat: lonlat.round(7)) for part in split(tile.outline))
    parts = [shapely.geometry.polygon.orient(part) for part in rounded if part.area]  # no sliver for float noise
    south, north = min(p.bounds[1] for p in parts), max(p.bounds[3] for p in parts)
    geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return json.loads(shapely.to_geojson(geometry)), [parts[0].bounds[0], south, parts[-1].bounds[2], north]


def tile_from_item(item: Mapping[str, Any]) -> tuple[AnyTile, Window | None]:
    """The tile and the window of a record; KeyError, TypeError or ValueError for any other item."""
    name, properties = str(item["id"]), item["properties"]
    if properties.get("start_datetime") is None:
        return _foreign(name, properties), None
    if (place := parse_tile_name(name)) is not None:
        return place
    tile_id, window = name.rsplit("_", 1)
    return _foreign(tile_id, properties), Window.from_name(window)


def _foreign(tile_id: str, properties: Mapping[str, Any]) -> ForeignTile:
    height, width = properties["proj:shape"]
    transform = properties.get("proj:transform")
    return ForeignTile(
        tile_id,
        (height, width),
        properties.get("proj:code") or properties.get("proj:wkt2"),
        None if transform is None else Affine(*transform),
    )


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
