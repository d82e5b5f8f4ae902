"""COGs and STAC items as Planetary Computer lays them out, with relative hrefs."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from tessera_cli.simulate.area import EPSG, lonlat
from tessera_cli.simulate.orbits import Overpass

Json = dict[str, Any]
_EXTENSIONS = {
    "sentinel-2-l2a": ("eo/v1.1.0", "sat/v1.0.0", "projection/v1.1.0"),
    "sentinel-1-rtc": ("sar/v1.0.0", "sat/v1.0.0", "projection/v1.1.0", "raster/v1.1.0"),
}


def write_cog(path: Path, band: np.ndarray, transform: Affine, nodata: float | None) -> None:
    """One band (H, W). A tiled GeoTIFF written in one go is a COG without overviews; the COG driver is slower."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = band.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=band.dtype, crs=f"EPSG:{EPSG}",
        transform=transform, nodata=nodata, tiled=True, blockxsize=256, blockysize=256, compress="deflate", zlevel=1,
    ) as file:  # fmt: skip
        file.write(band, 1)


class Layer(NamedTuple):
    """One asset: values (H, W) in the type of the file, and the fields that are special to it in the item."""

    values: np.ndarray
    transform: Affine
    nodata: float | None
    fields: Json


def write_item(
    out: Path, collection: str, name: str, at: Overpass, footprint: BaseGeometry, layers: dict[str, Layer], **more: Any
) -> Json:
    """Write one product's COGs; returns its STAC item. `footprint` in metres, `more` properties."""
    for key, layer in layers.items():
        write_cog(out / "cogs" / name / f"{key}.tif", layer.values, layer.transform, layer.nodata)
    geometry = lonlat(footprint)
    orbit = {"sat:orbit_state": at.state, "sat:relative_orbit": at.relative, "proj:epsg": EPSG}
    kind = {"type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{e}/schema.json" for e in _EXTENSIONS[collection]],
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(geometry),
        "bbox": list(geometry.bounds),
        "properties": {**more, **orbit},
        "links": [],
        "assets": {key: {"href": f"./cogs/{name}/{key}.tif", **kind, **layer.fields} for key, layer in layers.items()},
    }


def timestamp(when: dt.datetime) -> str:
    """`2023-01-03T10:56:31.024000Z`: always with microseconds."""
    return when.isoformat(timespec="microseconds") + "Z"


def write_features(path: Path, features: list[Json], **members: Any) -> None:
    """A GeoJSON FeatureCollection (an ItemCollection, if the features are items); it appears whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}))
    part.replace(path)
