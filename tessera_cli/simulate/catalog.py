"""Write COGs and STAC items in the layout of Planetary Computer, with relative hrefs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from tessera_cli.files import write_bytes
from tessera_cli.simulate.area import lonlat
from tessera_cli.simulate.orbits import Overpass

Json = dict[str, Any]
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def write_cog(path: Path, band: np.ndarray, grid: GeoBox, nodata: float | None, **fields: Any) -> Json:
    """Write one band (H, W) to OUT/cogs/PRODUCT/KEY.tif; return its STAC asset with the given fields."""
    # A tiled GeoTIFF written in one go is a COG without overviews; the COG driver is slower.
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
    place = {"width": grid.width, "height": grid.height, "crs": str(grid.crs), "transform": grid.affine}
    with rasterio.open(path, "w", "GTiff", count=1, dtype=band.dtype, nodata=nodata, **place, **layout) as file:
        file.write(band, 1)
    kind = {"type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"]}
    return {"href": f"./cogs/{path.parent.name}/{path.name}", **kind, **fields}


def stac_item(
    collection: str, name: str, at: Overpass, seen: BaseGeometry, epsg: int, assets: Json, **properties: Any
) -> Json:
    """Return the STAC item of one product that covers `seen` (metres of the zone)."""
    extensions = ("eo/v1.1.0", "sat/v1.0.0", "sar/v1.0.0", "projection/v1.1.0", "raster/v1.1.0")
    geometry = lonlat(seen, epsg)
    orbit = {"sat:orbit_state": at.state, "sat:relative_orbit": at.relative, "proj:epsg": epsg}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{extension}/schema.json" for extension in extensions],
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(geometry),
        "bbox": list(geometry.bounds),
        "properties": {"datetime": f"{at.when:{TIME}}", **orbit, **properties},
        "links": [],
        "assets": assets,
    }


def write_features(path: Path, features: list[Json]) -> None:
    """Write a GeoJSON FeatureCollection; an ItemCollection if the features are items."""
    write_bytes(path, json.dumps({"type": "FeatureCollection", "features": features}).encode())
