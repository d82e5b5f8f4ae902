"""What several processes on one machine are worth in training: N of one thread against one of N threads.

    python -m benchmarks.training_processes --json benchmarks/results/$(date +%F)-training-processes.json

The same run on made-up pixels, with the same joint batch, in three forms that take turns: one process with one thread,
one with N threads, N with one each. Rates are those that the runs log, without start-up, measures and checkpoints;
the first interval is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tessera_cli.bench import machine
from tessera_cli.bench.workload import synthetic
from tessera_cli.dpixels import write_folder


def measure(folder: Path, form: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train in one of the forms; return its pixels per second."""
    processes, threads = {"alone": (1, 1), "threads": (1, count), "processes": (count, 1)}[form]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(several if processes > 1 else []), "-m", "tessera_cli", "pretrain"]
        command += [str(folder / "tile"), "--shards", str(folder / "shards"), "--out", out, "--preset", options.preset]
        command += ["--steps", str(options.steps), "--device", "cpu", "-qq"]
        interval = max(1, options.steps // 4)
        keys = {"train.log_every": interval, "train.save_every": 10**6, "train.eval_every": 10**6}
        keys |= {"train.precision": options.precision, "probe.pixels": 64}
        command += [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        rows = map(json.loads, (Path(out) / "metrics.jsonl").read_text().splitlines())
        rates = [row["pixels_per_second"] for row in rows if row["kind"] == "train"]
    return {"form": form, "pixels_per_second": statistics.median(rates[1:] or rates)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--count", type=int, default=2, help="N.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    forms, rounds = ("alone", "threads", "processes"), []
    conditions = machine.conditions("cpu", options.count)
    with tempfile.TemporaryDirectory() as scratch:
        write_folder(Path(scratch) / "tile", synthetic(4096, clouds=True).dpixels)
        for number in range(options.rounds):
            for form in forms[number % 3 :] + forms[: number % 3]:
                rounds.append(measure(Path(scratch), form, options.count, options))
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    rates = {
        form: statistics.median(row["pixels_per_second"] for row in rounds if row["form"] == form) for form in forms
    }
    asked = {key: value for key, value in vars(options).items() if key != "json"}
    result = {"pixels_per_second": rates, "conditions": {**conditions, **asked}, "rounds": rounds}
    print(json.dumps(rates, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
