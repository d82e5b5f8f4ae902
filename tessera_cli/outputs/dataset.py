"""A folder of embeddings as a lazy xarray Dataset, by odc-stac over the folder's own STAC items."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import rasterio.warp
import shapely
from affine import Affine

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.window import Window
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import LAYERS, NOT_REQUESTED, RUN
from tessera_cli.outputs.tags import SOFTWARE

if TYPE_CHECKING:
    import xarray
    from odc.geo.geobox import GeoBox

logger = logging.getLogger(__name__)

CHUNKS: Mapping[str, int] = {"y": 512, "x": 512}
EARTH_RADIUS = 6_371_007  # metres
_EPOCH = "1970-01-01T00:00:00Z"
_DIMS = {"embedding": ("band", "y", "x"), "counts": ("sensor", "y", "x"), "scales": ("y", "x")}

WindowLike = Window | int | str
Found = tuple[TileRecord, dict[str, Any], Path]
"""A record, the item that it was read from, and its file."""


def open_embeddings(
    folder: str | PathLike[str],
    *,
    windows: WindowLike | Iterable[WindowLike] | None = None,
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
        sensor, y, x), the observations used of s2, s1_asc and s1_desc (65535 where none were asked for). `time` is the
        first day of each window, `window` its name; model, weights, source and the like are attributes.

    Raises:
        UsageError: the folder, a window or the coordinate system cannot be used.
        NothingToEmbedError: no tile holds an embedding, or none in `bbox`.
    """
    import odc.stac
    import pystac

    found = _wanted(Path(folder), _records(Path(folder)), windows)
    geobox, reprojected = _geobox(Path(folder), [record for record, _, _ in found], bbox, crs, epsg)
    first = found[0][0]
    layers = LAYERS[first.format, first.dtype]
    names = {"band": list(layers[0].bands(first.dims)), "sensor": list(layers[-1].names)}
    items = []
    for _, item, path in found:
        time = {"start_datetime": _EPOCH, "end_datetime": _EPOCH}  # of a window that is not known; pystac wants one
        items.append(
            pystac.Item.from_dict(
                {**item, "collection": None, "links": [], "properties": {**time, **item["properties"]}}
            )
        )
        items[-1].set_self_href(str(path.resolve()))
    keys = {record.name: _period(record) for record, _, _ in found}
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
    loaded = loaded.assign_coords(
        time=("time", np.array([start or "NaT" for start, _, _ in periods], "datetime64[ns]")),
        window=("time", [name for _, _, name in periods]),
    )
    data = _masked(loaded, min_s2)
    if dequantise and "scales" in data:
        data["embedding"] = data["embedding"].astype(np.float32) * data["scales"]
        data = data.drop_vars("scales")
    _describe(data)
    data.attrs = _provenance([record for record, _, _ in found], periods) | reprojected
    return data


def _records(folder: Path) -> list[Found]:
    """Return the finished tiles of the folder that hold embeddings, after a look at their files."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Give the folder that `tessera embed` wrote.")
    run = _read(folder / RUN) if (folder / RUN).exists() else {}
    if (content := run.get("identity", {}).get("content", "embeddings")) != "embeddings":
        raise UsageError(f"{folder} holds {content}, not embeddings. `open_dpixels` opens d-pixels.")
    found, empty = [], 0
    for path in sorted(folder.glob("*.json")):
        item = _read(path)
        if item.get("type") != "Feature":
            continue
        try:
            record = TileRecord.from_item(item)
        except UsageError as error:
            raise UsageError(f"{path} is no record of embeddings. Remove it.") from error
        if record.status == "empty":
            empty += 1
            continue
        if record.format != "geotiff":
            raise UsageError(f"{folder} holds arrays (--format npy). Open them with numpy.load, or embed to geotiff.")
        for asset in record.assets:
            file = folder / asset.name
            if not file.is_file() or file.stat().st_size != asset.size:
                raise UsageError(f"{file} is absent or incomplete. Run the command that wrote it again.")
        found.append((record, item, path))
    if not found and empty:
        raise NothingToEmbedError(f"{folder}: all tiles are empty, no pixel had enough observations to be embedded.")
    if not found and run:
        raise NothingToEmbedError(f"{folder}: no tile is finished. Run the command that wrote it again.")
    if not found:
        raise UsageError(f"{folder} holds no embeddings. Give the folder that `tessera embed` wrote.")
    identities = {json.dumps(record.identity, sort_keys=True) for record, _, _ in found}
    if len(identities) > 1:
        raise UsageError(f"{folder} mixes tiles of {len(identities)} settings. Open them from folders of their own.")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read. Run the command that wrote it again.") from error


def _wanted(folder: Path, found: list[Found], windows: Any) -> list[Found]:
    """Return the records of these windows, all of which the folder must hold."""
    if windows is None:
        return found
    one = isinstance(windows, (Window, int, str))
    wanted = {_window(value) for value in ([windows] if one else windows)}
    there = {record.window for record, _, _ in found}
    if missing := wanted - there:
        held = ", ".join(sorted(window.name for window in there if window)) or "none with a date"
        raise UsageError(
            f"{folder} has no embeddings of {', '.join(w.name for w in sorted(missing))}. Its windows: {held}."
        )
    return [one for one in found if one[0].window in wanted]


def _window(value: WindowLike) -> Window:
    if isinstance(value, Window):
        return value
    if "/" in str(value):
        return Window.parse(str(value))
    try:
        return Window.from_name(str(value))
    except ValueError as error:
        raise UsageError(f"{value!r} is no window. Write 2023, 20230701-20240630 or 2023-07/2024-06.") from error


def _period(record: TileRecord) -> tuple[str, str, str]:
    """Return first day, last day and name of the window; empty where it is not known."""
    window = record.window
    return ("", "", "") if window is None else (str(window.start), str(window.end), window.name)


def _geobox(
    folder: Path,
    records: Sequence[TileRecord],
    bbox: tuple[float, float, float, float] | None,
    crs: str | int | None,
    epsg: int | None,
) -> tuple[GeoBox, dict[str, str]]:
    """Return the grid of the result, and what to say of a reprojection: nothing where tiles lie on it as they are."""
    from odc.geo.geobox import GeoBox

    if crs is not None and epsg is not None:
        raise UsageError("Give crs or epsg, not both.")
    lattices: set[tuple[str, float, float, float]] = set()
    for record in records:
        tile = record.tile
        assert tile.crs is not None  # no GeoTIFF is without
        assert tile.transform is not None
        step = tile.transform.a
        lattices.add((tile.crs, step, tile.transform.c % step, tile.transform.f % step))
    zones = sorted({lattice[0] for lattice in lattices})
    try:
        target = None if crs is None and epsg is None else pyproj.CRS.from_user_input(crs if epsg is None else epsg)
    except pyproj.exceptions.CRSError as error:
        raise UsageError(
            f"{epsg or crs} is no coordinate system that pyproj knows. Give a code: epsg=32631."
        ) from error
    if target is None and len(lattices) > 1:
        raise UsageError(
            f"{folder} holds {', '.join(zones) if len(zones) > 1 else 'several grids of ' + zones[0]}. "
            f"Choose the coordinate system of the result: epsg={zones[0].removeprefix('EPSG:')}, or crs=."
        )
    target = target or pyproj.CRS(zones[0])
    own = {zone for zone in zones if pyproj.CRS(zone) == target}
    native = own == set(zones) and len(lattices) == 1
    step, x0, y0 = _ten_metres(target), 0.0, 0.0
    if native:
        ((_, step, x0, y0),) = lattices
    name = f"EPSG:{target.to_epsg()}" if target.to_epsg() else target.to_wkt()
    tile_bounds = [
        r.tile.bounds if r.tile.crs in own else rasterio.warp.transform_bounds(r.tile.crs, name, *r.tile.bounds)
        for r in records
    ]
    west, south, east, north = shapely.total_bounds([shapely.box(*bounds) for bounds in tile_bounds])
    if bbox is not None:
        Aoi.from_bbox(*bbox)  # its checks
        box = shapely.box(bbox[0], bbox[1], bbox[2] + 360 * (bbox[2] < bbox[0]), bbox[3])
        to_target = pyproj.Transformer.from_crs(4326, target, always_xy=True).transform
        requested = shapely.transform(shapely.segmentize(box, 0.05), to_target, interleaved=False)
        if not any(requested.intersects(shapely.box(*bounds)) for bounds in tile_bounds):
            raise NothingToEmbedError(f"{folder} has no tile in bbox {bbox}.")
        west, south, east, north = requested.bounds
    left, right = math.floor((west - x0) / step + 1e-6), math.ceil((east - x0) / step - 1e-6)
    bottom, top = math.floor((south - y0) / step + 1e-6), math.ceil((north - y0) / step - 1e-6)
    geobox = GeoBox((top - bottom, right - left), Affine(step, 0, x0 + left * step, 0, -step, y0 + top * step), name)
    if native:
        return geobox, {}
    told = f"{', '.join(zones)} to {name.partition('[')[0]} by nearest neighbour"
    logger.warning("%s: pixels are reprojected from %s", folder, told)
    return geobox, {"reprojected": told}


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
    for name in {"embedding", "scales"} & set(data):
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
