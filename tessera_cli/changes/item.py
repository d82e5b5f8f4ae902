"""The STAC item of a zone: where and when two windows were compared, and the files that say what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tessera_cli import __version__
from tessera_cli.changes.pairs import Pair
from tessera_cli.changes.target import CHANGED, SCORES
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.outputs.georeference import footprint, projection, resolution
from tessera_cli.outputs.item import times
from tessera_cli.outputs.stac import EO, PROCESSING, PROJECTION, RASTER, VERSION, layer_fields
from tessera_cli.outputs.tags import SOFTWARE

GEOPACKAGE = "application/geopackage+sqlite3"


def item(pair: Pair, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a STAC 1.1.0 item without links; `about` is the record of the comparison.

    Its time reaches from the beginning of the earlier window to the end of the later one; tiles whose window is not
    known have none, though STAC demands one.
    """
    place = ForeignTile(pair.name, pair.grid.shape, pair.grid.crs, pair.grid.transform)
    geometry, bbox = footprint(place) or (None, None)
    metres = resolution(place)
    windows = [each.window for each in (pair.before, pair.after) if each.window is not None]
    size = {} if metres is None else {"raster:spatial_resolution": metres}
    rasters = {
        layer.key: {"href": f"./{pair.name}_{layer.key}.tif", **layer_fields(layer, "geotiff", 0), **size}
        for layer in (SCORES, CHANGED)
    }
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [PROJECTION, RASTER, EO, PROCESSING],
        "id": f"{pair.name}_{pair.before.window_name}_{pair.after.window_name}",
        "geometry": geometry,
        **({} if bbox is None else {"bbox": bbox}),
        "properties": {
            "datetime": None,
            **(_around(windows) if len(windows) == 2 else {}),
            **({} if metres is None else {"gsd": metres}),
            **projection(place),
            "processing:software": {SOFTWARE: __version__},
            **{f"tessera:{key}": about[key] for key in ("before", "after", "false_discovery_rate", "p_value")},
            "tessera:identity": about["embeddings"],
        },
        "links": [],
        "assets": {
            **rasters,
            "patches": {
                "href": f"./{pair.name}_patches.gpkg",
                "type": GEOPACKAGE,
                "title": "Patches that have changed",
                "roles": ["data"],
            },
        },
    }


def _around(windows: list[Window]) -> dict[str, str]:
    found = [times(window) for window in windows]
    ends = "start_datetime", "end_datetime"
    return {key: choose(each[key] for each in found) for key, choose in zip(ends, (min, max), strict=True)}
