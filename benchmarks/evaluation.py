"""What the demo embedding is worth on a simulated landscape, and what an evaluation takes.

    python -m benchmarks.evaluation --json benchmarks/results/$(date +%F)-evaluation.json

Three cases: `landscape` simulates fields, embeds and fetches a pixel of each, and evaluates the demo model beside raw
baselines at 1 to 100 % of the parcels; `samples` times five sets of features of 20,000 samples with ten draws; `pixels`
evaluates 10 million labelled pixels and reads the peak resident memory. Every evaluation runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

YEAR = 2023
EVALUATE = "import json, sys, tessera_cli; tessera_cli.evaluate(**json.loads(sys.argv[1]))"


def evaluate(**given: Any) -> dict[str, Any]:
    """Run `tessera_cli.evaluate` in a process of its own; return seconds, peak memory and the report."""
    started, peak = time.monotonic(), 0
    run = subprocess.Popen([sys.executable, "-c", EVALUATE, json.dumps(given)])
    while run.poll() is None:
        peak = max(peak, _peak(run.pid))
        time.sleep(0.1)
    if run.returncode:
        sys.exit(run.returncode)
    report = json.loads((Path(given["out"]) / "report.json").read_text())
    return {"seconds": round(time.monotonic() - started, 1), "peak_rss_mb": round(peak / 1e6), "report": report}


def landscape(folder: Path, size: int) -> dict[str, Any]:
    """The demo model on fields it was not trained on: ten classes of cover, about 1 parcel per 225 pixels."""
    catalog = folder / "catalog"
    _tessera("simulate", catalog, "--size", size)
    parcels = json.loads((catalog / "labels.geojson").read_text())
    for each in parcels["features"]:
        inside = shapely.point_on_surface(shapely.geometry.shape(each["geometry"]))
        each["geometry"] = shapely.geometry.mapping(inside)
    points = catalog / "points.geojson"
    points.write_text(json.dumps(parcels))
    area = ["--points", points, "--catalog", catalog / "items.json", "--year", YEAR, "--model", "demo", "-q"]
    _tessera("embed", *area, "--out", folder / "embeddings")
    _tessera("fetch", *area, "--out", folder / "dpixels")
    found = evaluate(
        inputs=[str(folder / "embeddings")],
        labels=str(points),
        column="class",
        dpixels=[str(folder / "dpixels")],
        model=["demo"],
        adapter=["logistic", "knn"],
        out=str(folder / "report"),
    )
    return {
        **_told(found),
        "size": size,
        "parcels": len(parcels["features"]),
        "split": found["report"]["split"],
        "rows": _rows(found["report"]),
        "verdicts": found["report"]["verdicts"],
    }


def samples(folder: Path, count: int = 20_000) -> dict[str, Any]:
    """Five sets of 128 features, ten classes, parcels of five samples on 200 km: 1 to 100 % with ten draws."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    parcels = np.repeat(np.arange(count // 5), 5)
    kinds = rng.integers(0, 10, count // 5)[parcels]
    place = rng.uniform((4, 50), (7, 52), (count // 5, 2))[parcels] + rng.uniform(0, 1e-3, (count, 2))
    columns = {"crop": [f"crop {kind}" for kind in kinds], "parcel": parcels, "lon": place[:, 0], "lat": place[:, 1]}
    for name in "abcde":
        means = rng.standard_normal((10, 128))[kinds]
        values = (means + 4 * rng.standard_normal((count, 128))).astype(np.float32)
        columns |= {f"{name}_{number}": values[:, number] for number in range(128)}
    table = folder / "samples.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), table)
    found = evaluate(
        inputs=str(table),
        column="crop",
        group="parcel",
        features=[f"{name}_" for name in "abcde"],
        out=str(folder / "report"),
        samples=count,
    )
    return {**_told(found), "samples": count}


def pixels(folder: Path, side: int = 3200) -> dict[str, Any]:
    """A raster of 16 float32 features and one of classes, with 10 million labelled pixels."""
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    kinds = rng.integers(1, 9, (side // 32, side // 32)).repeat(32, 0).repeat(32, 1)
    common = {"driver": "GTiff", "height": side, "width": side, "crs": "EPSG:32631", "tiled": True}
    common["transform"] = from_origin(500_000, 5_600_000, 10, 10)
    with rasterio.open(folder / "labels.tif", "w", count=1, dtype="uint8", nodata=0, **common) as file:
        file.write(kinds.astype(np.uint8), 1)
    with rasterio.open(folder / "features.tif", "w", count=16, dtype="float32", nodata=np.nan, **common) as file:
        for band in range(1, 17):
            means = rng.standard_normal(9).astype(np.float32)[kinds]
            file.write(means + 2 * rng.standard_normal((side, side), dtype=np.float32), band)
    found = evaluate(
        inputs=str(folder / "features.tif"),
        labels=str(folder / "labels.tif"),
        adapter=["logistic"],
        out=str(folder / "report"),
    )
    return {**_told(found), "pixels": side * side}


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("seconds", "peak_rss_mb")}


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the table shows: one row per features, adapter and share of the labels."""
    return [
        {
            "features": row["features"],
            "adapter": row["adapter"],
            "labels": row["labels"],
            **{name: (row.get(name) or {}).get("macro_f1") for name in ("metrics", "low", "high")},
        }
        for row in report["results"]
        if row.get("labels") is not None
    ]


def _tessera(*arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "tessera_cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:  # it has just ended
        return 0
    return int(found[1]) * 1024 if found else 0


def _print(rows: list[dict[str, Any]]) -> None:
    for row in sorted(rows, key=lambda row: (row["labels"], row["adapter"], -(row["metrics"] or 0))):
        shown = [
            f"{100 * value:5.1f}" if value is not None else "  -  "
            for value in map(row.get, ("metrics", "low", "high"))
        ]
        print(f"{row['labels']:>6.0%}  {row['adapter']:9}  {row['features']:32}  {shown[0]} [{shown[1]}, {shown[2]}]")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--case", choices=("landscape", "samples", "pixels"), action="append")
    options.add_argument(
        "--size", type=int, default=768, help="Of the landscape, in pixels: 1 % of its parcels are to be ten at least."
    )
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    cases: dict[str, Callable[[Path], dict[str, Any]]] = {
        "landscape": lambda folder: landscape(folder, args.size),
        "samples": samples,
        "pixels": pixels,
    }
    load, made = os.getloadavg(), {}
    for name in args.case or cases:
        with tempfile.TemporaryDirectory() as scratch:
            made[name] = cases[name](Path(scratch))
        _print(made[name].get("rows", []))
        print(
            json.dumps({name: {key: value for key, value in made[name].items() if key not in ("rows", "verdicts")}}),
            flush=True,
        )
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": [load, os.getloadavg()],
    }
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, **made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
