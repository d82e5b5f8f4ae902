"""Describe a folder, a tile, stored d-pixels, a raster, an array, shards or a run of `pretrain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from tessera_cli.arrays import read_layout
from tessera_cli.dpixels import Stored, members
from tessera_cli.dpixels import describe as describe_store
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.errors import TileError, UsageError, plainly
from tessera_cli.extent.grid import AnyTile
from tessera_cli.extent.raster import open_raster
from tessera_cli.folders.owner import record_beside, record_listing
from tessera_cli.folders.run_record import read_or_none
from tessera_cli.inspection.folder_info import describe_folder, remarks
from tessera_cli.inspection.training_info import describe_run, describe_shards
from tessera_cli.models import ModelConfig
from tessera_cli.models.weights import describe_weights, is_weights
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import DPIXELS
from tessera_cli.outputs.vrt import Described, describe_vrt
from tessera_cli.pretraining.data.shards import HEADER
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.reading import is_there, read_file
from tessera_cli.runs.mosaic import MAX_VRT

EXPECTED = (
    "Give a folder of `tessera embed`, `fetch` or `pretrain`, a tile's .json, one of its rasters or arrays, stored "
    "d-pixels, shards, or a weights file."
)


def describe(path: Path, model_config: ModelConfig | None = None) -> Mapping[str, Any]:
    """Return a JSON-ready description. Raises UsageError for anything that is not ours.

    `model_config` tells what a weights file does not record.
    """
    if not is_there(path):
        raise UsageError(f"{path}: no such file or folder. {EXPECTED}")
    if path.is_dir():
        if (path / HEADER).is_file():
            return describe_shards(path)
        if RunFolder(path).config.is_file():
            return describe_run(RunFolder(path))
        return _store(path) if path in members(path) else describe_folder(path, EXPECTED)
    if is_weights(path):
        return describe_weights(path, model_config)
    if path.suffix == ".json":
        return _tile(path)
    if path.suffix == ".npy":
        return _array(path)
    return _raster(path)


def _tile(path: Path) -> Mapping[str, Any]:
    try:
        record = TileRecord.from_item(read_or_none(path))
    except UsageError as error:
        raise UsageError(f"{path} is {error} {EXPECTED}") from error
    if record.holds_dpixels:
        return _recorded_store(record)
    return {
        "tile": record.tile.id,
        "window": None if record.window is None else record.window.name,
        "status": record.status,
        **_origin(record),
        "identity": dict(record.identity),
        "pixels": record.pixels,
        "requested": int(record.requested.sum()),
        "observations": {sensor: seen.to_dict() for sensor, seen in record.observations.items()},
        "scenes": len(record.scenes),
        **remarks(record),
        "files": {asset.role: asset.name for asset in record.assets},
    }


def _store(path: Path) -> Mapping[str, Any]:
    """Describe stored d-pixels from themselves; official folders say little, so the record beside one is read."""
    record = record_beside(path)
    if record is not None and record.identity["format"] == "npy":
        return _recorded_store(record)
    try:
        stored = describe_store(path)
        seen = {sensor: Coverage.of(dates, stored.window) for sensor, dates in stored.dates.items()}
    except TileError as error:
        raise UsageError(str(error)) from error
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    about = {"source": stored.source, "preprocessing": stored.preprocessing, "pixels": stored.count, "bytes": size}
    return _dpixels(stored, seen, store=path.name, **about)


def _recorded_store(record: TileRecord) -> Mapping[str, Any]:
    about = {key: record.identity[key] for key in ("source", "preprocessing")}
    size = sum(asset.size for asset in record.assets)
    return _dpixels(record, record.observations, store=record.store, **about, pixels=record.pixels, bytes=size)


def _dpixels(of: Stored | TileRecord, observations: Mapping[str, Coverage], **about: Any) -> Mapping[str, Any]:
    return {
        "content": DPIXELS,
        "tile": of.tile.id,
        "window": None if of.window is None else of.window.name,
        **_georeference(of.tile),
        **about,
        "observations": {sensor: seen.to_dict() for sensor, seen in observations.items()},
        "holes": dict(of.missing_scenes),
    }


def _array(path: Path) -> Mapping[str, Any]:
    record = record_listing(path)
    if record is None:  # an array says nothing of itself
        raise UsageError(f"{path} is not one of ours: no tile's .json beside it lists it. {EXPECTED}")
    try:
        array = read_layout(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}. Remove it and run again.") from error
    return {
        "array": path.name,
        "tile": record.name,
        **_origin(record),
        "shape": list(array.shape),
        "dtype": str(array.dtype),
    }


def _origin(record: TileRecord) -> dict[str, Any]:
    """Return a tile's georeference and the model of its embeddings."""
    return {
        **_georeference(record.tile),
        "model": record.identity["model"],
        **({"note": record.note} if record.note else {}),
    }


def _georeference(tile: AnyTile) -> dict[str, Any]:
    return {"crs": tile.crs, "bounds": None if tile.transform is None else list(tile.bounds)}


def _raster(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".vrt":  # GDAL would open whatever it names
            vrt = describe_vrt(read_file(path, MAX_VRT).decode())
            return _described(path, vrt, bands=vrt.bands, dtype=vrt.dtype, nodata=vrt.nodata, tags=vrt.tags)
        with open_raster(path) as src:
            return _described(path, src, bands=src.count, dtype=src.dtypes[0], nodata=str(src.nodata), tags=src.tags())
    except (RasterioIOError, OSError, ValueError) as error:
        why = plainly(error)
        raise UsageError(f"{path} is neither a raster nor a record of ours: {why}. {EXPECTED}") from error


def _described(
    path: Path, raster: Described | DatasetReader, *, tags: Mapping[str, str], **more: object
) -> Mapping[str, Any]:
    ours = {key: value for key, value in tags.items() if key.startswith("TESSERA_")}
    if not ours:
        raise UsageError(f"{path} is a raster, but not one of ours. {EXPECTED}")
    note = ours.get("TESSERA_NOTE")
    return {
        "raster": path.name,
        "model": ours.get("TESSERA_MODEL_NAME"),
        **({"note": note} if note else {}),
        "crs": str(raster.crs),
        "bounds": list(raster.bounds),
        "shape": list(raster.shape),
        **more,
        "tags": ours,
    }
