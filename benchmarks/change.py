"""False alarms and finds of `tessera change` between two simulated years, beside thresholds on distances and NDVI.

    python -m benchmarks.change --json benchmarks/results/$(date +%F)-change.json

Landscapes are simulated in two years, with weather, clouds, crops and tilth of their own; in between woods are cleared
and fields built over (`tessera simulate --changes`). Every fourth row and column is embedded by the demo model. Told
are, by place and cloud cover: the share of unchanged pixels (crops rotate; that is no change here) whose p-value is
below .1 to 10 %, what share of the pixels that are named at a false-discovery rate has not changed, and how many of
the changed are found at thresholds that name .1 to 20 % of the unchanged: of the score, of the cosine distance, and of
NDVI differencing (of the median of the year, and of monthly medians), the threshold being one for all land; and the
false alarms of smaller squares. `--halves` compares two halves of a year of real d-pixels, in which nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from scipy.special import ndtr

import tessera_cli
from tessera_cli.changes.discoveries import Discoveries
from tessera_cli.changes.ordinary import Ordinary
from tessera_cli.dpixels import find_stores
from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import cosine_distance
from tessera_cli.models import Model, load_model
from tessera_cli.sampling.halves import halves
from tessera_cli.simulate import Simulation, simulate

YEARS = 2022, 2023
CASES = "flanders:", "flanders:0.45", "flanders:0.8", "castile:", "pampas:"
LEVELS = 0.001, 0.01, 0.05, 0.1
SQUARES = 320, 160, 96
CURVE = 0.001, 0.01, 0.02, 0.05, 0.1, 0.2
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


def ndvi(line: DPixels) -> np.ndarray:
    """Return medians of NDVI by month and, last, of the year, float32 (N, 13); NaN where a month has no clear date."""
    red, near = (line.s2[:, 0, :, S2_BANDS.index(name)].astype(np.float32) for name in ("B04", "B08"))
    values = np.where(line.s2_mask[:, 0] > 0, (near - red) / np.maximum(near + red, 1), np.nan)
    months = (np.asarray(line.s2_dates).astype("datetime64[M]") - np.datetime64(line.s2_dates[0], "Y")).astype(int)
    found = np.full((values.shape[1], 13), np.nan, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a month without a date
        for month in range(12):
            if (months == month).any():
                found[:, month] = np.nanmedian(values[months == month], axis=0)
        found[:, 12] = np.nanmedian(values, axis=0)
    return found


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
            told["ndvi"] = ndvi(line)
            told["clear"] = line.counts[0].reshape(-1)
            parts.append(told)
    joined = {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
    order = np.argsort(joined["place"])
    return {"width": args.size, **{name: values[order] for name, values in joined.items()}}


def smaller(before: Any, after: Any, step: int) -> dict[str, Any]:
    """Return the false alarms of squares of SQUARES pixels a side: their mean, and how far single ones are off."""
    rows, columns = np.divmod(after["place"], before["width"])
    found = {}
    for side in SQUARES:
        rates = []
        for number in np.unique(rows // side * 1000 + columns // side):
            here = (rows // side * 1000 + columns // side == number).nonzero()[0]
            if len(here) * step**2 < side**2 / 4:
                continue
            pair = before["values"][here], after["values"][here]
            z = Ordinary.of(*pair, pixels=step**2 * len(here)).scores(*pair).z[after["changes"][here] == 0]
            rates.append([float((ndtr(-z) < level).mean()) for level in LEVELS])
        if not rates:
            continue
        off = np.sqrt(((np.array(rates) - LEVELS) ** 2).mean(axis=0))
        found[str(side)] = {
            "squares": len(rates),
            "mean": dict(zip(map(str, LEVELS), np.mean(rates, axis=0).tolist(), strict=True)),
            "off": dict(zip(map(str, LEVELS), off.tolist(), strict=True)),
        }
    return found


def halves_of(stores: list[Path], model: Model) -> dict[str, Any]:
    """Return p-values between random halves of each pixel's observations in stored d-pixels: nothing has changed."""
    told = {}
    for store in find_stores(stores):
        dpixels = store.read()
        for draw in range(3):
            both = halves(dpixels, draw, dpixels.positions(np.arange(dpixels.requested.size)))
            one, other = (encode(each, model, each.requested, threads=os.cpu_count() or 1).values for each in both)
            there = ~np.isnan(one[:, 0]) & ~np.isnan(other[:, 0])
            p = ndtr(-Ordinary.of(one[there], other[there]).scores(one[there], other[there]).z)
            counts = Discoveries()
            counts.add(p)
            rates = {str(level): float((p < level).mean()) for level in LEVELS}
            named = float((p <= counts.threshold(0.05)).mean())
            told[f"{store.name} draw {draw}"] = {"pixels": len(p), "p_below": rates, "named_at_0.05": named}
    return told


def judged(before: Any, after: Any, step: int) -> dict[str, Any]:
    distance = cosine_distance(before["values"], after["values"])
    pair = before["values"], after["values"]
    score = Ordinary.of(*pair, pixels=step**2 * len(distance)).scores(*pair).z
    moved = before["ndvi"] - after["ndvi"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without a common month
        monthly = np.nan_to_num(np.sqrt(np.nanmean(moved[:, :12] ** 2, axis=1)))
    ways = {
        "score": score,
        "distance": distance,
        "ndvi_year": np.nan_to_num(np.abs(moved[:, 12])),
        "ndvi_months": monthly,
    }
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
    found["smaller"] = smaller(before, after, step)
    found["found"] = {
        name: {
            kind: {str(share): float((of[change == code] > np.quantile(of[same], 1 - share)).mean()) for share in CURVE}
            for code, kind in ((1, "cleared"), (2, "built"))
        }
        for name, of in ways.items()
    }
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--cases", nargs="*", default=list(CASES), help="place:clouds, clouds empty for the place's own"
    )
    options.add_argument("--size", type=int, default=640)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--step", type=int, default=4)
    options.add_argument("--changes", type=float, default=0.06)
    options.add_argument("--halves", type=Path, nargs="*", help="d-pixels that `tessera fetch` stored, of real imagery")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    model, rows = load_model("demo").bind_source("mpc"), {}
    for case in args.cases:
        place, _, cloud = case.partition(":")
        share = float(cloud) if cloud else None
        with tempfile.TemporaryDirectory() as scratch:
            before, after = (year(Path(scratch), model, place, number, args, share) for number in YEARS)
        rows[case] = judged(before, after, args.step)
        print(case, json.dumps(rows[case]), flush=True)
    real = halves_of(args.halves, model) if args.halves else {}
    print(json.dumps(real), flush=True)
    if args.json:
        about = {name: value for name, value in vars(args).items() if name not in ("json", "halves")}
        args.json.write_text(json.dumps({"conditions": about, "cases": rows, "halves": real}, indent=1) + "\n")


if __name__ == "__main__":
    main()
