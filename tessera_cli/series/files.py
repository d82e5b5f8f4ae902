"""Open long tables, Parquet, GeoParquet or CSV, and read some of their columns, a batch of rows at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import UsageError, plainly
from tessera_cli.reading import check_file, is_there, open_file

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".geoparquet", ".pq")
CSV = (".csv", ".tsv", ".txt")
ROWS = 65536
"""Of a batch."""
CSV_BLOCK = 4 << 20
"""Bytes of a batch of CSV."""
NEEDED = 'Tables need another package. Run: pip install "tessera-embed[tables]".'


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table on disk, before its rows are read."""

    path: Path
    names: tuple[str, ...]
    """Its columns, but for nested ones."""
    geometry: str | None = None
    """The column of WKB geometries of a GeoParquet file."""
    crs: str | None = None
    """Of the geometries, as pyproj takes it; None: longitude and latitude."""
    delimiter: str | None = None
    """Of CSV."""

    @property
    def origin(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> TableFile:
        """Look at the header; UsageError for what is no table, and where pyarrow is missing."""
        if not is_there(path):
            raise UsageError(f"{path}: no such file. Give a table of time series: Parquet, GeoParquet or CSV.")
        suffix = path.suffix.lower()
        if suffix not in PARQUET + CSV:
            raise UsageError(f"{path} is no table of time series. Give Parquet, GeoParquet or CSV, by its ending.")
        with _reading(path):
            check_file(path)
            return cls._parquet(path) if suffix in PARQUET else cls._csv(path)

    @classmethod
    def _parquet(cls, path: Path) -> TableFile:
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
        names = tuple(field.name for field in schema if not pa.types.is_nested(field.type))
        told = (schema.metadata or {}).get(b"geo")
        if told is None:
            return cls(path, names)
        try:
            geo = json.loads(told)
            name = str(geo["primary_column"])
            column = geo["columns"][name]
            if column["encoding"] != "WKB" or name not in names:
                return cls(path, names)
            crs = column.get("crs", "OGC:CRS84")
        except (LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: its metadata of geometries are damaged. Write it anew.") from error
        return cls(path, names, name, None if crs is None else crs if isinstance(crs, str) else json.dumps(crs))

    @classmethod
    def _csv(cls, path: Path) -> TableFile:
        from pyarrow import csv

        with open_file(path) as file:
            line = file.readline(1 << 20)
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError(f"{path} is UTF-16. Save it as UTF-8.")
        delimiter = max(",;\t|", key=line.decode("utf-8-sig", "replace").count)
        with csv.open_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter)) as reader:
            names = tuple(reader.schema.names)
        return cls(path, names, delimiter=delimiter)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield all rows of these columns, in order; of CSV all cells are text, null where they are empty."""
        import pyarrow as pa

        wanted = list(dict.fromkeys(names))
        with _reading(self.path):
            if self.delimiter is None:
                from pyarrow import parquet

                with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                    yield from file.iter_batches(ROWS, columns=wanted)
            else:
                from pyarrow import csv

                convert = csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                )
                yield from csv.open_csv(
                    self.path,
                    read_options=csv.ReadOptions(block_size=CSV_BLOCK),
                    parse_options=csv.ParseOptions(delimiter=self.delimiter),
                    convert_options=convert,
                )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes pyarrow raise into a UsageError of one line."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError(f"{path}: {NEEDED}") from error
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise UsageError(f"{path} cannot be read as a table: {plainly(error)}.") from error
