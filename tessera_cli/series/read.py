"""Read a long table of time series: a row per sample and date, in any order.

Rows are read a batch at a time; what stays in memory are the valid observations as integers (about 40 bytes a row, and
300 while they are sorted) and what the table says of each sample.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import NothingToEmbedError, UsageError, counted
from tessera_cli.extent.window import MAX_DAYS, Window
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.assemble import Rows, joined, to_series
from tessera_cli.series.days import day_number, days_of
from tessera_cli.series.files import TableFile
from tessera_cli.series.mapping import AnyColumns, Columns
from tessera_cli.series.names import resolve
from tessera_cli.series.places import grid_places, keys_of
from tessera_cli.series.rows import Observer
from tessera_cli.series.table import SeriesTable
from tessera_cli.series.told import SampleNumbers, Told

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
    reader = _Reader(file, mapping, window, SampleNumbers(file.origin, wanted))
    for batch in file.batches(reader.names):
        reader.add({name: batch.column(i) for i, name in enumerate(batch.schema.names)})
    table = reader.table()
    return dataclasses.replace(table, notes=(*table.notes, note)) if note else table


def _drawn(file: TableFile, mapping: Columns, most: int, seed: int) -> tuple[frozenset[str] | None, str]:
    """Return the names of the samples that are drawn, None for all, and what there is to say of it."""
    every = SampleNumbers(file.origin)
    for batch in file.batches([mapping.names["sample"]]):
        every.number(batch.column(0))
    if len(every.numbers) <= most:
        return None, ""
    ids = every.ids
    order = np.argsort(hashed(_CHOICE + seed, keys_of(ids)), kind="stable")
    return frozenset(ids[order[:most]].tolist()), f"{most:,} of {len(ids):,} samples are read, drawn by a hash"


@dataclass(eq=False)
class _Reader:
    """Gathers batches."""

    file: TableFile
    mapping: Columns
    window: Window | None
    samples: SampleNumbers
    optical: list[Rows] = field(default_factory=list)
    radar: list[Rows] = field(default_factory=list)
    first: int = np.iinfo(np.int32).max
    last: int = np.iinfo(np.int32).min
    rows: int = 0

    def __post_init__(self) -> None:
        names = self.mapping.names
        taken = {names[what] for what in ("sample", "date", *_OBSERVED) if what in names} | {self.file.geometry}
        own = [name for name in self.file.names if name not in taken]
        self.told = Told(self.file, own, names.get("lon"), names.get("lat"))
        self.observer = Observer(self.mapping, self.file.origin)
        self.names = list(dict.fromkeys([*(names[w] for w in names), *self.told.names]))

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
        self.told.add(batch, numbers, len(self.samples.numbers), before)
        self.rows += len(days)
        self.first, self.last = min(self.first, int(days.min())), max(self.last, int(days.max()))
        if self.window is not None:
            start = day_number(self.window)
            inside = (days >= start) & (days < start + self.window.days)
            if not inside.all():
                mask = pa.array(inside)
                batch = {name: values.filter(mask) for name, values in batch.items() if name not in self.told.own}
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
        ids = self.samples.ids
        columns, conflicts = self.told.columns(ids)
        lonlat = self.told.lonlat(columns, conflicts, count)
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


def _date(day: int) -> np.datetime64:
    return np.datetime64(int(day), "D")
