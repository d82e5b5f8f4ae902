"""Places from Parquet: GeoParquet with its geometries, or a plain table with columns of longitude and latitude."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from tessera_cli.errors import UsageError, plainly
from tessera_cli.extent.features import Features
from tessera_cli.reading import check_file
from tessera_cli.tables.csv_places import points_or_none, position_columns

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = 'Parquet needs another package. Run: pip install "tessera-embed[tables]", or give {}.'


def read_parquet(path: Path) -> Features:
    """Return the rows of a Parquet file; nested columns, as bounding boxes are, are left out.

    Without the metadata of GeoParquet, points are made of columns lon and lat in degrees. Raises UsageError for what
    cannot be read, an encoding of geometries other than WKB, an unknown CRS, and where pyarrow is missing.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{path}: {NEEDED.format('GeoPackage or CSV')}") from error
    try:
        check_file(path)
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            told = (file.schema_arrow.metadata or {}).get(b"geo")
            flat = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            table = file.read(columns=flat)
        geo = None if told is None else json.loads(told)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {plainly(error)}.") from error
    if geo is None:
        x, y = position_columns(table.column_names, str(path))
        numbers = [_numbers(path, table.column(i)) for i in (x, y)]
        rest = _columns(table, {table.column_names[x], table.column_names[y]})
        return Features(str(path), CRS(4326), points_or_none(*numbers), rest)
    name, crs = geometry_column(path, geo)
    if name not in table.column_names:
        raise UsageError(f"{path} has no column {name} of WKB, which its metadata calls the geometries. Write it anew.")
    try:
        geometries = shapely.from_wkb(
            np.array(table.column(table.column_names.index(name)).to_pylist(), object), on_invalid="fix"
        )
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise UsageError(f"{path}: column {name} is no WKB: {plainly(error)}. Write it anew.") from error
    others = {str(each) for each in geo.get("columns", {})}
    return Features(str(path), crs, geometries, _columns(table, others | {name}))


def geometry_column(path: Path, geo: Any) -> tuple[str, CRS]:
    """Return the name of the column of geometries, and their CRS."""
    try:
        name = str(geo["primary_column"])
        column: Mapping[str, Any] = geo["columns"][name]
        encoding, declared = column["encoding"], column.get("crs", "OGC:CRS84")
    except (LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: its GeoParquet metadata are not whole. Write it anew.") from error
    if encoding != "WKB":
        raise UsageError(f"{path}: geometries are encoded as {str(encoding)[:40]}, and WKB is read. Write it so.")
    if declared is None:
        raise UsageError(f"{path} declares no CRS, so its place on Earth is unknown. Assign one.")
    try:
        return name, CRS.from_user_input(declared)
    except CRSError as error:
        raise UsageError(f"{path} declares a CRS that is not known. Convert it to WGS84.") from error


def _numbers(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa

    try:
        return np.asarray(column.cast("float64").to_numpy(), np.float64)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: a column of positions holds no numbers: {plainly(error)}.") from error


def _columns(table: pa.Table, without: set[str]) -> dict[str, np.ndarray]:
    found = zip(table.column_names, table.columns, strict=True)
    return {name: np.asarray(values.to_numpy()) for name, values in found if name not in without}
