"""Write samples as a table: GeoParquet or CSV, by the name of the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.files import atomic_file
from tessera_cli.tables import csv_table, geoparquet
from tessera_cli.tables.samples import Samples

WRITERS = {".csv": csv_table, ".parquet": geoparquet, ".geoparquet": geoparquet}


def check_table(path: Path) -> None:
    """Raise UsageError unless a table can be written under this name: its format, pyarrow for Parquet, no folder."""
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"{path} names no format of tables. Give a name that ends with .parquet or .csv.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Give the name of a file.")
    if WRITERS[path.suffix.lower()] is geoparquet:
        geoparquet.check_installed(path)


def write_table(path: Path, batches: Iterable[Samples]) -> None:
    """Write the samples to `path`, whole or not at all: also if `batches` raises, what was there stays.

    The name tells the format: `.parquet` is GeoParquet 1.1 (needs pyarrow), `.csv` is CSV. One batch is in memory at a
    time. Raises UsageError for other names, and what `atomic_file` raises.
    """
    check_table(path)
    writer = WRITERS[path.suffix.lower()]
    with atomic_file(path) as part:
        writer.write(part, batches)
