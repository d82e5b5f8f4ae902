"""Peak resident memory of runs over whole tiles with a year of dates, beside what they said before they started.

    python -m benchmarks.memory --json benchmarks/results/$(date +%F)-memory.json

Simulates 146 Sentinel-2 and 85 Sentinel-1 dates over 25 whole tiles (1 GB in the temporary folder; the files of twelve
passes stand for all of them) and runs `embed` and `fetch` on squares of tiles, each in a process of its own. Encoding a
whole tile takes long and its memory is taken at the beginning: runs with a network are ended after `--seconds`.
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
from pathlib import Path
from typing import Any

from benchmarks.catalogs import YEAR, make_few, make_year, square
from tessera_cli.bench.subjects import unprepared_model
from tessera_cli.models.checkpoint import save_safetensors

CASES: tuple[tuple[str, str, int, float, float], ...] = (
    ("embed", "null", 1, 0.25, 0.0),
    ("embed", "null", 1, 1.0, 0.0),
    ("embed", "null", 1, 1.0, 0.6),
    ("embed", "null", 2, 1.0, 0.0),
    ("embed", "null", 5, 1.0, 0.0),
    ("embed", "v2-medium", 1, 1.0, 0.6),
    ("embed", "v2-large", 2, 1.0, 0.6),
    ("fetch", "null", 1, 1.0, 0.6),
    ("fetch", "null", 2, 1.0, 0.0),
)
"""Verb, shape of the model, tiles per side, share of the square, mean cloud cover."""
SAID = re.compile(r"each process may take (\d+) MB beside the (\d+) MB of this one now")


def measure(catalog: Path, case: tuple[str, str, int, float, float], threads: int, seconds: float) -> dict[str, Any]:
    """Run a case and return its peak resident set (VmHWM, read as it runs) and what it expected."""
    verb, model, side, share, cloud = case
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "aoi.geojson").write_text(json.dumps(square(catalog, side, share)))
        (folder / "scratch").mkdir()
        weights: str | Path = model
        if model != "null":
            weights, shaped = folder / f"{model}.safetensors", unprepared_model(model, 0)
            assert shaped.encoder
            save_safetensors(weights, shaped.encoder, {"name": model})
        command = [sys.executable, "-m", "tessera_cli", verb, "--aoi", folder / "aoi.geojson", "--year", YEAR]
        command += ["--catalog", make_year(catalog, cloud), "--model", weights, "--out", folder / "out", "-vv"]
        command += ["--threads", threads] if verb == "embed" else []
        environ = {**os.environ, "TMPDIR": str(folder / "scratch")}
        started, peak = time.monotonic(), 0
        with (folder / "log.txt").open("w") as log:
            run = subprocess.Popen([*map(str, command)], env=environ, stdout=subprocess.DEVNULL, stderr=log)
            limit = float("inf") if model == "null" else seconds
            while run.poll() is None and time.monotonic() - started < limit:
                peak = max(peak, _peak(run.pid))
                time.sleep(0.1)
            ended = run.poll()
            run.kill()
            run.wait()
        text = (folder / "log.txt").read_text()
        said = SAID.search(text)
        if ended not in (None, 0) or said is None:
            sys.exit(text)
        expected = sum(map(int, said.groups()))
        return {
            "verb": verb,
            "model": model,
            "tiles": side**2,
            "share": share,
            "cloud": cloud,
            "seconds": round(time.monotonic() - started, 1),
            "finished": ended == 0,
            "peak_rss_mb": round(peak / 1e6),
            "expected_mb": expected,
            "expected_over_peak": round(expected / (peak / 1e6), 2),
            "scratch_files": sum(1 for path in (folder / "scratch").rglob("*") if path.is_file()),
        }


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:  # it has just ended
        return 0
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalog", type=Path, nargs="?", help="Of an earlier measurement; made if it is not there.")
    options.add_argument("--case", type=int, action="append", help="Number of a case, from 0; all by default.")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seconds", type=float, default=240)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalog = args.catalog or Path(scratch) / "catalog"
        if not (catalog / "items.json").exists():
            make_few(catalog)
        rows, load = [], os.getloadavg()
        for number in args.case or range(len(CASES)):
            rows.append(measure(catalog, CASES[number], args.threads, args.seconds))
            print(json.dumps(rows[-1]), flush=True)
        scenes = len(json.loads(make_year(catalog, 0).read_text())["features"])
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "load_average": [load, os.getloadavg()],
        "scenes": scenes,
    }
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
