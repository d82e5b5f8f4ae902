"""Samples as GeoParquet 1.1: WKB with its CRS, a bounding box per row so that readers can skip what is elsewhere."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.errors import UsageError
from tessera_cli.tables.samples import Samples

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("xmin", "ymin", "xmax", "ymax")
TYPES = {"point": ["Point"], "polygon": ["Polygon", "MultiPolygon"]}


def check_installed(path: Path) -> None:
    """Raise UsageError where pyarrow is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            f'{path}: Parquet needs another package. Run: pip install "tessera-embed[tables]", or give a name in .csv.'
        )


def write(path: Path, batches: Iterable[Samples]) -> None:
    """Write a file, each batch as one row group."""
    from pyarrow import parquet

    writer = None
    try:
        for samples in batches:
            table = _table(samples)
            if writer is None:
                texts = [field.name for field in table.schema if str(field.type) == "string"]
                writer = parquet.ParquetWriter(
                    path, table.schema, compression="zstd", use_dictionary=texts, write_page_checksum=True
                )
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
    finally:
        if writer is not None:
            writer.close()


def _table(samples: Samples) -> pa.Table:
    import pyarrow as pa

    columns = {name: _array(values) for name, values in samples.columns().items()}
    for name in SENSORS:
        columns[name] = columns[name].cast(pa.uint16() if samples.std is None else pa.float32())
    many = len(samples.windows)
    geometries = samples.places.geometries
    columns["geometry"] = pa.array(np.repeat(shapely.to_wkb(geometries), many), pa.binary())
    bounds = np.repeat(shapely.bounds(geometries), many, axis=0)
    columns["bbox"] = pa.StructArray.from_arrays(
        [pa.array(side) for side in bounds.T], SIDES, mask=pa.array(np.isnan(bounds[:, 0]))
    )
    columns |= {name: _array(values) for name, values in samples.bands().items()}
    return pa.table(columns).replace_schema_metadata({"geo": json.dumps(_metadata(samples))})


def _array(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    # text: of a batch without any, the type would be another
    return pa.array(values, pa.string() if values.dtype == object else None, from_pandas=True)


def _metadata(samples: Samples) -> dict[str, Any]:
    column = {
        "encoding": "WKB",
        "geometry_types": TYPES[samples.places.kind],
        "crs": CRS(4326).to_json_dict(),
        "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
