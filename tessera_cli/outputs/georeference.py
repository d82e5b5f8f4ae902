"""A tile's georeference in STAC items: projection extension, geometry and bbox."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import shapely
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from tessera_cli.errors import reason
from tessera_cli.extent.antimeridian import split
from tessera_cli.extent.grid import AnyTile, ForeignTile, parse_tile_name
from tessera_cli.extent.window import Window

_AUTHORITY = re.compile(r"\w+:\w+")


def projection(tile: AnyTile) -> dict[str, Any]:
    """Return the `proj:` fields; the shape alone for a tile without a georeference."""
    if tile.crs is None or tile.transform is None:
        return {"proj:shape": list(tile.shape)}
    return {
        "proj:code" if _AUTHORITY.fullmatch(tile.crs) else "proj:wkt2": tile.crs,
        "proj:shape": list(tile.shape),
        "proj:transform": [_number(value) for value in tile.transform[:6]],
        "proj:bbox": [_number(value) for value in tile.bounds],
    }


def resolution(tile: AnyTile) -> float | None:
    """Return metres per pixel, if known."""
    return None if tile.transform is None else _number(tile.transform.a)


def footprint(tile: AnyTile) -> tuple[dict[str, Any], list[float]] | None:
    """Return GeoJSON geometry and bbox, cut and wrapped at the antimeridian (RFC 7946, 3.1.9 and 5.2), if known."""
    if tile.transform is None:
        return None
    rounded = (shapely.transform(part, lambda lonlat: lonlat.round(7)) for part in split(tile.outline))
    parts = [shapely.geometry.polygon.orient(part) for part in rounded if part.area]  # no sliver for float noise
    if not parts:  # smaller than what the numbers of a footprint tell
        return None
    south, north = min(p.bounds[1] for p in parts), max(p.bounds[3] for p in parts)
    geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return json.loads(shapely.to_geojson(geometry)), [parts[0].bounds[0], south, parts[-1].bounds[2], north]


def tile_from_item(item: Mapping[str, Any]) -> tuple[AnyTile, Window | None]:
    """Return the tile and the window of a record's item; KeyError, TypeError or ValueError for any other item."""
    name, properties = str(item["id"]), item["properties"]
    if properties.get("start_datetime") is None:
        return _foreign(name, properties), None
    if (on_grid := parse_tile_name(name)) is not None:
        return on_grid
    tile_id, window = name.rsplit("_", 1)
    return _foreign(tile_id, properties), Window.from_name(window)


def _foreign(tile_id: str, properties: Mapping[str, Any]) -> ForeignTile:
    height, width = properties["proj:shape"]
    crs, transform = properties.get("proj:code") or properties.get("proj:wkt2"), properties.get("proj:transform")
    if (crs is None) != (transform is None):
        raise ValueError("it has half of a georeference")
    if crs is not None and transform is not None:
        try:
            CRS.from_user_input(crs)
        except CRSError as error:
            raise ValueError(f"its CRS is not known: {reason(error)}") from error
        if not transform[0] or not transform[4]:
            raise ValueError("its pixels have no size")
    return ForeignTile(tile_id, (height, width), crs, None if transform is None else Affine(*transform))


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
