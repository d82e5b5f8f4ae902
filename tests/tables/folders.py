"""Folders of embeddings for tests of what reads them: tiles written by the package, with made-up values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.extent.grid import AnyTile, Tile, from_utm
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tests.helpers.outputs import arrays, encoded, write_record

DIMS = 5
EVERYWHERE = np.ones((512, 512), bool)


def put(
    folder: Path,
    tile: AnyTile,
    made: Mapping[str, Any],
    *,
    window: str | None = "2023",
    dtype: str = "int8",
    format: str = "geotiff",
) -> None:
    """Write one finished tile."""
    folder.mkdir(exist_ok=True)
    found = encoded(dict(made), tile, dtype=dtype, format=format)
    record = replace(found.record, window=None if window is None else Window.from_name(window))
    assets = formats.write(folder, replace(found, record=record), compress="deflate")
    counts = {} if format == "geotiff" else {"counts": made["counts"]}
    write_record(TileFolder(folder, {}), replace(record, assets=assets, **counts))


def random_tile(seed: int, requested: np.ndarray = EVERYWHERE) -> dict[str, Any]:
    return arrays(seed, DIMS, requested)


def constant_tile(value: int, requested: np.ndarray = EVERYWHERE) -> dict[str, Any]:
    """A tile whose embeddings are this code times one, wherever they were asked for."""
    made = random_tile(0, requested)
    made["codes"][:] = np.where(requested, value, -128)
    made["scales"][:] = np.where(requested, 1, np.nan)
    made["counts"][:] = value
    return made


def opened(folder: Path, windows: Any = None) -> EmbeddingFolder:
    return EmbeddingFolder.open(folder, windows)


def in_degrees(geometry: BaseGeometry, epsg: int = 32631) -> BaseGeometry:
    return shapely.transform(geometry, from_utm(epsg).transform, interleaved=False)


def centre(tile: Tile, row: int, column: int) -> tuple[float, float]:
    """Easting and northing of the centre of a pixel."""
    west, _, _, north = tile.bounds
    return west + 10 * column + 5, north - 10 * row - 5
