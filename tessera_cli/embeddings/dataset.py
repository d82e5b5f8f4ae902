"""A folder of embeddings as a lazy xarray Dataset, by odc-stac over the folder's own STAC items."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import rasterio.warp
import shapely

from tessera_cli.embeddings.folder import EmbeddingFolder, Windows
from tessera_cli.embeddings.grid import grid_around
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import COUNTS, NOT_REQUESTED, UNCERTAINTY, layers_of
from tessera_cli.outputs.tags import SOFTWARE

if TYPE_CHECKING:
    import xarray
    from odc.geo.geobox import GeoBox

logger = logging.getLogger(__name__)

CHUNKS: Mapping[str, int] = {"y": 512, "x": 512}
EARTH_RADIUS = 6_371_007  # metres
_EPOCH = "1970-01-01T00:00:00Z"
_DIMS = {
    "embeddings": ("band", "y", "x"),
    "counts": ("sensor", "y", "x"),
    "scales": ("y", "x"),
    "uncertainty": ("y", "x"),
}


def open_embeddings(
    folder: str | PathLike[str],
    *,
    windows: Windows = None,
    bbox: tuple[float, float, float, float] | None = None,
    crs: str | int | None = None,
    epsg: int | None = None,
    chunks: Mapping[str, int] | None = CHUNKS,
    dequantise: bool = True,
    min_s2: int = 0,
) -> xarray.Dataset:
    """Open a folder that `embed` wrote as one xarray Dataset over all of its tiles and windows.

    Args:
        folder: the output folder; of format geotiff, since arrays (npy) have no place on the map.
        windows: those wanted, such as 2023, "2023", "20230701-20240630" or "2023-07/2024-06"; None: all.
        bbox: west, south, east, north in degrees; west > east crosses the antimeridian. None: all tiles.
        crs: the coordinate system of the result, in any form that pyproj knows; its pixels are 10 m wide. Needed where
            the folder holds several UTM zones. Pixels of another system are taken from the nearest one, which a warning
            and the attribute `reprojected` say.
        epsg: the same as a number.
        chunks: dask chunks along time, band, y and x; None reads everything now.
        dequantise: True gives float32 embeddings. False gives the int8 codes as stored (-128: none) and their `scales`;
            an embedding is code * scale. Folders of dtype float32 have neither codes nor scales.
        min_s2: clear Sentinel-2 observations that a pixel needs; those with fewer become NaN.

    Returns:
        A Dataset with `embedding`, float32 (time, band, y, x), NaN where there is none, and `counts`, uint16 (time,
        sensor, y, x), the observations used of s2, s1_asc and s1_desc (65535 where none were asked for); `uncertainty`,
        float32 (time, y, x), where the folder has it. `time` is the first day of each window, `window` its name; model,
        weights, source and the like are attributes.

    Raises:
        UsageError: the folder, a window or the coordinate system cannot be used.
        NothingToEmbedError: no tile holds an embedding, or none in `bbox`.
    """
    import odc.stac
    import pystac

    opened = EmbeddingFolder.open(folder, windows, formats=("geotiff",))
    path, records = opened.path, [tile.record for tile in opened.tiles]
    if crs is not None and epsg is not None:
        raise UsageError("Give crs or epsg, not both.")
    target, lattice, reprojected = _target(path, records, crs if epsg is None else epsg)
    geobox = _geobox(target, lattice, _bounds(path, records, bbox, target))
    first = records[0]
    layers = layers_of(first.identity)
    names = {"band": list(layers[0].bands(first.dims)), "sensor": list(COUNTS.names)}
    items = []
    for tile in opened.tiles:
        item = tile.record.to_item()
        told = {key: value for key, value in item["properties"].items() if not key.startswith("tessera:")}  # long lists
        time = {"start_datetime": _EPOCH, "end_datetime": _EPOCH}  # of a window that is not known; pystac wants one
        items.append(
            pystac.Item.from_dict({**item, "collection": None, "properties": {**time, **told}}, preserve_dict=False)
        )
        items[-1].set_self_href(str(tile.item_path.resolve()))
    keys = {record.name: _period(record) for record in records}
    loaded = odc.stac.load(
        items,
        bands=[layer.key for layer in layers],
        geobox=geobox,
        chunks=None if chunks is None else dict(chunks),
        groupby=lambda item, parsed, index: keys[item.id],
        resampling="nearest",
        stac_cfg={
            "assets": {
                layer.key: {"data_type": layer.dtype, "nodata": layer.nodata, "dims": _DIMS[layer.key]}
                for layer in layers
            },
            "coords": names,
        },
    )
    periods = sorted(set(keys.values()))
    loaded = loaded.rename({layers[0].key: "embedding"}).assign_coords(
        time=("time", np.array([start or "NaT" for start, _, _ in periods], "datetime64[ns]")),
        window=("time", [name for _, _, name in periods]),
    )
    data = _masked(loaded, min_s2)
    if dequantise and "scales" in data:
        data["embedding"] = data["embedding"].astype(np.float32) * data["scales"]
        data = data.drop_vars("scales")
    _describe(data)
    data.attrs = _provenance(records, periods) | reprojected
    return data


def _period(record: TileRecord) -> tuple[str, str, str]:
    """Return first day, last day and name of the window; empty where it is not known."""
    window = record.window
    return ("", "", "") if window is None else (str(window.start), str(window.end), window.name)


def _target(
    folder: Path, records: Sequence[TileRecord], crs: str | int | None
) -> tuple[pyproj.CRS, tuple[float, float, float], dict[str, str]]:
    """Return coordinate system and lattice of the result, and what to say of a reprojection, if there is one.

    The lattice is pixel size and offset of the grid from zero in x and y. Tiles that share theirs are left on it.
    """
    lattices: set[tuple[str, float, float, float]] = set()
    for record in records:
        tile = record.tile
        assert tile.crs is not None  # no GeoTIFF is without
        assert tile.transform is not None
        step = tile.transform.a
        lattices.add((tile.crs, step, tile.transform.c % step, tile.transform.f % step))
    zones = sorted({lattice[0] for lattice in lattices})
    if crs is None and len(lattices) > 1:
        raise UsageError(
            f"{folder} holds {', '.join(zones) if len(zones) > 1 else 'several grids of ' + zones[0]}. "
            f"Choose the coordinate system of the result: epsg={zones[0].removeprefix('EPSG:')}, or crs=."
        )
    try:
        target = pyproj.CRS.from_user_input(zones[0] if crs is None else crs)
    except pyproj.exceptions.CRSError as error:
        raise UsageError(f"{crs} is no coordinate system that pyproj knows. Give a code: epsg=32631.") from error
    if len(lattices) == 1 and pyproj.CRS(zones[0]) == target:
        ((_, *lattice),) = lattices
        return target, (lattice[0], lattice[1], lattice[2]), {}
    told = f"{', '.join(zones)} to {_name(target).partition('[')[0]} by nearest neighbour"
    logger.warning("%s: pixels are reprojected from %s", folder, told)
    return target, (_ten_metres(target), 0.0, 0.0), {"reprojected": told}


def _bounds(
    folder: Path, records: Sequence[TileRecord], bbox: tuple[float, float, float, float] | None, target: pyproj.CRS
) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the box in degrees, else of all tiles, in the units of `target`."""
    places = [shapely.box(*rasterio.warp.transform_bounds(r.tile.crs, _name(target), *r.tile.bounds)) for r in records]
    if bbox is None:
        west, south, east, north = shapely.total_bounds(places)
        return west, south, east, north
    Aoi.from_bbox(*bbox)  # its checks
    box = shapely.box(bbox[0], bbox[1], bbox[2] + 360 * (bbox[2] < bbox[0]), bbox[3])
    to_target = pyproj.Transformer.from_crs(4326, target, always_xy=True).transform
    asked = shapely.transform(shapely.segmentize(box, 0.05), to_target, interleaved=False)
    if not any(asked.intersects(place) for place in places):
        raise NothingToEmbedError(f"{folder} has no tile in bbox {bbox}.")
    return asked.bounds


def _geobox(
    target: pyproj.CRS, lattice: tuple[float, float, float], bounds: tuple[float, float, float, float]
) -> GeoBox:
    """Return the grid of the result: the pixels of the lattice that the bounds touch."""
    from odc.geo.geobox import GeoBox

    step, x0, y0 = lattice
    grid = grid_around(_name(target), step, bounds, x0=x0, y0=y0)
    return GeoBox(grid.shape, grid.transform, grid.crs)


def _name(crs: pyproj.CRS) -> str:
    return f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_wkt()


def _ten_metres(crs: pyproj.CRS) -> float:
    """Return 10 m in the unit of the axes; of degrees, those along a meridian."""
    unit = crs.axis_info[0].unit_conversion_factor  # metres, or radians
    return 10 / (unit * EARTH_RADIUS if crs.is_geographic else unit)


def _masked(data: xarray.Dataset, min_s2: int) -> xarray.Dataset:
    """Return the data without the embeddings of pixels that have fewer clear Sentinel-2 observations."""
    if min_s2 <= 0:
        return data
    clear = data["counts"].sel(sensor="s2", drop=True)
    enough = (clear >= min_s2) & (clear != NOT_REQUESTED)
    for name in {"embedding", "scales", "uncertainty"} & set(data):
        none = np.array(-128 if data[name].dtype == np.int8 else np.nan, data[name].dtype)
        data[name] = data[name].where(enough, none)
    return data


def _describe(data: xarray.Dataset) -> None:
    """Name the variables, their nodata values and, where arithmetic has lost it, their coordinate system."""
    codes = data["embedding"].dtype == np.int8
    names = {
        "embedding": ("Embedding codes", -128) if codes else ("Embedding", np.nan),
        "scales": ("Scale of the codes, per pixel", np.nan),
        "counts": ("Observations used, per sensor", NOT_REQUESTED),
        "uncertainty": (UNCERTAINTY.title, np.nan),
    }
    for name, variable in data.data_vars.items():
        variable.attrs = dict(zip(("long_name", "nodata"), names[str(name)], strict=True))
        variable.encoding["grid_mapping"] = "spatial_ref"


def _provenance(records: Sequence[TileRecord], periods: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Return what made the embeddings, in values that netCDF and Zarr can hold."""
    identity = records[0].identity
    kept = ("model", "weights_sha256", "source", "preprocessing", "precision", "min_s2", "min_s1", "seed")
    told = {key: identity[key] for key in kept if identity.get(key) is not None}
    told["windows"] = " ".join(name for _, _, name in periods)
    told["software"] = " ".join(sorted({f"{SOFTWARE} {record.software}" for record in records}))
    if notes := sorted({record.note for record in records} - {""}):
        told["note"] = "; ".join(notes)
    return told
