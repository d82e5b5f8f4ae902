"""What a student keeps of its teacher, and what an encoder forgets that goes on elsewhere: on simulated landscapes.

    python -m benchmarks.distillation --json benchmarks/results/$(date +%F)-distillation.json

Landscapes are PLACE:YEAR:SEED as in `benchmarks.landscapes`; with `--lands DIR` they are kept, and taken where they
are.

`student`: a teacher learns on the landscapes of `--train`; a student of a tenth of its parameters learns from it, and
the same student by the twin loss alone, with as many steps on as many views. All are embedded on `--test`, which none
of them has seen, and probed by logistic regression with 1, 10 and 100 % of the labels. Cosines to the teacher are those
of a linear map, fitted on one half of the test pixels from all dates, on the other half from fewer. Speed is the median
of three rounds, in which all take turns on the test pixels.

`forgetting`: an encoder learns on `--train` and goes on with the pixels of `--region`, with and without guards. Probed
on `--test` (the first place) and on `--region-test` (the new one), before and after.
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEACHER = {
    "model.latent": 36,
    "model.layers": 2,
    "model.heads": 4,
    "model.feedforward": 384,
    "model.representation": 128,
}
STUDENT = TEACHER | {"model.latent": 12, "model.layers": 1, "model.heads": 2, "model.feedforward": 64}
COMMON = {"train.batch": 256, "train.eval_every": 100_000, "train.log_every": 50, "views.drop_s1": 0.1}
IDENTITY = {"teacher.head": "identity"}
GUARDS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "none": ({}, False),
    "lr 2e-4": ({"optim.lr": 2e-4}, False),
    "teacher": (IDENTITY, True),
    "teacher, twins 0.02": (IDENTITY | {"loss.twins": 0.02}, True),
    "teacher, twins 1": (IDENTITY | {"loss.twins": 1.0}, True),
    "teacher, twins 0.02, lr 2e-4": (IDENTITY | {"loss.twins": 0.02, "optim.lr": 2e-4}, True),
}
"""Name -> settings, and whether the initial encoder is the teacher."""
DATES = (5, 10, 20)
ROUNDS = 3
ENCODE = "import json, sys; from benchmarks import distillation; distillation.compare(*json.loads(sys.argv[1]))"
EVALUATE = "import json, sys, tessera_cli; tessera_cli.evaluate(**json.loads(sys.argv[1]))"


def student(folder: Path, lands: Lands, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train a teacher, a student of it, and the student alone; return what each is worth and takes."""
    of, shards = lands.dpixels(options.train), folder / "shards"
    steps = {"train.steps": options.steps, "train.seed": seed}
    made = {
        "teacher": pretrain(folder / "teacher", shards, of, TEACHER | steps),
        "student": pretrain(folder / "student", shards, of, STUDENT | steps, teacher=folder / "teacher"),
        "alone": pretrain(folder / "alone", shards, of, STUDENT | steps),
    }
    for settings in options.variant:
        more = dict(each.split("=", 1) for each in settings.split())
        made[settings] = pretrain(folder / settings, shards, of, STUDENT | steps | more, teacher=folder / "teacher")
    models = {name: folder / name for name in made}
    scores = probe(folder / "probe", models, lands.land(options.test))
    told = json.dumps([[str(path) for path in models.values()], str(lands.land(options.test) / "dpixels")])
    found = subprocess.run([sys.executable, "-c", ENCODE, told], check=True, stdout=subprocess.PIPE).stdout
    compared = dict(zip(models, json.loads(found), strict=True))
    return {name: {**made[name], **compared[name], "probe": scores[name]} for name in made}


def forgetting(folder: Path, lands: Lands, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train on one place, go on in another under each guard; return what each is worth in both."""
    steps = {"train.steps": options.steps, "train.seed": seed}
    pretrain(folder / "before", folder / "shards", lands.dpixels(options.train), STUDENT | steps)
    models, before = {"before": folder / "before"}, folder / "before"
    for name, (settings, taught) in GUARDS.items():
        new = STUDENT | steps | {"train.steps": options.more_steps} | settings
        teacher = before if taught else None
        pretrain(folder / name, folder / "new", lands.dpixels(options.region), new, teacher=teacher, init_from=before)
        models[name] = folder / name
    pretrain(folder / "new alone", folder / "new", lands.dpixels(options.region), STUDENT | steps)
    models["new alone"] = folder / "new alone"
    return {
        where: probe(folder / where, models, lands.land(spec))
        for where, spec in (("old place", options.test), ("new place", options.region_test))
    }


class Lands:
    """Landscapes in a folder, made where they are asked for."""

    def __init__(self, folder: Path, pixels: int) -> None:
        self.folder, self.pixels = folder, pixels

    def land(self, spec: str) -> Path:
        made = self.folder / spec.replace(":", "_")
        if not (made / "dpixels").is_dir():
            command = ["-m", "benchmarks.landscapes", str(self.folder), spec, "--pixels", str(self.pixels)]
            subprocess.run([sys.executable, *command], check=True)
        return made

    def dpixels(self, specs: Sequence[str]) -> list[Path]:
        return [self.land(spec) / "dpixels" for spec in specs]


def pretrain(
    out: Path,
    shards: Path,
    dpixels: Sequence[Path],
    settings: Mapping[str, Any],
    *,
    teacher: Path | None = None,
    init_from: Path | None = None,
) -> dict[str, Any]:
    """Run `tessera pretrain` and return seconds, without shards and the teacher's embeddings, and parameters."""
    sets = [part for key, value in (COMMON | dict(settings)).items() for part in ("--set", f"{key}={value}")]
    named = [("--teacher", teacher), ("--init-from", init_from)]
    more = [str(part) for name, path in named if path for part in (name, path)]
    began = time.monotonic()
    _tessera("pretrain", *dpixels, "--shards", shards, "--preset", "tiny", *sets, *more, "--threads", 1, "--out", out)
    seconds = time.monotonic() - began
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = sum(row["seconds"] for row in rows if row["kind"] == "train")
    return {"seconds": round(seconds, 1), "training_seconds": round(trained, 1), "parameters": _parameters(out)}


def probe(folder: Path, models: Mapping[str, Path], land: Path) -> dict[str, dict[str, Any]]:
    """Return accuracy and macro-F1 by logistic regression, with intervals, by model and share of the labels."""
    folder.mkdir(parents=True)
    names = {}
    for number, (name, path) in enumerate(models.items()):
        names[name] = f"m{number}"
        _tessera("embed", "--dpixels", land / "dpixels", "--model", path, "--out", folder / names[name])
    asked = {
        "inputs": [str(folder / name) for name in names.values()],
        "labels": str(land / "points.geojson"),
        "column": "class",
        "adapter": ["logistic"],
        "budgets": "1,10,100",
        "out": str(folder / "report"),
    }
    subprocess.run([sys.executable, "-c", EVALUATE, json.dumps(asked)], check=True)
    report = json.loads((folder / "report" / "report.json").read_text())
    found: dict[str, dict[str, Any]] = {name: {} for name in models}
    for row in report["results"]:
        for name, short in names.items():
            if row["features"] == short and row["adapter"] == "logistic" and row.get("labels") is not None:
                wanted = ("accuracy", "macro_f1")
                found[name][f"{row['labels']:g}"] = {
                    kind: {each: (row.get(kind) or {}).get(each) for each in wanted}
                    for kind in ("metrics", "low", "high")
                }
    return found


def compare(paths: Sequence[str], dpixels: str) -> None:
    """Print a mapping per model as JSON: cosines to the first one's embeddings over the number of dates, and speed."""
    from tessera_cli.evaluation.thinning import fewer_dates
    from tessera_cli.extent.window import Window
    from tessera_cli.models import load_model
    from tessera_cli.pretraining.config import DataConfig
    from tessera_cli.pretraining.data.inputs import find_inputs, select
    from tessera_cli.pretraining.evaluation.metrics import agreement
    from tessera_cli.sampling.ragged import concatenated
    from tessera_cli.series.encode import encode_series

    stores = find_inputs([Path(dpixels)])
    pixels = concatenated([select(store, DataConfig(), number).pixels for number, store in enumerate(stores)])
    window = stores[0].window
    assert isinstance(window, Window)
    half = np.arange(len(pixels)) % 2 == 0
    views = {"all": pixels, **{str(dates): fewer_dates(pixels, dates) for dates in DATES}}
    found, target = [], None
    models = [load_model(path, device="cpu", precision="fp32").bind_source(stores[0].source) for path in paths]
    for model in models:
        made = {
            name: encode_series(view, window, model, threads=2).values.astype(float) for name, view in views.items()
        }
        target = made["all"] if target is None else target
        rows = {name: np.c_[values, np.ones(len(values))] for name, values in made.items()}
        fitted, ridge = rows["all"][half], np.eye(rows["all"].shape[1])
        weights = np.linalg.solve(fitted.T @ fitted + 1e-4 * len(fitted) * ridge, fitted.T @ target[half])
        found.append({name: round(agreement(target[~half], rows[name][~half] @ weights), 4) for name in views})
    speeds: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, speed in zip(models, speeds, strict=True):
            began = time.perf_counter()
            encode_series(pixels, window, model, threads=1)
            speed.append(len(pixels) / (time.perf_counter() - began))
    both = zip(found, speeds, strict=True)
    print(json.dumps([{"cosine": one, "pixels_per_second": round(statistics.median(speed))} for one, speed in both]))


def _parameters(run: Path) -> int:
    from tessera_cli.models.load import read_model

    encoder = read_model(run).encoder
    assert encoder is not None
    return sum(each.numel() for each in encoder.parameters())


def _tessera(*arguments: Any) -> None:
    command = [sys.executable, "-m", "tessera_cli", *map(str, arguments), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _lines(results: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a line per model: accuracy and macro-F1 in percent at each share of the labels."""
    if isinstance(results, dict) and any(isinstance(each, dict) and "metrics" in each for each in results.values()):
        shown = [
            f"{share:>5}: " + " / ".join(f"{100 * (one['metrics'][key] or 0):5.1f}" for key in ("accuracy", "macro_f1"))
            for share, one in results.items()
            if isinstance(one, dict) and one.get("metrics")
        ]
        yield f"{'  '.join(path):50} {'   '.join(shown)}"
    elif isinstance(results, dict):
        for name, each in results.items():
            yield from _lines(each, (*path, name))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--case", choices=("student", "forgetting"), action="append")
    options.add_argument("--train", nargs="+", default=["flanders:2022:1", "mazovia:2023:2"])
    options.add_argument("--test", default="flanders:2023:7")
    options.add_argument("--region", nargs="+", default=["castile:2022:3"])
    options.add_argument("--region-test", default="castile:2023:8")
    options.add_argument("--pixels", type=int, default=6000, help="unlabelled ones of each landscape")
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--more-steps", type=int, default=300, help="of an encoder that goes on")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--variant", action="append", default=[], help="more students: KEY=VALUE, several by spaces")
    options.add_argument("--lands", type=Path)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    cases: dict[str, Callable[[Path, Lands, argparse.Namespace, int], dict[str, Any]]] = {
        "student": student,
        "forgetting": forgetting,
    }
    load, made = os.getloadavg(), {}
    with tempfile.TemporaryDirectory() as scratch:
        lands = Lands(args.lands or Path(scratch) / "lands", args.pixels)
        for name in args.case or cases:
            for seed in args.seeds:
                folder = Path(scratch) / name / str(seed)
                folder.mkdir(parents=True)
                made[f"{name} {seed}"] = found = cases[name](folder, lands, args, seed)
                print("\n".join(_lines(found, (f"{name} {seed}",))), flush=True)
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": [load, os.getloadavg()],
        "options": {key: value for key, value in vars(args).items() if not isinstance(value, Path)},
    }
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, **made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
