"""A path -> a table."""

from __future__ import annotations

from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.tabular.csv import CsvTable
from tessera_cli.evaluation.tabular.npz import NpzTable
from tessera_cli.evaluation.tabular.parquet import ParquetTable
from tessera_cli.evaluation.tabular.table import Table
from tessera_cli.reading import is_there
from tessera_cli.tables.places import CSV, PARQUET


def is_table(path: Path) -> bool:
    """Return whether a path names a table: Parquet, CSV, TSV, .npz, or a folder of .npy."""
    if path.is_dir():
        return any(path.glob("*.npy")) and not any(path.glob("*.json"))
    return path.suffix.lower() in (*CSV, *PARQUET, ".npz")


def open_table(path: Path) -> Table:
    """Open a table; UsageError for what is none, or cannot be read."""
    if not is_there(path):
        raise UsageError(f"{path}: no such file. Give a table: Parquet, CSV or .npz.")
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return ParquetTable.open(path)
    if suffix in CSV:
        return CsvTable.open(path)
    if suffix == ".npz" or is_table(path):
        return NpzTable.open(path)
    raise UsageError(f"{path} is no table. Give Parquet, GeoParquet, CSV, TSV or .npz.")
