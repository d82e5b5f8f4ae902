"""The items of a folder as one STAC-GeoParquet table, written and looked into by pyarrow (`[tables]`)."""

from __future__ import annotations

import datetime as dt
import importlib.util
import io
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import shapely
import shapely.geometry

from tessera_cli.outputs.collection import DIGEST
from tessera_cli.reading import check_file

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")
ROWS = 256
"""Items that are held at a time; rows of a group."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
LEFT_OUT = (
    *("tessera:requested", "tessera:counts", "tessera:files", "tessera:identity"),
    *("tessera:scenes", "tessera:holes", "tessera:warnings", "tessera:observations"),
)
"""Properties of items that are no columns: long, or of other keys from tile to tile."""
_TIMES = ("datetime", "start_datetime", "end_datetime")
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon", "MultiPolygon"],
            "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
        }
    },
}


def can_write() -> bool:
    """Return whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def to_bytes(items: Iterable[Mapping[str, Any]], digest: str) -> bytes:
    """Return the table of items of one folder, at least one, with the digest of what they were made from.

    Columns are those of the first item: all tiles of a folder have the same fields. Needs pyarrow. ROWS items and the
    table, about a kilobyte each, are held in memory.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = map(_row, items)
    chunk = list(islice(rows, ROWS))
    metadata = {"geo": json.dumps(_GEO), "stac-geoparquet": json.dumps({"version": "1.0.0"}), DIGEST: digest}
    schema = pa.schema([(key, _type_of(key, value)) for key, value in chunk[0].items()], metadata=metadata)
    out = io.BytesIO()
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        while chunk:
            writer.write_table(pa.Table.from_pylist(chunk, schema), row_group_size=ROWS)
            chunk = list(islice(rows, ROWS))
    return out.getvalue()


def digest_in(path: Path) -> str | None:
    """Return the digest that a table was written with; None without one, or if it cannot be read. Needs pyarrow."""
    from pyarrow import parquet

    metadata = _read(lambda: parquet.read_schema(path).metadata, path) or {}
    return metadata[DIGEST.encode()].decode(errors="replace") if DIGEST.encode() in metadata else None


def ids_in(path: Path) -> list[str] | None:
    """Return the ids of the items in a table, in its order; None if it cannot be read. Needs pyarrow."""
    from pyarrow import parquet

    def read() -> list[str]:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return [str(id) for id in file.read(columns=["id"]).column("id").to_pylist()]

    return _read(read, path)


def _read(read: Callable[[], T], path: Path) -> T | None:
    import pyarrow as pa

    try:
        check_file(path)
        return read()
    except (pa.ArrowException, OSError, ValueError, LookupError):
        return None


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as a row: properties as columns, the geometry as WKB, times as such."""
    properties = {key: value for key, value in item["properties"].items() if key not in LEFT_OUT}
    times = {key: _time(properties.pop(key, None)) for key in _TIMES}
    return {
        **{key: item[key] for key in ("type", "stac_version", "stac_extensions", "id", "collection")},
        "geometry": shapely.to_wkb(shapely.geometry.shape(item["geometry"])),
        "bbox": dict(zip(SIDES, item["bbox"], strict=True)),
        **times,
        **properties,
        "links": item["links"],
        "assets": item["assets"],
    }


def _time(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


def _type_of(key: str, value: Any) -> pyarrow.DataType:
    """Return the type of a column, from its value in the first row."""
    import pyarrow as pa

    if key in _TIMES:
        return pa.timestamp("us", tz="UTC")
    if key in ("gsd", "proj:transform", "proj:bbox", "raster:spatial_resolution"):  # whole numbers at times
        return pa.list_(pa.float64()) if isinstance(value, list) else pa.float64()
    if value is None:
        return pa.string()
    if isinstance(value, Mapping):
        return pa.struct([(name, _type_of(name, inner)) for name, inner in value.items()])
    if isinstance(value, list):
        return pa.list_(_type_of("", value[0]))
    return pa.scalar(value).type
