"""Long tables of real labelled series from the test data of WorldCereal (MIT), as `pretrain` and `evaluate` take them.

    python -m benchmarks.real_series FOLDER OUT

FOLDER holds `dekad_2023_FRA_LPIS_POLY_110.geoparquet` (500 parcels of western France, ten-day steps),
`month_2022_FRA_LPIS_POLY_110.geoparquet` (500 of Corsica, monthly) and `test_public_extractions.parquet` (500 of
several countries, twelve months each), from https://github.com/WorldCereal/worldcereal-classification. OUT gets a table
of each: `france`, `corsica` and `world`, and the same without radar, `*_s2`. B08 stands for B8A, which the first two
lack.
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
RADAR = {"VV": "S1-SIGMA0-VV", "VH": "S1-SIGMA0-VH"}
"""Their names tell the reader of tables what their numbers mean."""
MONTHS = 12


def write(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, columns in {
        "france": _long(folder / "dekad_2023_FRA_LPIS_POLY_110.geoparquet", 2023),
        "corsica": _long(folder / "month_2022_FRA_LPIS_POLY_110.geoparquet", 2022),
        "world": _wide(folder / "test_public_extractions.parquet"),
    }.items():
        _write(out / f"{name}.parquet", columns)
        _write(out / f"{name}_s2.parquet", {key: value for key, value in columns.items() if key not in RADAR.values()})


def _long(path: Path, year: int) -> dict[str, Any]:
    """Return the rows of one calendar year; the class is the first four digits of the code."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    when = pc.cast(table["timestamp"], pa.date32())
    first, last = (pa.scalar(dt.date(year, *day)) for day in ((1, 1), (12, 31)))
    table = table.filter(pc.and_(pc.greater_equal(when, first), pc.less_equal(when, last)))
    return {
        "sample": table["sample_id"],
        "date": pc.cast(table["timestamp"], pa.date32()),
        "lon": table["lon"],
        "lat": table["lat"],
        "crop": pc.cast(pc.divide(table["ewoc_code"], 1_000_000), pa.string()),
        **{band: table["S2-L2A-B08" if band == "B8A" else f"S2-L2A-{band}"] for band in BANDS},
        **{name: table[name] for name in RADAR.values()},
    }


def _wide(path: Path) -> dict[str, Any]:
    """Return a row per sample and month, in its middle; the class is that which the samples were balanced by."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    starts = np.array(table["start_date"].to_pylist(), "datetime64[M]")
    days = [(starts + month).astype("datetime64[D]") + 14 for month in range(MONTHS)]

    def over_months(pattern: str) -> np.ndarray:
        names = [next(n for n in table.schema.names if n.startswith(pattern.format(month))) for month in range(MONTHS)]
        return np.concatenate([table[name].to_numpy() for name in names])

    told = {"sample": "sample_id", "lon": "lon", "lat": "lat", "crop": "sampling_label"}
    return {
        "date": np.concatenate(days),
        **{name: table[column].to_pylist() * MONTHS for name, column in told.items()},
        **{band: over_months(f"OPTICAL-{band}-ts{{}}-") for band in BANDS},
        **{name: over_months(f"SAR-{key}-ts{{}}-") for key, name in RADAR.items()},
    }


def _write(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("out", type=Path)
    args = options.parse_args()
    write(args.folder, args.out)


if __name__ == "__main__":
    main()
