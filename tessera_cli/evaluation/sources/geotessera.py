"""A download of geotessera as a source: arrays of codes and scales in cells of 0.1 degree, one source per year.

ROOT/global_0.1_degree_representation/YEAR/grid_LON_LAT/grid_LON_LAT.npy, int8 (H, W, R), beside it _scales.npy, float32
(H, W) or (H, W, R), and ROOT/global_0.1_degree_tiff_all/grid_LON_LAT.tiff, which alone says where they lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from tessera_cli.arrays import map_array
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError, plainly
from tessera_cli.evaluation.sources.tiled import TiledSource
from tessera_cli.extent.grid import RESOLUTION
from tessera_cli.extent.raster import open_raster

EMBEDDINGS, LANDMASKS = "global_0.1_degree_representation", "global_0.1_degree_tiff_all"
LARGEST_SCALE = 1000.0
"""Some published files hold numbers of a million in the place of scales."""
_CELL = re.compile(r"grid_-?\d+\.\d\d_-?\d+\.\d\d")


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell in one year; scales that are not finite, not positive or huge mean that there is no embedding."""

    codes: np.ndarray
    """int8 (H, W, R), on the disk."""
    scales: np.ndarray
    """float32 (H, W) or (H, W, R), on the disk."""
    crs: str
    transform: Affine

    @cached_property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def valid(self, box: Box) -> np.ndarray:
        scales = self.scales[box]
        return _usable(scales if scales.ndim == 2 else scales[..., 0])

    def vectors(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        scales = np.asarray(self.scales[rows, columns], np.float32).reshape(len(rows), -1)
        scales = np.where(_usable(scales), scales, np.float32(np.nan))
        return np.asarray(self.codes[rows, columns], np.float32) * scales


def geotessera_sources(root: Path) -> tuple[TiledSource, ...]:
    """Return the years of a download, each as a source; UsageError for files that do not belong together."""
    years = sorted(path for path in (root / EMBEDDINGS).iterdir() if re.fullmatch(r"\d{4}", path.name))
    found = []
    for year in years:
        cells = [
            cell for folder in sorted(year.iterdir()) if _CELL.fullmatch(folder.name) for cell in _cell(root, folder)
        ]
        if not cells:
            continue
        dims = {cell.codes.shape[2] for cell in cells}
        if len(dims) > 1:
            held = " and ".join(map(str, sorted(dims)))
            raise UsageError(f"{year} mixes embeddings of {held} dimensions. Evaluate them from folders of their own.")
        name = root.resolve().name if len(years) == 1 else f"{root.resolve().name} {year.name}"
        found.append(TiledSource(name, f"{root}, {year.name}, geotessera", dims.pop(), tuple(cells)))
    if not found:
        raise UsageError(
            f"{root} holds no cell of geotessera that is whole: codes, scales and a landmask that tells their place."
        )
    return tuple(found)


def _cell(root: Path, folder: Path) -> Iterator[Cell]:
    """Yield the cell of a folder; none where a file is absent, as geotessera itself does."""
    codes, scales = folder / f"{folder.name}.npy", folder / f"{folder.name}_scales.npy"
    landmask = root / LANDMASKS / f"{folder.name}.tiff"
    if not (codes.exists() and scales.exists() and landmask.exists()):
        return
    arrays = []
    for path in (codes, scales):
        try:
            arrays.append(map_array(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {plainly(error)}. Download it anew.") from error
    if (
        arrays[0].dtype != np.int8
        or arrays[0].ndim != 3
        or arrays[1].shape not in (arrays[0].shape, arrays[0].shape[:2])
    ):
        raise UsageError(f"{codes} and its scales are no int8 (H, W, R) and float32 (H, W). Download them anew.")
    try:
        with open_raster(landmask) as dataset:
            crs, transform, shape = dataset.crs, dataset.transform, dataset.shape
    except (OSError, rasterio.errors.RasterioError) as error:
        raise UsageError(f"{landmask} cannot be read: {plainly(error)}. Download it anew.") from error
    if crs is None or max(abs(one - other) for one, other in zip(shape, arrays[0].shape, strict=False)) > 2:
        raise UsageError(f"{landmask} does not say where {codes.name} lies. Download it anew.")
    yield Cell(arrays[0], arrays[1], crs.to_string(), _snapped(transform))


def _snapped(transform: Affine) -> Affine:
    """Return the grid on which the pixels lie: published landmasks have the cell's corner, off the grid."""
    if (transform.a, transform.e) != (RESOLUTION, -RESOLUTION):
        return transform
    left, top = np.floor(transform.c / RESOLUTION + 1e-6), np.ceil(transform.f / RESOLUTION - 1e-6)
    return Affine(transform.a, 0, left * RESOLUTION, 0, transform.e, top * RESOLUTION)


def _usable(scales: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(scales) & (scales > 0) & (scales < LARGEST_SCALE))
