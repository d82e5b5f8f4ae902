"""What a whole tile costs, and how much memory is held, in runs of 4, 9 and 25 tiles.

    python -m benchmarks.tiles --json benchmarks/results/$(date +%F)-tiles.json

Simulates 8 Sentinel-2 and 4 Sentinel-1 passes over 25 whole tiles (1 GB in the temporary folder): few, so that whatever
grows with the number of tiles stands out, and all without clouds, so that every tile is the same work. The squares are
embedded with the model `null`, each run in a process of its own, the sizes taking turns. Start-up (imports, the search)
is not counted. Time on the clock counts from the end of the first reading, when all stages are at work; the CPU time of
all threads is of the whole run, and other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.catalogs import make_few, square

SIDES = (2, 3, 5)
BAR = 1.10

CHILD = """
import json, resource, sys, time
from pathlib import Path
from tessera_cli.extent.aoi import Aoi
from tessera_cli.catalog import MPC
from tessera_cli.imagery import Reader
from tessera_cli.runs.inputs import CatalogInputs
from tessera_cli.models import load_model
from tessera_cli.net import Client
from tessera_cli.runs.embed import embed
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.planning.scene_search import Request, search_scenes
from tessera_cli.extent.window import Window

aoi, items, out = sys.argv[1:]
request = Request(Aoi.from_file(Path(aoi)), (Window.of_year(2023),), MPC, items)
settings = EmbedSettings.checked(load_model("null"), "mpc")
folder, reader = settings.folder(Path(out)), Reader(Client())
inputs = CatalogInputs(search_scenes(request, reader.client, folder), reader)
cpu = time.process_time()
summary = embed(inputs, settings, folder)
cpu, tiles = time.process_time() - cpu, summary.count("done")
print(json.dumps({
    "tiles": tiles, "pixels": summary.pixels, "cpu_seconds_per_tile": cpu / tiles,
    "seconds_per_tile": (summary.seconds - summary.stages["start"]) / tiles,
    "stages": {stage: seconds / tiles for stage, seconds in summary.stages.items()},
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
}))
"""


def measure(catalog: Path, side: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        aoi = Path(folder) / "aoi.geojson"
        aoi.write_text(json.dumps(square(catalog, side)))
        command = [sys.executable, "-c", CHILD, aoi, catalog / "items.json", Path(folder) / "out"]
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, check=True, text=True)
        return json.loads(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalog", type=Path, nargs="?", help="Of an earlier measurement; made if it is not there.")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalog = args.catalog or Path(scratch) / "catalog"
        if not (catalog / "items.json").exists():
            make_few(catalog)
        scenes = len(json.loads((catalog / "items.json").read_text())["features"])
        rounds = []
        for _ in range(args.rounds):
            for side in SIDES:
                rounds.append(measure(catalog, side))
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    rows = [
        {
            key: statistics.median(row[key] for row in rounds if row["tiles"] == side * side)
            for key in rounds[0]
            if key != "stages"
        }
        for side in SIDES
    ]
    ratios = {
        key: max(row[key] for row in rows) / min(row[key] for row in rows)
        for key in ("seconds_per_tile", "cpu_seconds_per_tile")
    }
    result = {
        "conditions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "scenes": scenes,
            "rounds": args.rounds,
        },
        "largest_over_smallest": ratios,
        "bar": BAR,
        "medians": rows,
        "rounds": rounds,
    }
    print(json.dumps({"largest_over_smallest": ratios, "bar": BAR, "medians": rows}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
