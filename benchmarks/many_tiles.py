"""What ten thousand tiles cost where nothing is read: planning, starting, finding a finished run finished, looking.

    python -m benchmarks.many_tiles --json benchmarks/results/$(date +%F)-many-tiles.json

10,092 tiles of a year with 4,068 made-up scenes (`--side` for other sizes). Half of the tiles of the finished folder
hold a few embeddings, the others are empty. Each step runs in a process of its own: seconds on the clock, CPU seconds
of all threads, and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers import many_scenes

BARS = {"seconds": 10.0, "peak_rss_mb": 1000.0}

BEGIN = """
import json, resource, sys, time
from pathlib import Path
wall, cpu = time.perf_counter(), time.process_time()
folder, sizes = Path(sys.argv[1]), [int(each) for each in sys.argv[2:]]
area = {"aoi": folder / "aoi.geojson", "year": 2023, "catalog": str(folder / "items.ndjson.gz")}
"""
STEPS = {
    "plan": """
import tessera_cli
found = tessera_cli.plan(**area, model="null", out=folder / "plan").tiles
""",
    "start": """
import tessera_cli
from tessera_cli.runs import reading

class Started(BaseException):
    pass

def read(*arguments, **more):
    raise Started

reading.read_dpixels = read
try:
    tessera_cli.embed(**area, model="null", out=folder / "started")
except Started:
    found = "the first tile"
""",
    "finish": """
from tessera_cli.api.arguments import make_request, search_inputs
from tessera_cli.imagery import OFFICIAL
from tessera_cli.models import load_model
from tessera_cli.folders.identity import EmbedSettings
from tests.helpers import many_scenes
settings = EmbedSettings.checked(load_model("null"), "mpc", recorded="mpc")
target = settings.folder(folder / "finished")
more = {"layer": None, "source": None, "crs": None, "mask": None}
request = make_request(area["aoi"], None, 2023, None, **more, catalog=area["catalog"])
made = search_inputs(request, target, OFFICIAL, allow_missing=0, refresh=False)
target.start_run(made.key, made.record(), made.to_freeze)
many_scenes.finish(target, made.tile_requests)
found = len(made.tile_requests)
""",
    "first end": """
import tessera_cli
summary = tessera_cli.embed(**area, model="null", out=folder / "finished")
found = {status: summary.count(status) for status in ("done", "empty", "failed", "present")}
""",
    "resume": """
import tessera_cli
summary = tessera_cli.embed(**area, model="null", out=folder / "finished")
found = {status: summary.count(status) for status in ("done", "empty", "failed", "present")}
""",
    "info": """
import tessera_cli
found = tessera_cli.info(folder / "finished")["tiles"]
""",
    "verify --records-only": """
import tessera_cli
found = tessera_cli.verify(folder / "finished", records_only=True).counts
""",
}
END = """
print(json.dumps({
    "seconds": round(time.perf_counter() - wall, 2),
    "cpu_seconds": round(time.process_time() - cpu, 2),
    "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    "found": found,
}))
"""


def measure(step: str, folder: Path) -> dict[str, Any]:
    """Run one step in a process of its own; imports count."""
    command = [sys.executable, "-c", BEGIN + STEPS[step] + END, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return {"step": step, **json.loads(done.stdout)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--columns", type=int, default=many_scenes.COLUMNS)
    options.add_argument("--rows", type=int, default=many_scenes.ROWS)
    options.add_argument("--steps", help="Of these alone, in a --folder of an earlier call.")
    options.add_argument("--folder", type=Path, help="Kept; default: a temporary one.")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    steps = args.steps.split(",") if args.steps else list(STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / "aoi.geojson").exists():
            many_scenes.write_catalog(folder, args.columns, args.rows)
        rows = []
        for step in steps:
            rows.append(measure(step, folder))
            print(json.dumps(rows[-1]), flush=True)
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "tiles": args.columns * args.rows,
        "scenes": sum(1 for _ in many_scenes.items(args.columns, args.rows)),
    }
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, "bars": BARS, "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
