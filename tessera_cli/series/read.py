"""Read a long table of time series: a row per sample and date, in any order.

Rows are read a batch at a time; what stays in memory are the valid observations as integers (about 40 bytes a row, and
300 while they are sorted) and what the table says of each sample.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import NothingToEmbedError, UsageError, counted
from tessera_cli.extent.window import MAX_DAYS, Window
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.assemble import Rows, joined, to_series
from tessera_cli.series.coded import encoded
from tessera_cli.series.constant import SampleColumn
from tessera_cli.series.days import day_number, days_of
from tessera_cli.series.files import TableFile
from tessera_cli.series.mapping import AnyColumns, Columns
from tessera_cli.series.names import resolve
from tessera_cli.series.places import grid_places, keys_of, lonlat_of
from tessera_cli.series.rows import Observer
from tessera_cli.series.table import SeriesTable

if TYPE_CHECKING:
    import pyarrow as pa

_OBSERVED = (*S2_BANDS, *S1_BANDS, "orbit", "clear", "SCL")
"""Columns that say something of a date."""
_CHOICE = 0x53414D50


def read_table(
    path: Path | str,
    columns: AnyColumns = None,
    *,
    window: Window | None = None,
    most: int | None = None,
    seed: int = 0,
) -> SeriesTable:
    """Return the samples of a table with their observations.

    Args:
        path: Parquet, GeoParquet or CSV.
        columns: What the columns are called and mean, as `Columns.of` takes it.
        window: Only rows of these dates; None: all, which must span 366 days at the most.
        most: At most so many samples, drawn by a hash of their names; the table is then read twice.
        seed: Of that draw.

    Raises:
        UsageError: For what cannot be read, for columns and units that do not fit, for too long a span.
        NothingToEmbedError: No row lies in the window.
    """
    file = TableFile.open(Path(path))
    mapping = resolve(Columns.of(columns), file.names, file.origin)
    wanted, note = (None, "") if most is None else _drawn(file, mapping, most, seed)
    reader = _Reader(file, mapping, window, _Samples(file.origin, wanted))
    for batch in file.batches(reader.names):
        reader.add({name: batch.column(i) for i, name in enumerate(batch.schema.names)})
    table = reader.table()
    return dataclasses.replace(table, notes=(*table.notes, note)) if note else table


def _drawn(file: TableFile, mapping: Columns, most: int, seed: int) -> tuple[frozenset[str] | None, str]:
    """Return the names of the samples that are drawn, None for all, and what there is to say of it."""
    every = _Samples(file.origin, None)
    for batch in file.batches([mapping.names["sample"]]):
        every.number(batch.column(0))
    if len(every.numbers) <= most:
        return None, ""
    ids = np.array([*every.numbers, None], object)[:-1]
    order = np.argsort(hashed(_CHOICE + seed, keys_of(ids)), kind="stable")
    return frozenset(ids[order[:most]].tolist()), f"{most:,} of {len(ids):,} samples are read, drawn by a hash"


@dataclass(eq=False)
class _Samples:
    """Numbers the samples of a table in order of appearance."""

    origin: str
    wanted: frozenset[str] | None
    """None: all."""
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, values: pa.Array) -> np.ndarray:
        """Return the numbers of the samples of a batch, int32 (R,); -1 where they are not wanted."""
        if values.null_count:
            raise UsageError(f"{self.origin} has rows without the name of their sample. Remove them.")
        coded = encoded(values)
        table = [self._number(str(value)) for value in coded.dictionary.to_pylist()]
        return np.array(table or [0], np.int32)[coded.indices.to_numpy(zero_copy_only=False)]

    def _number(self, name: str) -> int:
        if self.wanted is not None and name not in self.wanted:
            return -1
        return self.numbers.setdefault(name, len(self.numbers))


@dataclass(eq=False)
class _Reader:
    """Gathers batches."""

    file: TableFile
    mapping: Columns
    window: Window | None
    samples: _Samples
    optical: list[Rows] = field(default_factory=list)
    radar: list[Rows] = field(default_factory=list)
    first: int = np.iinfo(np.int32).max
    last: int = np.iinfo(np.int32).min
    rows: int = 0
    geometries: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = self.mapping.names
        taken = {names[what] for what in ("sample", "date", *_OBSERVED) if what in names} | {self.file.geometry}
        self.own = {name: SampleColumn(name) for name in self.file.names if name not in taken}
        self.observer = Observer(self.mapping, self.file.origin)
        placed = "lon" in names and "lat" in names
        self.geometry = None if placed else self.file.geometry
        geometry = [self.geometry] if self.geometry else []
        self.names = list(dict.fromkeys([*(names[w] for w in names), *self.own, *geometry]))

    def add(self, batch: dict[str, pa.Array]) -> None:
        import pyarrow as pa

        names = self.mapping.names
        before = len(self.samples.numbers)
        numbers = self.samples.number(batch[names["sample"]])
        if (wanted := numbers >= 0).all():
            days = days_of(batch[names["date"]], self.file.origin)
        else:
            mask = pa.array(wanted)
            batch = {name: values.filter(mask) for name, values in batch.items()}
            numbers, days = numbers[wanted], days_of(batch[names["date"]], self.file.origin)
        if not len(numbers):
            return
        count = len(self.samples.numbers)
        for name, column in self.own.items():
            if pa.types.is_binary(batch[name].type) or pa.types.is_large_binary(batch[name].type):
                continue
            column.add(batch[name], numbers, count)
        if self.geometry and count > before:
            _, at = np.unique(numbers, return_index=True)
            self.geometries += batch[self.geometry].take(pa.array(at[before - count :])).to_pylist()
        self.rows += len(days)
        self.first, self.last = min(self.first, int(days.min())), max(self.last, int(days.max()))
        if self.window is not None:
            start = day_number(self.window)
            inside = (days >= start) & (days < start + self.window.days)
            if not inside.all():
                mask = pa.array(inside)
                batch = {name: values.filter(mask) for name, values in batch.items() if name not in self.own}
                numbers, days = numbers[inside], days[inside]
        for kind, found in (("optical", self.optical), ("radar", self.radar)):
            rows = getattr(self.observer, kind)(batch, numbers, days)
            if rows is not None and len(rows.days):
                found.append(rows)

    def table(self) -> SeriesTable:
        """Return the samples of all batches."""
        origin, count = self.file.origin, len(self.samples.numbers)
        if not count:
            raise NothingToEmbedError(f"{origin} has no rows. Give a row for each sample and date.")
        window = self._window()
        self.observer.check()
        s2, again = to_series(joined(self.optical, "s2"), count)
        self.optical.clear()
        s1, again_s1 = to_series(joined(self.radar, "s1"), count)
        self.radar.clear()
        if not len(s2.doy) and not len(s1.doy):
            told = f"between {_date(self.first)} and {_date(self.last)}"
            raise NothingToEmbedError(f"{origin}: none of its {self.rows:,} rows {told} has a value in {window}.")
        ids = np.array([*self.samples.numbers, None], object)[:-1]
        columns, conflicts = self._columns(ids, count)
        lonlat = self._lonlat(columns, conflicts, count)
        keys = keys_of(ids)
        pixels = RaggedPixels(s2, s1, keys, grid_places(lonlat, keys), np.zeros(count, np.int32))
        notes = list(self.observer.notes())
        if again + again_s1:
            notes.append(f"{counted(again + again_s1, 'row')} repeated a date of a sample: the first was kept")
        return SeriesTable(origin, pixels, ids, lonlat, window, columns, self.mapping, conflicts, tuple(notes))

    def _window(self) -> Window:
        if self.window is not None:
            return self.window
        first, last = _date(self.first), _date(self.last)
        if (days := self.last - self.first + 1) > MAX_DAYS:
            raise UsageError(
                f"{self.file.origin} spans {days} days, from {first} to {last}; a series has {MAX_DAYS} at the most. "
                f"Choose a part with --window {first}/{_date(self.first + 364)} or --year."
            )
        return Window(*(dt.date.fromisoformat(str(each)) for each in (first, last)))

    def _columns(self, ids: np.ndarray, count: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        columns, conflicts = {}, {}
        for name, column in self.own.items():
            if column.type is None:
                continue
            if column.conflict is None:
                columns[name] = column.values(count)
            else:
                sample, one, other = column.conflict
                conflicts[name] = f"{ids[sample]} has {one} and {other}"
        return columns, conflicts

    def _lonlat(self, columns: dict[str, np.ndarray], conflicts: dict[str, str], count: int) -> np.ndarray:
        """Return the places, and take their columns out of the others."""
        names = self.mapping.names
        if self.geometry:
            lonlat, where = lonlat_of(self.geometries, self.file.crs, self.file.origin), self.geometry
        elif "lon" in names and "lat" in names:
            lonlat, where = self._told_lonlat(columns, conflicts), f"{names['lon']} and {names['lat']}"
        else:
            return np.full((count, 2), np.nan)
        lonlat[~np.isfinite(lonlat).all(axis=1)] = np.nan
        if (np.abs(lonlat) > (180, 90)).any():
            raise UsageError(f"{self.file.origin}: {where} are no degrees. Convert them, or declare their CRS.")
        return lonlat

    def _told_lonlat(self, columns: dict[str, np.ndarray], conflicts: dict[str, str]) -> np.ndarray:
        names = self.mapping.names
        found = []
        for what in ("lon", "lat"):
            if (name := names[what]) in conflicts:
                raise UsageError(
                    f"{self.file.origin}: a sample has one place, but column {name} changes ({conflicts[name]})."
                )
            values = columns.pop(name)
            try:
                found.append(values.astype(np.float64))
            except (TypeError, ValueError) as error:
                raise UsageError(f"{self.file.origin}: column {name} does not hold degrees.") from error
        return np.stack(found, axis=1)


def _date(day: int) -> np.datetime64:
    return np.datetime64(int(day), "D")
