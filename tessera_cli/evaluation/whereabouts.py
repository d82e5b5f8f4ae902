"""Labels that lie elsewhere: where they are, and where the embeddings are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from pyproj import Transformer

from tessera_cli.errors import counted
from tessera_cli.evaluation.sources.label_file import AnyLabels
from tessera_cli.evaluation.sources.source import Bounds, Source
from tessera_cli.extent.raster import open_raster
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.polygons import PolygonLabels


def elsewhere(source: Source, labels: AnyLabels, path: Path) -> str:
    """Return the line of the error for labels of which none lies on a pixel with an embedding."""
    there, here = _bounds(labels, path), source.bounds
    lon, lat = (there[0] + there[2]) / 2, (there[1] + there[3]) / 2
    apart = not shapely.box(*there).intersects(shapely.box(*here))
    hint = (
        "Give labels of the same area." if apart else "Nothing was embedded under them: embed an area that holds them."
    )
    if apart and here[0] <= lat <= here[2] and here[1] <= lon <= here[3]:
        hint = "Longitude and latitude are swapped: longitude comes first."
    return (
        f"{path} labels no pixel of {source.origin}: the labels lie in {_text(there)} and the embeddings in "
        f"{_text(here)} (west, south, east, north in degrees). {hint}"
    )


def unused_polygons(labels: AnyLabels, path: Path) -> list[str]:
    """Return a line that counts polygons without a pixel, if there are any."""
    if not isinstance(labels, PolygonLabels) or labels.used.all():
        return []
    return [
        f"{path}: {(~labels.used).sum():,} of {counted(len(labels.used), 'polygon')} hold no pixel with an embedding"
    ]


def _text(bounds: Bounds) -> str:
    return " ".join(f"{each:.3f}" for each in bounds)


def _bounds(labels: AnyLabels, path: Path) -> Bounds:
    if isinstance(labels, PointLabels):
        return _four((*labels.lonlat.min(axis=0), *labels.lonlat.max(axis=0)))
    if isinstance(labels, PolygonLabels):
        bounds = shapely.total_bounds(labels.tree.geometries)
    else:
        with open_raster(path) as src:
            bounds = np.array(src.bounds)
    return _four(Transformer.from_crs(labels.crs, 4326, always_xy=True).transform_bounds(*bounds))


def _four(bounds: tuple[float, ...]) -> Bounds:
    west, south, east, north = map(float, bounds)
    return west, south, east, north
