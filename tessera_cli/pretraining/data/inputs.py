"""What shards are built from: stored d-pixels, and long tables of time series."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tessera_cli.dpixels import Stored, find_stores
from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.files import sha256_of
from tessera_cli.pretraining.config import DataConfig
from tessera_cli.pretraining.data.select import CAP, named_keys, select_pixels, stratified_sample, stratum_of
from tessera_cli.sampling.draws import mix
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.files import CSV, PARQUET
from tessera_cli.series.mapping import AnyColumns, Columns
from tessera_cli.series.read import read_table
from tessera_cli.series.table import SeriesTable

_RED, _NIR = S2_BANDS.index("B04"), S2_BANDS.index("B08")


@dataclass(frozen=True, eq=False)
class TableInput:
    """A long table in a window, with the properties of `Stored` that shards need. It is read once."""

    path: Path
    columns: Columns
    window: Window
    table: SeriesTable = field(repr=False)
    source: str | None = None
    """Unknown."""
    preprocessing: str | None = None
    """Unknown."""

    @classmethod
    def of(cls, path: Path, columns: Columns, window: Window | None) -> TableInput:
        """Read a table; errors are those of `read_table`."""
        table = read_table(path, columns, window=window)
        return cls(path, columns, table.window, table)

    @property
    def name(self) -> str:
        return f"{self.path.stem}_{self.window.name}"

    @property
    def tile(self) -> ForeignTile:
        """Return what stands for the tile: an id alone."""
        return ForeignTile(self.path.stem, (1, 1))

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.table)

    @cached_property
    def input_digest(self) -> str:
        told = [sha256_of(self.path), self.columns.to_dict(), self.window.name]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def select(self, config: DataConfig, tile_index: int) -> RaggedPixels:
        """Return the samples with enough observations, as `select_pixels` of a tile; those without a place, too."""
        pixels = self.table.pixels
        s2, s1 = pixels.s2.counts, pixels.s1.counts
        numbers = np.flatnonzero((s2 >= config.min_s2) & (s1 >= config.min_s1) & (s2 + s1 > 0))
        keys = mix(named_keys(self.name) ^ pixels.keys[numbers])
        if config.pixels_per_tile and len(numbers) > config.pixels_per_tile:
            strata = np.zeros(len(numbers), np.int64)
            if config.stratify == "greenness":
                strata = _greenness(pixels.take(numbers))
            chosen = stratified_sample(mix(keys ^ CAP), strata, config.pixels_per_tile)
            numbers, keys = numbers[chosen], keys[chosen]
        some = pixels.take(numbers)
        return RaggedPixels(some.s2, some.s1, keys, some.places, np.full(len(numbers), tile_index, np.int32))


Input = Stored | TableInput


def select(given: Input, config: DataConfig, tile_index: int) -> RaggedPixels:
    """Return the selected pixels of one input."""
    if isinstance(given, TableInput):
        return given.select(config, tile_index)
    return select_pixels(given.read(), config, tile_index)


def find_inputs(paths: Sequence[Path], columns: AnyColumns = None, window: Window | None = None) -> tuple[Input, ...]:
    """Return the tables and the stored d-pixels at `paths`; errors are those of `read_table` and `find_stores`.

    `columns` and `window` say how to read tables; UsageError where there are none.
    """
    tables = [path for path in paths if path.suffix.lower() in PARQUET + CSV and path.is_file()]
    if not tables and (columns or window):
        raise UsageError("--columns and --window say how to read tables of series, and there are none. Leave them out.")
    others = [path for path in paths if path not in tables]
    mapping = Columns.of(columns)
    found: list[Input] = [TableInput.of(path, mapping, window) for path in dict.fromkeys(tables)]
    return (*found, *(find_stores(others) if others else ()))


def _greenness(pixels: RaggedPixels) -> np.ndarray:
    """Return the stratum of each pixel by mean and standard deviation of its NDVI, 0 where there is none."""
    bands = pixels.s2.values.astype(np.float64)
    red, nir = bands[:, _RED], bands[:, _NIR]
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    owner = np.repeat(np.arange(len(pixels)), pixels.s2.counts)
    total, squares = (np.bincount(owner, each, len(pixels)) for each in (ndvi, ndvi**2))
    return stratum_of(total, squares, pixels.s2.counts)
