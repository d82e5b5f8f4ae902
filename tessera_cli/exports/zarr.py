"""Target `zarr`: a consolidated Zarr v3 store, a group per UTM zone, in the layout of the published store.

That is the one of the embeddings convention (`geoemb:`), which geotessera's GeoTesseraZarr opens. Beside it stand what
xarray and rioxarray look for: the coordinate system as CF has it, and names of dimensions.
"""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from affine import Affine

from tessera_cli.embeddings.grid import Grid
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.part import Advance, Part
from tessera_cli.exports.request import ExportRequest
from tessera_cli.files import write_json
from tessera_cli.outputs.layers import FORMULA
from tessera_cli.outputs.tags import SOFTWARE, model_url
from tessera_cli.reading import read_json

CHUNK, SHARD = 32, 512
"""Sides of the chunks, which are decoded by themselves, and of the files, which are those of a tile."""
SOUTH = 10_000_000
"""Metres by which northings of the southern hemisphere are shifted."""
GEOEMB = {
    "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "name": "geoemb:",
    "description": "Geoembeddings convention for geospatial embedding arrays with model provenance",
    "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
    "schema_url": "https://raw.githubusercontent.com/geo-embeddings/embeddings-zarr-convention/refs/tags/v1/schema.json",
}
PLACE = [
    {
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "name": name,
        "description": description,
    }
    for uuid, name, description in (
        ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial", "Spatial coordinate information"),
        (
            "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "proj",
            "Coordinate reference system information for geospatial data",
        ),
    )
]


@dataclass(frozen=True, eq=False)
class Zone:
    """A group of the store: the mosaics of one zone on one grid, by window."""

    name: str
    grid: Grid
    mosaics: tuple[Mosaic, ...]

    @functools.cached_property
    def windows(self) -> list[str]:
        return sorted({mosaic.window_name for mosaic in self.mosaics})


def parts(request: ExportRequest) -> Iterator[Part]:
    """Yield the store's frame, the pixels of each zone and window, and its list of contents."""
    zones = _zones(request.mosaics)
    yield Part((), functools.partial(_create, request, zones))
    for zone in zones:
        for mosaic in zone.mosaics:
            size = mosaic.pixels * (request.dims + 4)
            index = zone.windows.index(mosaic.window_name)
            write = functools.partial(_fill, zone, mosaic, index)
            yield Part((zone.name,), write, zone.grid.pixels, bytes=size)
    yield Part((), _consolidate)


def _zones(mosaics: Sequence[Mosaic]) -> list[Zone]:
    """Group mosaics by zone, on grids whose corners are those of shards.

    Where a zone has tiles of both hemispheres, the southern ones get negative northings, as in the published store.
    """
    zones = []
    for name, group in itertools.groupby(sorted(mosaics, key=_zone_name), key=_zone_name):
        of_zone = list(group)
        if len({mosaic.grid.crs for mosaic in of_zone}) > 1:
            of_zone = [_northern(mosaic) for mosaic in of_zone]
        if len({_corner(mosaic.grid) for mosaic in of_zone}) > 1:
            raise UsageError(f"the tiles of {name} lie on different grids of pixels. Export to cog.")
        grid = _around([mosaic.grid for mosaic in of_zone])
        zones.append(Zone(name, grid, tuple(mosaic.on(grid) for mosaic in of_zone)))
    return zones


def _corner(grid: Grid) -> tuple[float, float, float]:
    """Return what grids of one lattice share."""
    step = grid.transform.a
    return step, grid.transform.c % step, grid.transform.f % step


def _zone_name(mosaic: Mosaic) -> str:
    """Return utm31 for utm31n and utm31s; other names stay."""
    return re.sub(r"^(utm\d\d)[ns]$", r"\1", mosaic.name)


def _northern(mosaic: Mosaic) -> Mosaic:
    epsg = mosaic.grid.epsg
    if epsg is None or epsg < 32700:
        return mosaic
    moved = Affine.translation(0, -SOUTH) * mosaic.grid.transform
    return replace(mosaic, grid=replace(mosaic.grid, crs=f"EPSG:{epsg - 100}", transform=moved))


def _around(grids: Sequence[Grid]) -> Grid:
    """Return the grid around all of them, from a corner of the tiles' grid on, in whole shards."""
    step = grids[0].transform.a
    first = grids[0]
    boxes = [first.box_of(grid) for grid in grids]
    left, top = (round(value) for value in ((first.transform.c // step), (first.transform.f // step)))
    west = min(box[1].start for box in boxes)
    west -= (left + west) % SHARD
    north = min(box[0].start for box in boxes)
    north -= -(top - north) % SHARD
    south, east = max(box[0].stop for box in boxes), max(box[1].stop for box in boxes)
    height, width = (-(-size // SHARD) * SHARD for size in (south - north, east - west))
    return first.part((slice(north, north + height), slice(west, west + width)))


def _create(request: ExportRequest, zones: Sequence[Zone], folder: Path, advance: Advance) -> None:
    import zarr

    root = zarr.open_group(folder, mode="w", zarr_format=3)
    root.attrs.update(_root_attributes(request))
    for zone in zones:
        group = root.create_group(zone.name, attributes=_zone_attributes(zone))
        times, height, width = len(zone.windows), *zone.grid.shape
        placed = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
        create = functools.partial(_create_array, group)
        create(
            "embeddings",
            (times, request.dims, height, width),
            "int8",
            0,
            ("time", "band", "y", "x"),
            {
                "long_name": "Embedding codes",
                "formula": FORMULA.replace("code", "embeddings").replace("scale", "scales"),
                **placed,
            },
            chunks=(1, request.dims, CHUNK, CHUNK),
            shards=(1, request.dims, SHARD, SHARD),
        )
        create(
            "scales",
            (times, height, width),
            "float32",
            np.nan,
            ("time", "y", "x"),
            {"long_name": "Scale of the codes; NaN: no embedding", **placed},
            chunks=(1, CHUNK, CHUNK),
            shards=(1, SHARD, SHARD),
        )
        for name, values, attributes in _coordinates(request, zone):
            array = create(name, values.shape, str(values.dtype), 0, (name,) * values.ndim, attributes)
            array[...] = values


def _create_array(
    group: Any,
    name: str,
    shape: Sequence[int],
    dtype: str,
    fill: float,
    dims: Sequence[str],
    attributes: Any,
    **layout: Any,
) -> Any:
    from zarr.codecs import BloscCodec

    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        fill_value=fill,
        dimension_names=list(dims),
        attributes=attributes,
        compressors=BloscCodec(cname="zstd", clevel=3),
        **layout,
    )


def _coordinates(request: ExportRequest, zone: Zone) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Yield name, values and attributes of the coordinates.

    Time is the year where every window is one, as geotessera wants it, else the first day.
    """
    (height, width), transform = zone.grid.shape, zone.grid.transform
    x = transform.c + (np.arange(width) + 0.5) * transform.a
    y = transform.f + (np.arange(height) + 0.5) * transform.e
    yield "x", x, {"units": "m", "standard_name": "projection_x_coordinate"}
    yield "y", y, {"units": "m", "standard_name": "projection_y_coordinate"}
    yield "band", np.arange(request.dims, dtype=np.int32), {}
    windows = {mosaic.window_name: mosaic.window for mosaic in zone.mosaics}
    found = [windows[name] for name in zone.windows]
    if all(window is not None and window.is_year for window in found):
        yield "time", np.array([window.start.year for window in found if window], np.int32), {"long_name": "Year"}
    else:
        days = [np.datetime64(window.start if window else "1970-01-01", "D").astype(np.int64) for window in found]
        units = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
        yield "time", np.array(days, np.int64), {"long_name": "First day", "standard_name": "time", **units}
    crs = pyproj.CRS(zone.grid.crs)
    yield "spatial_ref", np.array(0, np.int32), {**crs.to_cf(), "GeoTransform": " ".join(map(str, transform.to_gdal()))}


def _fill(zone: Zone, mosaic: Mosaic, index: int, folder: Path, advance: Advance) -> None:
    """Write a window's pixels, a shard at a time: 34 MB of 128 codes."""
    import zarr

    group: Any = zarr.open_group(folder, mode="r+", path=zone.name, use_consolidated=False)
    for box in zone.grid.boxes(SHARD):
        found = mosaic.codes(box, gap=0)
        if found is not None:
            group["embeddings"][(index, slice(None), *box)] = found[0]
            group["scales"][(index, *box)] = found[1]
        advance(_size(box))


def _size(box: Box) -> int:
    return (box[0].stop - box[0].start) * (box[1].stop - box[1].start)


def _consolidate(folder: Path, advance: Advance) -> None:
    """Put the metadata of all arrays into the root's, so that readers of a web server find them."""
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")  # not yet in the specification of Zarr v3
        zarr.consolidate_metadata(folder)
    root = read_json(folder / "zarr.json")
    listed = root["consolidated_metadata"]
    listed["metadata"] = dict(sorted(listed["metadata"].items()))  # Zarr 3.0 lists them as they come
    write_json(folder / "zarr.json", root)


def _root_attributes(request: ExportRequest) -> dict[str, Any]:
    first = request.folder.first
    identity: Mapping[str, Any] = first.identity
    return {
        "zarr_conventions": [GEOEMB],
        "geoemb:type": "pixel",
        "geoemb:dimensions": request.dims,
        "geoemb:model": model_url(identity["model"]),
        "geoemb:source_data": [
            "https://sentinel.esa.int/web/sentinel/missions/sentinel-1",
            "https://sentinel.esa.int/web/sentinel/missions/sentinel-2",
        ],
        "geoemb:data_type": "int8",
        "geoemb:gsd": 10.0,
        "geoemb:spatial_layout": "utm_zones",
        "geoemb:build_version": first.software,
        "geoemb:quantization": {
            "method": "per_pixel_scale",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
            "scale": {"type": "array", "array_name": "scales", "nodata": "NaN"},
        },
        "tessera:software": f"{SOFTWARE} {first.software}",
        **dict(request.tags(replace(request.mosaics[0], window=None))),
    }


def _zone_attributes(zone: Zone) -> dict[str, Any]:
    grid = zone.grid
    code = {"proj:code": grid.crs} if grid.epsg else {"proj:wkt2": grid.crs}
    return {
        "zarr_conventions": PLACE,
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": list(grid.bounds),
        "spatial:transform_type": "affine",
        "spatial:transform": list(grid.transform)[:6],
        "spatial:shape": list(grid.shape),
        "spatial:registration": "pixel",
        **code,
        "geotessera:mask_source": "source_nodata",  # NaN: not embedded; without it geotessera takes it for water
        "tessera:windows": zone.windows,
    }
