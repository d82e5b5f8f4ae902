"""Read vector files: GeoJSON, GeoPackage, Shapefile or whatever else pyogrio reads."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from tessera_cli.errors import UsageError, reason

logger = logging.getLogger(__name__)


def read_vector(path: Path, *, columns: bool = True) -> tuple[CRS, np.ndarray, dict[str, np.ndarray]]:
    """Return CRS, geometries (N,) and columns by name, (N,) each, of the first layer with geometries.

    Raises UsageError for a file that is no vector data or declares no CRS.
    """
    import pyogrio
    from pyogrio.errors import DataSourceError

    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) > 1:
            logger.warning("%s holds %d layers; the first one, %s, is taken", path, len(layers), layers[0])
        layer = layers[0] if layers else None
        meta, _, wkb, values = pyogrio.raw.read(path, layer=layer, columns=None if columns else [])
        geometries = np.array([], object) if wkb is None else shapely.from_wkb(wkb)
    except (DataSourceError, ValueError, OSError, shapely.errors.ShapelyError) as error:
        why = reason(error).partition(";")[0].rstrip(".")  # what follows is about drivers
        raise UsageError(f"{path} cannot be read as vector data: {why}. Give GeoJSON or GeoPackage.") from error
    return _crs(path, meta["crs"]), geometries, dict(zip(meta["fields"].tolist(), values, strict=True))


def _crs(path: Path, declared: str | None) -> CRS:
    try:
        crs = CRS.from_user_input(declared) if declared else None
    except CRSError:
        crs = None
    if crs is None or crs.is_engineering or "undefined" in crs.name.lower():
        raise UsageError(f"{path} declares no CRS, so its place on Earth is unknown. Assign one (.prj or layer CRS).")
    return crs
