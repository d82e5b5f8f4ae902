"""Long tables for tests: d-pixels written a row per pixel and date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet
from pyproj import Transformer

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, DPixels
from tessera_cli.extent.grid import pixel_positions

WORLDCEREAL = Path("WorldCereal+worldcereal-classification/head/dekad_2023_FRA_LPIS_POLY_110.geoparquet")


def rows_of(dpixels: DPixels) -> list[dict[str, Any]]:
    """All valid observations of the requested pixels, scaled as they are; optical and radar ones in their own rows."""
    numbers = np.flatnonzero(dpixels.requested)
    places = pixel_positions(dpixels.tile, numbers)
    lon, lat = Transformer.from_crs(dpixels.tile.crs, 4326, always_xy=True).transform(*places[:, 1:].T)
    heads = [
        {"sample": f"{dpixels.tile.id}-{number}", "lon": x, "lat": y}
        for number, x, y in zip(numbers.tolist(), np.asarray(lon).tolist(), np.asarray(lat).tolist(), strict=True)
    ]
    rows = []

    def add(frames, valid, dates, names, **more):
        flat = frames.reshape(len(frames), -1, len(names))[:, numbers]
        there = valid.reshape(len(frames), -1)[:, numbers]
        for frame, pixel in zip(*np.nonzero(there), strict=True):
            values = dict(zip(names, flat[frame, pixel].tolist(), strict=True))
            rows.append({**heads[pixel], "date": dates[frame].item(), **values, **more})

    add(dpixels.s2, dpixels.s2_mask != 0, dpixels.s2_dates, S2_BANDS, clear=True)
    add(dpixels.s1_asc, dpixels.s1_asc_valid, dpixels.s1_asc_dates, S1_BANDS, orbit="ascending")
    add(dpixels.s1_desc, dpixels.s1_desc_valid, dpixels.s1_desc_dates, S1_BANDS, orbit="descending")
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def write_rows(path: Path, rows: Sequence[dict[str, Any]], **more: Any) -> Path:
    """Write rows as the table that the name of the file says."""
    table = table_of(rows)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path, **more)
    return path


def optical(sample: str, date: str, value: float = 1000, **more: Any) -> dict[str, Any]:
    """A row whose bands are `value`, `value` + 1 and so on, in the order of S2_BANDS."""
    return {"sample": sample, "date": date, **{band: value + i for i, band in enumerate(S2_BANDS)}, **more}
