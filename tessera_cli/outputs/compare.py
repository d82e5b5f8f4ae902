"""Compare two tiles of embeddings pixel by pixel: planes of (H, W) of files, or of bytes that were never written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from tessera_cli.arrays import read_array
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.raster import open_raster
from tessera_cli.outputs import vectors
from tessera_cli.outputs.asset import damaged
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import Layer, Role, layers_of, requested_counts

Plane = tuple[str, np.ndarray]
"""What it holds (codes, values, scales or counts), and its values (H, W)."""

AT_ONCE = 32
"""Bands that are read at a time."""
NAMES = {"s2": "Sentinel-2", "s1_asc": "ascending radar", "s1_desc": "descending radar"}


@dataclass(frozen=True)
class Difference:
    """What two tiles, or stores of d-pixels, do not have in common."""

    pixels: int
    largest: Mapping[str, float]
    """What differs -> by how much at most; NaN where one side has no value."""

    def __str__(self) -> str:
        told = [
            f"of {what} {'one has none' if np.isnan(by) else f'the largest difference is {by:.6g}'}"
            for what, by in self.largest.items()
        ]
        return f"{self.pixels:,} pixel{'' if self.pixels == 1 else 's'} differ{'s' if self.pixels == 1 else ''}: " + (
            ", ".join(told)
        )


def compare(one: Iterable[Plane], other: Iterable[Plane], within: np.ndarray | None = None) -> Difference | None:
    """Return how two tiles differ, where `within`, bool (H, W), is true; None if they do not. NaN equals NaN.

    ValueError where they do not have the same planes.
    """
    mask: np.ndarray | None = None
    largest: dict[str, float] = {}
    for (what, a), (also, b) in zip(one, other, strict=True):
        if what != also or a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"{what} {a.dtype} {a.shape} and {also} {b.dtype} {b.shape} cannot be compared")
        differs = (a != b) & ~((a != a) & (b != b))
        if within is not None:
            differs &= within
        if differs.any():
            mask = differs if mask is None else mask | differs
            by = float(np.abs(a[differs].astype(np.float64) - b[differs].astype(np.float64)).max())
            largest[what] = max(by, largest.get(what, 0.0)) if by == by else by
    return None if mask is None else Difference(int(mask.sum()), largest)


def planes(record: TileRecord, files: Mapping[Role, Path | memoryview]) -> Iterator[Plane]:
    """Yield the planes of a tile from its files, or from their bytes: codes or values, scales, counts.

    TileError for a file that cannot be read.
    """
    for layer in layers_of(record.identity):
        yield from _planes_of(layer, record, files[layer.role])
    if record.format != "geotiff" and record.counts is not None:
        yield from (("counts", band) for band in requested_counts(record.counts, record.requested))


def frames(dpixels: DPixels, dates: Mapping[str, np.ndarray] | None = None) -> Iterator[Plane]:
    """Yield all observations as planes, or those of these dates: zeros for one that the d-pixels lack.

    What lies under the mask is no observation.
    """
    for sensor, own in dpixels.dates.items():
        values = getattr(dpixels, sensor)
        wanted = range(len(own)) if dates is None else [_position(own, day) for day in dates[sensor]]
        for position in wanted:
            frame = np.zeros(values.shape[1:], values.dtype) if position is None else values[position]
            if sensor == "s2" and position is not None:
                frame = np.where(dpixels.s2_mask[position][..., None] != 0, frame, np.uint16(0))
            yield from ((NAMES[sensor], band) for band in np.moveaxis(frame, -1, 0))


def _position(dates: np.ndarray, day: np.datetime64) -> int | None:
    found = np.flatnonzero(dates == day)
    return int(found[0]) if len(found) else None


def _planes_of(layer: Layer, record: TileRecord, file: Path | memoryview) -> Iterator[Plane]:
    what = {"emb": "codes" if layer.dtype == "int8" else "values"}.get(layer.role, layer.role)
    try:
        if record.format == "geotiff":
            bands = layer.bands(record.dims)
            for start in range(0, len(bands), AT_ONCE):
                yield from ((what, band) for band in _read_bands(file, range(start, len(bands))[:AT_ONCE]))
            return
        array = read_array(file) if isinstance(file, Path) else np.load(io.BytesIO(file), allow_pickle=False)
        if record.format == "vectors":
            whole = slice(None), slice(None)
            array = vectors.expanded(array, record.requested, whole)
        for band in np.moveaxis(array, -1, 0) if array.ndim == 3 else [array]:
            yield what, band
    except (OSError, ValueError, RasterioError) as error:
        raise damaged(file if isinstance(file, Path) else Path(record.name), f"it cannot be read: {error}") from error


def _read_bands(file: Path | memoryview, numbers: Sequence[int]) -> np.ndarray:
    """Read bands (counted from 0) of a raster, which is closed again: GDAL's settings do not outlive a generator."""
    with ExitStack() as stack:
        if isinstance(file, Path):
            dataset = stack.enter_context(open_raster(file))
        else:
            dataset = stack.enter_context(stack.enter_context(MemoryFile(bytes(file))).open(driver="GTiff"))
        bands: np.ndarray = dataset.read([number + 1 for number in numbers])
        return bands
