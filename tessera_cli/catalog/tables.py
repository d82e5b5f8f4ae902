"""STAC-GeoParquet: a catalogue as a table, one item per row, its properties as columns."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry

from tessera_cli.errors import UsageError, plainly
from tessera_cli.reading import check_file

SUFFIXES = (".parquet", ".geoparquet")
ROWS = 1024
"""Read at a time: what a file takes in memory does not grow with it."""
ITEM_FIELDS = ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "links", "assets")
"""Columns that are not properties."""
BBOX = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")


@dataclass(frozen=True)
class Table:
    """The items of a STAC-GeoParquet file as JSON would give them, from the first row each time it is iterated.

    What a table cannot tell from JSON: fields that are null are absent, and datetimes are spelled as pystac spells
    them, which Planetary Computer and Earth Search do too: microseconds unless they are zero, and Z. The order of
    overlaps goes by that spelling. Raises UsageError for files that are damaged and where pyarrow is missing.
    """

    name: str
    """What errors call it."""
    source: Path | bytes
    """Where the file lies, or all of it."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UsageError(
                f"The catalogue {self.name} is STAC-GeoParquet, which needs another package. "
                'Run: pip install "tessera-embed[tables]".'
            ) from error
        source = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        try:
            if isinstance(source, Path):
                check_file(source)
            with parquet.ParquetFile(source, page_checksum_verification=True) as file:
                for batch in file.iter_batches(ROWS):
                    yield from map(_item, batch.to_pylist())
        except (pyarrow.ArrowException, shapely.errors.ShapelyError, OSError, ValueError, OverflowError) as error:
            raise UsageError(f"The catalogue {self.name} cannot be read as Parquet: {plainly(error)}.") from error


def _item(row: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = _json(row)
    item = {"type": "Feature", **{key: fields.pop(key) for key in ITEM_FIELDS if key in fields}}
    if isinstance(item.get("bbox"), dict):
        item["bbox"] = [item["bbox"][side] for side in BBOX if side in item["bbox"]]
    return {**item, "properties": {"datetime": None, **fields}}  # STAC: there, if null


def _json(value: Any) -> Any:
    """Return a value of a table as JSON: bytes are WKB geometries, NaN is null, datetimes are text in UTC."""
    if isinstance(value, Mapping):
        return {str(key): _json(inner) for key, inner in value.items() if inner is not None and inner == inner}
    if isinstance(value, (list, tuple)):
        return [_json(inner) for inner in value]
    if isinstance(value, bytes):
        return _json(shapely.geometry.mapping(shapely.from_wkb(value)))
    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.timezone.utc) if value.tzinfo else value
        return utc.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)  # decimals, times of day, durations
