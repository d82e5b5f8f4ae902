"""Files that viewers leave beside a raster and GDAL reads with it: they describe it only while it is unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tessera_cli.files import explain

ENDINGS = (".ovr", ".aux.xml", ".msk", ".msk.ovr")
"""Pyramids, statistics (and whatever else replaces what the raster says of itself), masks."""


def beside(raster: Path) -> list[Path]:
    """Return the files beside a raster that GDAL reads with it."""
    return [path for ending in ENDINGS if (path := raster.with_name(raster.name + ending)).exists()]


def is_stale(path: Path, rasters: Iterable[Path]) -> bool:
    """Return whether the file is older than one of the rasters that it describes."""
    made = path.stat().st_mtime_ns
    return any(raster.stat().st_mtime_ns > made for raster in rasters)


def remove_beside(raster: Path) -> None:
    """Remove what lies beside a raster that is to be replaced; errors are those of writing it."""
    for path in beside(raster):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(path, error) from error
