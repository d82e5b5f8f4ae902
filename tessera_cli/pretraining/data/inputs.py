"""What shards are built from: stored d-pixels, and long tables of time series."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

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
from tessera_cli.series.places import keys_of, named_places, names_of
from tessera_cli.series.read import read_table
from tessera_cli.series.table import SeriesTable

logger = logging.getLogger(__name__)

_RED, _NIR = S2_BANDS.index("B04"), S2_BANDS.index("B08")


class Selected(NamedTuple):
    """The pixels that were selected of one input."""

    pixels: RaggedPixels
    blocks: np.ndarray
    """int32 (N, 3): the place by which each is held out; of a table with groups that of its group, which is a name."""


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

    def select(self, config: DataConfig, tile_index: int) -> Selected:
        """Return the samples with enough observations, as `select_pixels` of a tile; those without a place, too.

        UsageError where the column of the groups is not one of samples.
        """
        pixels = self.table.pixels
        s2, s1 = pixels.s2.counts, pixels.s1.counts
        numbers = np.flatnonzero((s2 >= config.min_s2) & (s1 >= config.min_s1) & (s2 + s1 > 0))
        if 0 < len(numbers) < self.count:
            logger.log(
                logging.INFO if 2 * len(numbers) > self.count else logging.WARNING,
                "%s: %d of %d samples are trained on; the others have fewer observations than data.min_s2 %d or "
                "data.min_s1 %d",
                *(self.path, len(numbers), self.count, config.min_s2, config.min_s1),
            )
        keys = mix(named_keys(self.name) ^ pixels.keys[numbers])
        if config.pixels_per_tile and len(numbers) > config.pixels_per_tile:
            strata = np.zeros(len(numbers), np.int64)
            if config.stratify == "greenness":
                strata = _greenness(pixels.take(numbers))
            chosen = stratified_sample(mix(keys ^ CAP), strata, config.pixels_per_tile)
            numbers, keys = numbers[chosen], keys[chosen]
        some = pixels.take(numbers)
        by_name = self._named(some.keys, numbers)
        places = np.where(some.places[:, :1] > 0, some.places, by_name)
        grouped = "group" in self.columns.names
        index = np.full(len(numbers), tile_index, np.int32)
        return Selected(RaggedPixels(some.s2, some.s1, keys, places, index), by_name if grouped else places)

    def _named(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return what stands for places by name, int32 (N, 3): that of the group, else of the sample."""
        if (column := self.columns.names.get("group")) is not None:
            groups = names_of(self.table.column(column)[numbers])
            grouped = np.array([name is not None for name in groups], bool)
            keys = keys.copy()
            keys[grouped] = keys_of(groups[grouped])
        return named_places(keys)


Input = Stored | TableInput


def select(given: Input, config: DataConfig, tile_index: int) -> Selected:
    """Return the selected pixels of one input."""
    if isinstance(given, TableInput):
        return given.select(config, tile_index)
    pixels = select_pixels(given.read(), config, tile_index)
    return Selected(pixels, pixels.places)


def more_pixels(inputs: Sequence[Input], config: DataConfig) -> str:
    """Return advice where no pixel of the inputs has enough observations: of tables how many there are."""
    tables = [each.table.pixels for each in inputs if isinstance(each, TableInput)]
    if not tables:
        return "Lower --set data.min_s2 or data.min_s1, or fetch a longer window or a larger area."
    s2, s1 = (np.concatenate([each.series(sensor).counts for each in tables]) for sensor in ("s2", "s1"))
    if config.min_s1 and not s1.any():
        return "The tables hold no radar: --set data.min_s1=0 trains without it."
    return (
        f"Half of the samples of tables have {np.median(s2):.0f} or fewer of Sentinel-2 and {np.median(s1):.0f} or "
        "fewer of Sentinel-1: lower --set data.min_s2 or data.min_s1."
    )


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
