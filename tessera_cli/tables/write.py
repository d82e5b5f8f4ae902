"""Write samples as a table: GeoParquet or CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tessera_cli.tables.samples import Samples


def write_table(path: Path, batches: Iterable[Samples]) -> int:
    """Write the samples to `path`, whole or not at all, and return the number of rows.

    The name tells the format: `.parquet` is GeoParquet 1.1 (needs pyarrow), `.csv` is CSV. UsageError for others.
    """
    raise NotImplementedError
