"""Peak resident memory of `tessera embed` against the size of the area.

    tessera simulate /tmp/big --size 1600
    python -m benchmarks.memory /tmp/big --json benchmarks/results/memory.json

Embeds squares of 1, 4 and 16 whole tiles with a year of scenes, each in a process of its own, and reports its peak
resident set and what lies in the temporary folder afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shapely

from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TILE_METRES, Tile, from_utm
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window

CASES = ((1, "null"), (2, "null"), (4, "null"), (1, "demo"))
"""Tiles per side, model."""


def square(catalog: Path, side: int) -> dict:
    """The block of whole tiles that holds most of the simulated area, as GeoJSON."""
    asked = tile_requests(Aoi.from_file(catalog / "aoi.geojson"), [Window.of_year(2023)])
    requests = {request.tile: request.count for request in asked}
    steps = range(side)
    blocks = {
        tile: sum(requests.get(Tile(tile.epsg, tile.column + i, tile.row + j), 0) for i in steps for j in steps)
        for tile in requests
    }
    west, south, _, _ = max(blocks, key=blocks.__getitem__).bounds
    box = shapely.box(west + 1, south + 1, west + side * TILE_METRES - 1, south + side * TILE_METRES - 1)
    epsg = next(iter(requests)).epsg
    lonlat = shapely.transform(shapely.segmentize(box, 500), from_utm(epsg).transform, interleaved=False)
    return shapely.geometry.mapping(lonlat)


def measure(catalog: Path, year: int, side: int, model: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        aoi, scratch = Path(folder) / "aoi.geojson", Path(folder) / "scratch"
        aoi.write_text(json.dumps(square(catalog, side)))
        scratch.mkdir()
        command = [sys.executable, "-m", "tessera_cli", "embed", "--aoi", str(aoi), "--year", str(year)]
        command += [
            "--model",
            model,
            "--catalog",
            str(catalog / "items.json"),
            "--out",
            str(Path(folder) / "out"),
            "--json",
            "-q",
        ]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *command],
            env={**os.environ, "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        *_, summary, peak = done.stdout.splitlines()
        return {
            "tiles": side * side,
            "model": model,
            "pixels": json.loads(summary)["pixels"],
            "seconds": round(time.monotonic() - started, 1),
            "peak_rss_mb": round(int(peak) / 1024),
            "scratch_files": sum(1 for path in scratch.rglob("*") if path.is_file()),
        }


_CHILD = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalog", type=Path)
    options.add_argument("--year", type=int, default=2023)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    rows = []
    for side, model in CASES:
        rows.append(measure(args.catalog, args.year, side, model))
        print(json.dumps(rows[-1]), flush=True)
    scenes = len(json.loads((args.catalog / "items.json").read_text())["features"])
    conditions = {"python": platform.python_version(), "machine": platform.machine(), "scenes": scenes}
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
