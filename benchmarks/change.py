"""False alarms and finds of `tessera change` between two simulated years, beside a global threshold on distances.

    python -m benchmarks.change --json benchmarks/results/$(date +%F)-change.json

A landscape is simulated in two years, with weather, clouds, crops and tilth of their own; in between woods are cleared
and fields built over (`tessera simulate --changes`). Every fourth row and column is embedded by the demo model, with
uncertainties. Told are, by cloud cover: the share of unchanged pixels (crops rotate; that is no change here) that is
named at p-values of .01 to 10 %, what share of the pixels that are named at a false-discovery rate has not changed,
and how many of the changed are found where 5 % of the unchanged are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from scipy.special import ndtr

import tessera_cli
from tessera_cli.changes.discoveries import Discoveries
from tessera_cli.changes.ordinary import Ordinary
from tessera_cli.dpixels import find_stores
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import cosine_distance, uncertainty
from tessera_cli.models import Model, load_model
from tessera_cli.simulate import Simulation, simulate

YEARS = 2022, 2023
LEVELS = 0.0001, 0.001, 0.01, 0.05, 0.1
RATES = 0.01, 0.05, 0.2
PERMANENT = 6, 7, 8, 9, 10
"""Codes of meadows, woods, water and town."""


def some_pixels(dpixels: DPixels, made: Simulation, step: int) -> tuple[DPixels, dict[str, np.ndarray]]:
    """Return every `step`-th pixel of each row and column that lies in a parcel, in a row, and what is true of them."""
    folder = made.items.parent
    rasters = {}
    for name in ("parcels", "labels", "changes"):
        path = folder / f"{name}.tif"
        if path.exists():
            with rasterio.open(path) as file:
                rasters[name], transform = file.read(1), file.transform
    height, width = dpixels.requested.shape
    rows, columns = np.indices((height, width))
    assert dpixels.tile.transform is not None
    x, y = dpixels.tile.transform * (columns + 0.5, rows + 0.5)
    column, row = (np.floor(each).astype(int) for each in ~transform * (x, y))
    shape = rasters["parcels"].shape
    take = dpixels.requested & (dpixels.counts[0] > 0) & (row >= 0) & (column >= 0)
    take &= (row < shape[0]) & (column < shape[1]) & (row % step == 0) & (column % step == 0)
    take[take] = rasters["parcels"][row[take], column[take]] > 0
    told = {name: values[row[take], column[take]] for name, values in rasters.items()}
    return dpixels.row(np.flatnonzero(take)), {**told, "place": row[take] * shape[1] + column[take]}


def year(root: Path, model: Model, place: str, number: int, args: argparse.Namespace, cloud: float | None) -> Any:
    """Return embeddings, uncertainties and the truth of one year, by place."""
    changes = args.changes if number == YEARS[1] else 0.0
    made = simulate(root / "c", place=place, size=args.size, year=number, seed=args.seed, cloud=cloud, changes=changes)
    shutil.rmtree(root / "d", ignore_errors=True)
    tessera_cli.fetch(made.aoi, year=number, catalog=str(made.items), model="none", out=root / "d")
    parts: list[dict[str, np.ndarray]] = []
    for store in find_stores([root / "d"]):
        line, told = some_pixels(store.read(), made, args.step)
        if line.requested.size:
            whole, threads = line.requested, os.cpu_count() or 1
            told["values"] = encode(line, model, whole, threads=threads).values
            told["noise"] = uncertainty(line, model, whole, draws=args.draws, threads=threads)
            told["clear"] = line.counts[0].reshape(-1)
            parts.append(told)
    joined = {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
    order = np.argsort(joined["place"])
    return {name: values[order] for name, values in joined.items()}


def judged(before: Any, after: Any) -> dict[str, Any]:
    distance = cosine_distance(before["values"], after["values"])
    noise = before["noise"].astype(np.float64) + after["noise"]
    score = Ordinary.of(before["values"], distance, noise).scores(before["values"], distance, noise)
    change, lasting = after["changes"], np.isin(before["labels"], PERMANENT)
    same, p = change == 0, ndtr(-score)
    found: dict[str, Any] = {
        "pixels": len(p),
        "parcels": len(np.unique(before["parcels"])),
        "clear_dates": [float(each["clear"].mean()) for each in (before, after)],
        "false_alarms": {
            name: {str(level): float((p[which] < level).mean()) for level in LEVELS}
            for name, which in (("unchanged", same), ("lasting", same & lasting), ("crops", same & ~lasting))
        },
    }
    counts = Discoveries()
    counts.add(p)
    named = {str(rate): p <= counts.threshold(rate) for rate in RATES}
    found["named"] = {rate: int(which.sum()) for rate, which in named.items()}
    found["false_share_of_named"] = {
        rate: float(same[which].mean()) if which.any() else None for rate, which in named.items()
    }
    for name, of in (("score", score), ("distance", distance)):
        least = np.quantile(of[same], 0.95)
        found[f"found_by_{name}"] = {
            kind: float((of[change == code] > least).mean()) for code, kind in ((1, "cleared"), (2, "built"))
        }
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--place", default="flanders")
    options.add_argument("--size", type=int, default=640)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--step", type=int, default=4)
    options.add_argument("--draws", type=int, default=2)
    options.add_argument("--changes", type=float, default=0.06)
    options.add_argument("--clouds", type=float, nargs="*", default=[0.45, 0.65, 0.8])
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    model, rows = load_model("demo").bind_source("mpc"), {}
    for cloud in args.clouds:
        with tempfile.TemporaryDirectory() as scratch:
            before, after = (year(Path(scratch), model, args.place, number, args, cloud) for number in YEARS)
        rows[str(cloud)] = judged(before, after)
        print(cloud, json.dumps(rows[str(cloud)]), flush=True)
    if args.json:
        about = {name: value for name, value in vars(args).items() if name != "json"}
        args.json.write_text(json.dumps({"conditions": about, "clouds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
