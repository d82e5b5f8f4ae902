"""The files of a map: a raster per zone and window, and the record that tells what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rasterio.errors import RasterioError

from tessera_cli.errors import UsageError
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.extent.raster import open_raster
from tessera_cli.reading import read_json

TAG = "TESSERA_MAP"
"""The tag by which maps of ours are known; its value is the task."""
SUFFIXES = (".tif", ".tiff")


def paths(out: Path, mosaics: Sequence[Mosaic]) -> list[Path]:
    """Return the raster of each mosaic: `out` itself if there is one, else `out` with zone and window in its name."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out} is no name of a GeoTIFF. Give --out a name that ends in .tif.")
    if len(mosaics) == 1:
        return [out]
    return [out.with_name(f"{out.stem}_{each.name}_{each.window_name}{out.suffix}") for each in mosaics]


def record_of(out: Path) -> Path:
    """Return the path of the record."""
    return out.with_suffix(".json")


def check(files: Sequence[Path], record: Path) -> None:
    """Raise UsageError where something else than a map of ours would be replaced."""
    for file in files:
        if file.exists() and not _is_map(file):
            raise UsageError(f"{file} exists and is no map. Choose another --out, or remove it.")
    if record.exists() or record.is_symlink():
        try:
            found = read_json(record)
        except (OSError, ValueError, UsageError):
            found = None
        if not isinstance(found, dict) or found.get("type") != "map":
            raise UsageError(f"{record} exists and is no record of a map. Choose another --out, or remove it.")


def _is_map(path: Path) -> bool:
    try:
        with open_raster(path) as dataset:
            return TAG in dataset.tags()
    except (OSError, RasterioError):
        return False
