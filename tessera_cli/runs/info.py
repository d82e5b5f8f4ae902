"""Describe a folder, a tile, stored d-pixels, a raster, an array, shards or a run of `pretrain`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from tessera_cli.arrays import read_layout
from tessera_cli.dpixels import Stored, members
from tessera_cli.dpixels import describe as describe_store
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.errors import TileError, UsageError, plainly
from tessera_cli.extent.grid import AnyTile, parse_tile_name
from tessera_cli.extent.place import Place
from tessera_cli.extent.raster import open_raster
from tessera_cli.models import ModelConfig
from tessera_cli.models.weights import describe_weights, is_weights
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import DPIXELS, RUN
from tessera_cli.outputs.vrt import Described, describe_vrt, products
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import CONTENT as SHARDS
from tessera_cli.pretraining.data.shards import HEADER, read_header
from tessera_cli.pretraining.report.page import measure
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.reading import is_there, read_file
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.mosaic import MAX_VRT
from tessera_cli.runs.owner import record_beside, record_listing
from tessera_cli.runs.partial import encoded_pixels
from tessera_cli.runs.run_record import read_or_none

EXPECTED = (
    "Give a folder of `tessera embed`, `fetch` or `pretrain`, a tile's .json, one of its rasters or arrays, stored "
    "d-pixels, shards, or a weights file."
)

KINDS = ("*_emb.tif", "*_scales.tif", "*_counts.tif", "*.npy", "*.zarr/**/*", "*/*.npy", "*/roi.tiff")
"""Files of tiles, in folders of embeddings or d-pixels."""


def describe(path: Path, model_config: ModelConfig | None = None) -> Mapping[str, Any]:
    """Return a JSON-ready description. Raises UsageError for anything that is not ours.

    `model_config` tells what a weights file does not record.
    """
    if not is_there(path):
        raise UsageError(f"{path}: no such file or folder. {EXPECTED}")
    if path.is_dir():
        if (path / HEADER).is_file():
            return _shards(path)
        if RunFolder(path).config.is_file():
            return _run(RunFolder(path))
        return _store(path) if path in members(path) else _folder(path)
    if is_weights(path):
        return describe_weights(path, model_config)
    if path.suffix == ".json":
        return _tile(path)
    if path.suffix == ".npy":
        return _array(path)
    return _raster(path)


def _folder(path: Path) -> Mapping[str, Any]:
    folder = TileFolder.open(path)
    identity, note = folder.identity, folder.note
    if not identity:
        raise UsageError(f"{path} is no output folder: it has no {RUN} (a plan alone writes none). {EXPECTED}")
    failures = folder.failures()
    tiles: dict[str, Any] = {}
    for name in sorted(folder.requested_names()):
        record = folder.record(name)
        kept = {} if record is None else {"pixels": record.pixels, **_remarks(record)}
        if name in failures:  # what is kept is of a run that asked for less or allowed more missing scenes
            tiles[name] = {"status": "failed", "reason": failures[name], **kept}
        else:
            tiles[name] = {"status": "missing" if record is None else record.status, **kept}
        if record is None and (encoded := encoded_pixels(path, name)):
            tiles[name]["encoded"] = encoded
    windows = {parsed[1] for name in tiles if (parsed := parse_tile_name(name)) is not None}
    return {
        "folder": str(path),
        **({"content": DPIXELS} if folder.holds_dpixels else {"model": identity.get("model")}),
        **({"note": note} if note else {}),
        "windows": [window.name for window in sorted(windows)],
        **({"place": place} if (place := _place(folder.runs())) else {}),
        "tiles": dict(Counter(tile["status"] for tile in tiles.values())),
        "pixels": sum(tile.get("pixels", 0) for tile in tiles.values()),
        "bytes": sum(file.stat().st_size for kind in KINDS for file in path.glob(kind) if file.is_file()),
        **({} if folder.holds_dpixels else {"mosaics": products(path)}),
        "identity": dict(identity),
        "by_tile": tiles,
    }


def _place(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return longitude and latitude of the middle of what runs asked for, in degrees; nothing if it is not known."""
    boxes = [(int(epsg), shapely.box(*box)) for run in runs for epsg, box in run.get("areas", {}).items()]
    if not boxes:
        return {}
    place = Place.of({epsg: shapely.union_all([box for zone, box in boxes if zone == epsg]) for epsg, _ in boxes})
    return {"lon": round(place.lon, 4), "lat": round(place.lat, 4)}


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
        **_remarks(record),
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


def _shards(path: Path) -> Mapping[str, Any]:
    """Describe shards from their header; their arrays are not opened."""
    header = read_header(path)
    try:
        origins, counts = header["origins"], header["counts"]
        return {
            "content": SHARDS,
            "sources": header["sources"],
            "preprocessing": header["preprocessing"],
            "windows": sorted({origin["window"] for origin in origins if origin["window"] is not None}),
            "tiles": len(origins),
            "pixels": counts["trained"],
            "held_out": counts["held_out"],
            "left_out": counts["left_out"],
            "observations": counts["observations"],
            "bytes": sum(file["bytes"] for file in header["files"].values()),
            "settings": header["settings"],
            "digest": header["digest"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path / HEADER} is damaged. Remove the folder to have the shards built again.") from error


def _run(folder: RunFolder) -> Mapping[str, Any]:
    """Describe a run of `pretrain`: settings, step of the last checkpoint, figures of `metrics.jsonl`."""
    try:
        settings = load_config(path=folder.config)
    except UsageError as error:
        raise UsageError(f"{folder.path} is no run of `tessera pretrain`: {error}") from error
    rows = folder.rows()
    exported = folder.exported(settings)
    training = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval"]
    measures = _measures(evaluations[-1]) if evaluations else {}
    random = {key: value for key, value in measures.items() if key.endswith(_RANDOM)}
    own = {key: value for key, value in measures.items() if key not in random}
    return {
        "run": str(folder.path),
        "model": settings.model.name,
        "family": settings.model.family,
        "steps": settings.train.steps,
        "steps_done": _steps(folder, rows),
        "collapsed": training[-1].get("collapsed") if training else None,
        "exported": str(exported) if exported.is_file() else None,
        "evaluation": {"step": evaluations[-1].get("step"), **own} if evaluations else {},
        "random_encoder": {key.removesuffix(_RANDOM): value for key, value in random.items()},
    }


def _steps(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of steps that are finished and saved."""
    if folder.last.exists():
        from tessera_cli.pretraining import checkpoint

        return checkpoint.read_state(folder.last).step
    return int(max((measure(row, "step") or 0 for row in rows), default=0))


_RANDOM = "_random"


def _measures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an evaluation, to four digits."""
    found = {key: measure(row, key) for key in row if key != "step"}
    return {key: float(f"{value:.4g}") for key, value in found.items() if value is not None}


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


def _remarks(record: TileRecord) -> dict[str, Any]:
    remarks = {"holes": dict(record.missing_scenes), "warnings": list(record.warnings)}
    return {key: value for key, value in remarks.items() if value}
