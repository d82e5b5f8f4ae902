"""Rasters of made-up embeddings and labels for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine

from tessera_cli.extent.grid import from_utm

EAST, NORTH = 600_000, 5_620_000
"""The upper left corner of the rasters, in UTM zone 31."""
TRANSFORM = Affine(10, 0, EAST, 0, -10, NORTH)


def write_tiff(path: Path, values: np.ndarray, *, transform: Affine = TRANSFORM, crs: Any = 32631, **own: Any) -> Path:
    """Write (D, H, W) or (H, W); `own`: nodata, scales, offsets, tags."""
    bands = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype,
        "crs": crs, "transform": transform, "nodata": own.get("nodata"),
        "tiled": True, "blockxsize": 32, "blockysize": 32,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(bands)
        for name in ("scales", "offsets"):
            if name in own:
                setattr(dst, name, own[name])
        dst.update_tags(**own.get("tags", {}))
    return path


def lonlat_of(rows: Any, columns: Any, transform: Affine = TRANSFORM, epsg: int = 32631) -> np.ndarray:
    """Positions in degrees of the centres of pixels, (N, 2)."""
    x, y = transform * (np.asarray(columns) + 0.5, np.asarray(rows) + 0.5)
    return np.stack(from_utm(epsg).transform(x, y), axis=-1)


def box_of(rows: slice, columns: slice) -> shapely.Polygon:
    """The polygon in degrees around pixels."""
    left, top = TRANSFORM * (columns.start, rows.start)
    right, bottom = TRANSFORM * (columns.stop, rows.stop)
    return shapely.transform(shapely.box(left, bottom, right, top), from_utm(32631).transform, interleaved=False)


def write_geojson(path: Path, geometries: list[Any], **columns: Any) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {name: values[number] for name, values in columns.items()},
            "geometry": None if geometry is None else shapely.geometry.mapping(geometry),
        }
        for number, geometry in enumerate(geometries)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path
