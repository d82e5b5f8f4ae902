"""What a table says of each of its samples, one row or many: columns that agree in all of them, and the place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.errors import UsageError, listed
from tessera_cli.series.coded import encoded
from tessera_cli.series.constant import SampleColumn
from tessera_cli.series.files import TableFile
from tessera_cli.series.names import usual
from tessera_cli.series.places import lonlat_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(eq=False)
class SampleNumbers:
    """Numbers the samples of a table in order of appearance."""

    origin: str
    wanted: frozenset[str] | None = None
    """None: all."""
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, values: pa.Array) -> np.ndarray:
        """Return the numbers of the samples of a batch, int32 (R,); -1 where they are not wanted."""
        if values.null_count:
            raise UsageError(f"{self.origin} has rows without the name of their sample. Remove them.")
        coded = encoded(values)
        table = [self._number(str(value)) for value in coded.dictionary.to_pylist()]
        return np.array(table or [0], np.int32)[coded.indices.to_numpy(zero_copy_only=False)]

    @property
    def ids(self) -> np.ndarray:
        """Return their names, object (N,)."""
        return np.array([*self.numbers, None], object)[:-1]

    def _number(self, name: str) -> int:
        if self.wanted is not None and name not in self.wanted:
            return -1
        return self.numbers.setdefault(name, len(self.numbers))


@dataclass(eq=False)
class Told:
    """Gathers what batches of rows say of samples."""

    file: TableFile
    wanted: Sequence[str]
    """Columns that may say something of samples, besides those of the place."""
    lon: str | None
    lat: str | None
    """Columns of the place in degrees; without both the geometries of the file count."""
    geometries: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        placed = [self.lon, self.lat] if self.lon and self.lat else []
        self.geometry = None if placed else self.file.geometry
        self.own = {name: SampleColumn(name) for name in dict.fromkeys([*self.wanted, *filter(None, placed)])}

    @property
    def names(self) -> list[str]:
        """Return the columns to read."""
        return [*self.own, *([self.geometry] if self.geometry else [])]

    def add(self, batch: Mapping[str, pa.Array], numbers: np.ndarray, count: int, before: int) -> None:
        """Take a batch whose rows are of samples `numbers`, below `count`; those from `before` on are new."""
        import pyarrow as pa

        for name, column in self.own.items():
            if pa.types.is_binary(batch[name].type) or pa.types.is_large_binary(batch[name].type):
                continue
            column.add(batch[name], numbers, count)
        if self.geometry and count > before:
            _, at = np.unique(numbers, return_index=True)
            self.geometries += batch[self.geometry].take(pa.array(at[before - count :])).to_pylist()

    def columns(self, ids: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return the columns that agree, each (N,), and of the others an example in words."""
        columns, conflicts = {}, {}
        for name, column in self.own.items():
            if column.type is None:
                continue
            if column.conflict is None:
                columns[name] = column.values(len(ids))
            else:
                sample, one, other = column.conflict
                conflicts[name] = f"{ids[sample]} has {one} and {other}"
        return columns, conflicts

    def lonlat(self, columns: dict[str, np.ndarray], conflicts: Mapping[str, str], count: int) -> np.ndarray:
        """Return the places, float64 (N, 2), NaN for none, and take their columns out of the others."""
        if self.geometry:
            lonlat, where = lonlat_of(self.geometries, self.file.crs, self.file.origin), self.geometry
        elif self.lon and self.lat:
            lonlat, where = self._from_columns(columns, conflicts), f"{self.lon} and {self.lat}"
        else:
            return np.full((count, 2), np.nan)
        lonlat[~np.isfinite(lonlat).all(axis=1)] = np.nan
        if (np.abs(lonlat) > (180, 90)).any():
            raise UsageError(f"{self.file.origin}: {where} are no degrees. Convert them, or declare their CRS.")
        return lonlat

    def _from_columns(self, columns: dict[str, np.ndarray], conflicts: Mapping[str, str]) -> np.ndarray:
        found = []
        for name in filter(None, (self.lon, self.lat)):
            if name in conflicts:
                raise UsageError(
                    f"{self.file.origin}: a sample has one place, but column {name} changes ({conflicts[name]})."
                )
            values = columns.pop(name)
            try:
                found.append(values.astype(np.float64))
            except (TypeError, ValueError) as error:
                raise UsageError(f"{self.file.origin}: column {name} does not hold degrees.") from error
        return np.stack(found, axis=1)


@dataclass(frozen=True, eq=False)
class SampleTable:
    """N samples and some of the columns of their table."""

    origin: str
    ids: np.ndarray | None
    """object (N,): text, in order of appearance; None where no column names samples, and each row is one."""
    lonlat: np.ndarray
    """float64 (N, 2) in degrees, NaN where the place is not known."""
    columns: Mapping[str, np.ndarray]
    conflicts: Mapping[str, str]
    """Columns that change within a sample -> an example, in words."""

    def column(self, name: str) -> np.ndarray:
        """Return a column (N,); UsageError where it changes within a sample."""
        return agreed(name, self.columns, self.conflicts, self.origin)


def agreed(name: str, columns: Mapping[str, np.ndarray], conflicts: Mapping[str, str], origin: str) -> np.ndarray:
    """Return a column of samples; UsageError where there is none, or where it changes within a sample."""
    if name in conflicts:
        raise UsageError(
            f"{origin}: column {name} is not the same in all rows of a sample ({conflicts[name]}). Choose one that is."
        )
    if name not in columns:
        raise UsageError(f"{origin} has no column {name}. It has: {listed(columns, 40)}.")
    return columns[name]


def read_samples(file: TableFile, wanted: Sequence[str], sample: str | None = None) -> SampleTable:
    """Return the samples of a table, a row each or many that agree, with some of its columns.

    Args:
        file: Parquet, GeoParquet or CSV.
        wanted: Columns to read.
        sample: The column that names samples; None: one of a usual name. Without any each row is a sample.

    Raises:
        UsageError: The table cannot be read, or its places are none.
    """
    name = sample or usual("sample", file.names)
    told = Told(file, wanted, usual("lon", file.names), usual("lat", file.names))
    samples, rows = SampleNumbers(file.origin), 0
    for batch in file.batches([*told.names, *([name] if name else [])]):
        by_name = {each: batch.column(i) for i, each in enumerate(batch.schema.names)}
        before = len(samples.numbers) if name else rows
        numbers = samples.number(by_name[name]) if name else rows + np.arange(len(batch), dtype=np.int32)
        rows += len(batch)
        told.add(by_name, numbers, len(samples.numbers) if name else rows, before)
    ids = samples.ids if name else np.arange(1, rows + 1).astype(object)
    columns, conflicts = told.columns(ids)
    lonlat = told.lonlat(columns, conflicts, len(ids))
    return SampleTable(file.origin, ids if name else None, lonlat, columns, conflicts)
