"""What a second process is worth: `embed --workers 2` on two cores against one single-threaded process.

    python -m benchmarks.processes --json benchmarks/results/$(date +%F)-processes.json

With random weights of v2-medium's shape, each process for five minutes: two take twice as many stored tiles. They take
turns with one, so that whatever else the machine does falls on both. Rates are pixels by the seconds of whole runs,
with start-up and the uneven end. `bar` is what `ratio` is to reach on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tessera_cli.bench.subjects import unprepared_model
from tessera_cli.bench.workload import synthetic
from tessera_cli.dpixels import write_folder
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.models.checkpoint import save_safetensors

BAR = 1.8


def make(folder: Path, model: str, tiles: int, pixels: int) -> None:
    """Write weights, and tiles of so many pixels each."""
    shaped = unprepared_model(model, 0)
    assert shaped.encoder
    save_safetensors(folder / "model.safetensors", shaped.encoder, {"name": model})
    (folder / "stores").mkdir()
    for number in range(tiles):
        dpixels = synthetic(pixels, seed=number).dpixels
        write_folder(folder / "stores", dataclasses.replace(dpixels, tile=ForeignTile(f"tile{number:03}", (1, pixels))))


def measure(folder: Path, workers: int, tiles: int) -> dict[str, Any]:
    """Embed so many tiles in so many processes; return the pixels per second of the whole run."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", "tessera_cli", "embed", "--source", "mpc", "--format", "npy", "--out", out]
        for store in sorted((folder / "stores").iterdir())[:tiles]:
            command += ["--dpixels", store]
        command += ["--model", folder / "model.safetensors", "--device", "cpu", "--threads", "1", "--json", "-qq"]
        command += ["--workers", workers] if workers > 1 else []
        environ = {**os.environ, "OMP_NUM_THREADS": str(workers)}
        started = time.monotonic()
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, env=environ, check=True)
        seconds = time.monotonic() - started
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["tiles"]["done"] == tiles, summary
    return {
        "workers": workers,
        "pixels_per_second": summary["pixels"] / seconds,
        "seconds": seconds,
        "resources": summary["resources"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="v2-medium")
    options.add_argument("--tiles", type=int, default=64, help="For each process.")
    options.add_argument("--pixels", type=int, default=160, help="Per tile; 64 x 160 take a core about five minutes.")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    rounds, load = [], os.getloadavg()
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), args.model, args.workers * args.tiles, args.pixels)
        for number in range(args.rounds):
            for workers in (1, args.workers) if number % 2 == 0 else (args.workers, 1):
                rounds.append(measure(Path(scratch), workers, workers * args.tiles))
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    rates = {
        workers: statistics.median(row["pixels_per_second"] for row in rounds if row["workers"] == workers)
        for workers in (1, args.workers)
    }
    result = {
        "conditions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": [load, os.getloadavg()],
            "model": args.model,
            "tiles": args.tiles,
            "pixels": args.pixels,
        },
        "ratio": rates[args.workers] / rates[1],
        "bar": BAR,
        "pixels_per_second": rates,
        "rounds": rounds,
    }
    print(json.dumps({key: result[key] for key in ("ratio", "bar", "pixels_per_second")}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
