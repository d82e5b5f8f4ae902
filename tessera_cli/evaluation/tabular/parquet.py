"""Parquet as a table: single columns first, then the vectors of the rows that are used, batch by batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer

from tessera_cli.errors import UsageError, plainly, shown
from tessera_cli.evaluation.columns import Coded, Column
from tessera_cli.evaluation.tabular.table import ColumnKind, in_degrees, positions_named
from tessera_cli.reading import check_file
from tessera_cli.tables.parquet_places import NEEDED, geometry_column

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1 << 16
"""Rows that are decoded at a time."""
MAX_WIDTH = 100_000
"""Numbers in a list, as features."""


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A file. A column of lists of equal length is as many columns: name_0 and so on."""

    path: Path
    schema: pa.Schema
    starts: np.ndarray
    """int64 (G + 1,): first row of each row group."""
    lists: Mapping[str, int]
    """Columns of lists -> their length."""

    @classmethod
    def open(cls, path: Path) -> ParquetTable:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UsageError(f"{path}: {NEEDED.format('CSV')}") from error
        with _opened(path) as file:
            about, schema = file.metadata, file.schema_arrow
            sizes = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
            lists = {field.name: _length(file, field) for field in schema if _is_list(field.type)}
        names = [field.name for field in schema]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"{path} has several columns called {shown(twice[0])}. Give each a name of its own.")
        if not sum(sizes):
            raise UsageError(f"{path} has no rows. Give a row for each sample.")
        return cls(path, schema, np.cumsum([0, *sizes]), {name: size for name, size in lists.items() if size})

    @property
    def origin(self) -> str:
        return str(self.path)

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def columns(self) -> Mapping[str, ColumnKind]:
        found: dict[str, ColumnKind] = {}
        for field in self.schema:
            if field.name in self.lists:
                found |= dict.fromkeys((f"{field.name}_{number}" for number in range(self.lists[field.name])), "number")
            else:
                found[field.name] = _kind(field.type)
        return found

    @cached_property
    def geometry(self) -> tuple[str, CRS] | None:
        told = (self.schema.metadata or {}).get(b"geo")
        if told is None:
            return None
        try:
            return geometry_column(self.path, json.loads(told))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.path}: its GeoParquet metadata are not whole. Write it anew.") from error

    @cached_property
    def reserved(self) -> frozenset[str]:
        own = (self.geometry[0],) if self.geometry is not None else ()
        return frozenset((*(positions_named(list(self.columns)) or ()), *own))

    def column(self, name: str) -> Column:
        import pyarrow as pa

        if name not in self.schema.names:  # of lists
            return self.vectors([name], np.arange(self.rows))[:, 0]
        with _opened(self.path) as file:
            values = file.read(columns=[name]).column(0)
            kind = _kind(values.type)
            if kind == "number":
                return _numbers(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
            if kind == "other":
                return np.asarray(values.to_numpy())
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            coded = values.dictionary_encode().unify_dictionaries()
            codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in coded.chunks]
            texts = coded.chunk(0).dictionary.to_pylist() if coded.num_chunks else []
        numbers = np.concatenate(codes).astype(np.int64) if codes else np.zeros(0, np.int64)
        return Coded(np.array(texts, object), numbers).tidied()

    def vectors(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        virtual = {f"{name}_{number}": (name, number) for name, size in self.lists.items() for number in range(size)}
        real = list(dict.fromkeys(virtual[name][0] if name in virtual else name for name in names))
        made = np.full((len(rows), len(names)), np.nan, np.float32)
        for first, batch in self._batches(real, rows):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            if low == high:
                continue
            found = batch.take(rows[low:high] - first)
            lists = {name: _matrix(found.column(name), self.lists[name]) for name in real if name in self.lists}
            for number, name in enumerate(names):
                if name in virtual:
                    made[low:high, number] = lists[virtual[name][0]][:, virtual[name][1]]
                else:
                    with np.errstate(over="ignore"):
                        made[low:high, number] = _numbers(found.column(name))
        made[~np.isfinite(made)] = np.nan
        return made

    def lonlat(self, rows: np.ndarray) -> np.ndarray | None:
        if self.geometry is not None and self.geometry[0] in self.schema.names:
            name, crs = self.geometry
            found = np.full((len(rows), 2), np.nan)
            for first, batch in self._batches([name], rows):
                low, high = np.searchsorted(rows, (first, first + batch.num_rows))
                wkb = np.array(batch.column(name).take(rows[low:high] - first).to_pylist(), object)
                found[low:high] = self._positions(wkb, crs)
            return found
        named = positions_named(list(self.columns))
        if named is None or any(self.columns[name] != "number" for name in named):
            return None
        return in_degrees(*(np.asarray(self.column(name))[rows] for name in named))

    def _positions(self, wkb: np.ndarray, crs: CRS) -> np.ndarray:
        try:
            points = shapely.centroid(shapely.from_wkb(wkb, on_invalid="fix"))
        except (shapely.errors.ShapelyError, TypeError) as error:
            raise UsageError(f"{self.path}: its geometries are no WKB: {plainly(error)}. Write it anew.") from error
        x, y = shapely.get_x(points), shapely.get_y(points)
        return in_degrees(*Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y))

    def _batches(self, names: Sequence[str], rows: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the batches of the row groups that hold any of the rows, with the number of their first row."""
        with _opened(self.path) as file:
            for group in np.unique(np.searchsorted(self.starts, rows, side="right") - 1).tolist():
                first = int(self.starts[group])
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=list(names), use_threads=False):
                    yield first, batch
                    first += batch.num_rows


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        check_file(path)
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {plainly(error)}.") from error


def _kind(type: pa.DataType) -> ColumnKind:
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        return _kind(type.value_type)
    if any(of(type) for of in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)):
        return "number"
    return "text" if pa.types.is_string(type) or pa.types.is_large_string(type) else "other"


def _is_list(type: pa.DataType) -> bool:
    import pyarrow as pa

    lists = pa.types.is_fixed_size_list(type) or pa.types.is_list(type) or pa.types.is_large_list(type)
    return lists and _kind(type.value_type) == "number"


def _length(file: Any, field: pa.Field) -> int:
    """Return the length of the lists of a column: that of its first row, 0 if it has none."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(field.type):
        return int(field.type.list_size) if field.type.list_size <= MAX_WIDTH else 0
    first = next(file.iter_batches(1, columns=[field.name]), None)
    value = first.column(0)[0].as_py() if first is not None and first.num_columns and len(first) else None
    return len(value) if value is not None and len(value) <= MAX_WIDTH else 0


def _numbers(values: pa.Array) -> np.ndarray:
    """Return numbers (N,): float64 with NaN where any is absent, else of their own type."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_decimal(values.type) or (pa.types.is_boolean(values.type) and values.null_count):
        values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values.cast(pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _matrix(values: pa.Array, size: int) -> np.ndarray:
    """Return lists of one length as float32 (N, D), NaN where a list is absent or has another length."""
    import pyarrow as pa

    made = np.full((len(values), size), np.nan, np.float32)
    lengths = np.asarray(values.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False))
    there = lengths == size
    with np.errstate(over="ignore"):
        made[there] = _numbers(values.filter(pa.array(there)).flatten()).reshape(-1, size)
    return made
