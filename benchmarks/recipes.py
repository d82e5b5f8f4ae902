"""Which settings of `tessera pretrain` are worth it: one at a time, with several seeds, judged with few labels.

    python -m benchmarks.real_series FOLDER tables
    python -m benchmarks.landscapes lands flanders:2022:1 castile:2022:3 --size 512 --pixels 3000
    python -m benchmarks.recipes landscapes --data lands --json recipes.jsonl --workers 2
    python -m benchmarks.recipes france --data tables --only base twins --seeds 5 --json recipes.jsonl
    python -m benchmarks.recipes --show recipes.jsonl

Each variant is the preset `small-data` but for the keys of `BASE`, from which one thing at a time was varied to find
that preset, and those of `VARIANTS`; the variant `small-data` is the preset itself. Training pixels are unlabelled; the
same frozen embedding is judged by logistic regression on labels of the region it was trained on (the first test of a
case) and of others: macro-F1, the mean over draws of labels and folds of blocks, as `tessera evaluate` takes them.
Every run has one thread. Lines that are in FILE already are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Overrides = Mapping[str, Any]
BASE: Overrides = {"loss.twins": 0.0, "loss.predict": 1.0, "train.batch": 256}
TWINS: Overrides = {"loss.twins": 1.0, "loss.predict": 0.0}
BOTH: Overrides = {"loss.twins": 1.0, "loss.predict": 200.0}

VARIANTS: Mapping[str, Overrides] = {
    "small-data": {},
    "base": {},
    "random": {"train.epochs": 1e-9, "optim.lr": 1e-9},
    # what is asked of the embedding
    "twins": TWINS,
    "twins + prediction": BOTH,
    "twins + prediction, no shift": {**BOTH, "views.shift_days": 0},
    "twins + prediction x 5, no shift": {**BOTH, "loss.predict": 1000.0, "views.shift_days": 0},
    "twins + prediction, batch 128": {**BOTH, "train.batch": 128},
    "twins 0.005 + prediction 1, batch 128": {"loss.twins": 0.005, "loss.predict": 1.0, "train.batch": 128},
    "twins 0.002 + prediction 1, batch 128": {"loss.twins": 0.002, "loss.predict": 1.0, "train.batch": 128},
    "twins + prediction, batch 64": {**BOTH, "train.batch": 64},
    "twins + prediction x 5": {**BOTH, "loss.predict": 1000.0},
    "twins, n_obs 8": {**TWINS, "views.lengths": "fixed", "views.n_obs": 8},
    "twins, n_obs 8, mix": {**TWINS, "views.lengths": "fixed", "views.n_obs": 8, "loss.mix": 1.0},
    "twins, n_obs 16": {**TWINS, "views.lengths": "fixed", "views.n_obs": 16},
    "twins, lambda 0.02": {**TWINS, "loss.lambda": 0.02},
    "twins, projector 1024": {**TWINS, "projector.width": 1024},
    "twins, projector depth 2": {**TWINS, "projector.depth": 2},
    "twins, batch 1024": {**TWINS, "train.batch": 1024},
    "prefixes 16, 32, 64": {**BOTH, "projector.prefixes": [16, 32, 64]},
    "predict_width 64": {"loss.predict_width": 64},
    "predict_width 256": {"loss.predict_width": 256},
    # views
    "n_obs 8": {"views.lengths": "fixed", "views.n_obs": 8},
    "n_obs 16": {"views.lengths": "fixed", "views.n_obs": 16},
    "share 0.3 to 0.9": {"views.share": [0.3, 0.9]},
    "share 0.1 to 0.5": {"views.share": [0.1, 0.5]},
    "no shift": {"views.shift_days": 0},
    "shift 5": {"views.shift_days": 5},
    "shift 30": {"views.shift_days": 30},
    "drop_season 0.5": {"views.drop_season": 0.5},
    "noise 0.05": {"views.noise": 0.05},
    "gain 0.05": {"views.gain": 0.05},
    "gain 0.15": {"views.gain": 0.15},
    "random order": {"views.order": "random"},
    # sizes
    "width 64": {"model.latent": 16, "model.feedforward": 128},
    "width 256": {"model.latent": 64, "model.feedforward": 512},
    "2 layers": {"model.layers": 2},
    "64 values": {"model.representation": 64},
    "dropout 0.1": {"model.dropout": 0.1},
    # training
    "batch 128": {"train.batch": 128},
    "batch 512": {"train.batch": 512},
    "half the epochs": {"epochs x": 0.5},
    "twice the epochs": {"epochs x": 2.0},
    "lr 1e-3": {"optim.lr": 1e-3},
    "lr 4e-3": {"optim.lr": 4e-3},
    "weight decay 0.05": {"optim.weight_decay": 0.05},
}


class Region(NamedTuple):
    """Labelled samples of a long table, as a region to be judged in."""

    name: str
    table: str
    column: str
    block: float
    """Side of the blocks that are held out together, in metres."""
    least: int = 20
    """Classes with fewer samples are left out."""


class Case(NamedTuple):
    """What is trained on, and where it is judged."""

    train: tuple[str, ...]
    regions: tuple[Region, ...]


FRANCE = Region("France", "france{}.parquet", "crop", 30_000)
CORSICA = Region("Corsica", "corsica{}.parquet", "crop", 5_000, 17)
CASES: Mapping[str, Case] = {
    "france": Case(("france_s2.parquet",), (FRANCE, CORSICA)),
    "real": Case(("france_s2.parquet", "corsica_s2.parquet", "world_s2.parquet"), (FRANCE, CORSICA)),
    "france-radar": Case(("france.parquet",), (FRANCE, CORSICA)),
    "landscapes": Case(
        ("flanders_2022_1/series.parquet", "flanders_2022_1/unlabelled.parquet"),
        (
            Region("Flanders", "flanders_2022_1/series.parquet", "class", 640),
            Region("Castile", "castile_2022_3/series.parquet", "class", 640),
        ),
    ),
}
BUDGETS = ("1 per class", "5 per class", "10 %", "100 %")
QUIET = {"train.eval_every": 10**6, "train.save_every": 10**6, "train.workers": 1, "probe.pixels": 256}


class Judge:
    """Scores features of the samples of a region, always on the same draws of labels."""

    def __init__(self, region: Region, data: Path, radar: bool) -> None:
        from tessera_cli.evaluation.from_series import read_series
        from tessera_cli.evaluation.protocol import Settings, draws_of
        from tessera_cli.evaluation.splitting import split_of
        from tessera_cli.learning.budgets import Budget

        found = read_series(data / region.table.format("" if radar else "_s2"), column=region.column)
        counts = np.bincount(found.samples.targets)
        kept = np.flatnonzero(counts[found.samples.targets] >= region.least)
        classes, targets = np.unique(found.samples.targets[kept], return_inverse=True)
        names = tuple(found.samples.classes[number] for number in classes)
        self.samples = dataclasses.replace(found.samples.take(kept), targets=targets, classes=names)
        self.pixels, self.window = found.pixels.take(kept), found.window
        split = split_of(self.samples, block=region.block, folds=5, leave_out=False, seed=0)
        budgets = (Budget(shots=1), Budget(shots=5), Budget(fraction=0.1), Budget(fraction=1.0))
        settings = Settings(("logistic",), budgets, draws=20)
        self.draws = [draws_of(self.samples, split, settings, budget) for budget in budgets]

    def score(self, features: Any) -> dict[str, float]:
        """Return the mean macro-F1 of each budget that is possible."""
        from tessera_cli.evaluation.cells import make_cell
        from tessera_cli.learning.metrics import scores

        found = {}
        for name, draws in zip(BUDGETS, self.draws, strict=True):
            cell = make_cell(self.samples, features, "logistic", draws, seed=0, threads=1)
            pairs = [
                (self.samples.targets[test], said) for test, said in zip(cell.tests, cell.predictions, strict=True)
            ]
            each = [scores("classification", *pair, len(self.samples.classes))["macro_f1"] for pair in pairs]
            if each:
                found[name] = float(np.mean(each))
        return found


@functools.lru_cache
def judges(name: str, data: Path) -> dict[str, Judge]:
    return {region.name: Judge(region, data, "radar" in name) for region in CASES[name].regions}


class Job(NamedTuple):
    """One training."""

    case: str
    data: Path
    shards: Path
    epochs: float
    variant: str
    seed: int


def run(job: Job) -> dict[str, Any]:
    """Train one variant with one seed, and judge it everywhere."""
    import torch

    import tessera_cli
    from tessera_cli.evaluation.baselines import embedding_features
    from tessera_cli.models.load import load_model

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    changes = {} if job.variant == "small-data" else {**BASE, **VARIANTS[job.variant]}
    keys = {"train.epochs": job.epochs, "train.min_steps": 0, **changes, **QUIET, "train.seed": job.seed}
    keys["train.epochs"] *= keys.pop("epochs x", 1.0)
    with tempfile.TemporaryDirectory() as scratch:
        started = time.process_time()
        made = tessera_cli.pretrain(
            preset="small-data", overrides=keys, shards=job.shards, out=Path(scratch) / "run", threads=1
        )
        seconds = time.process_time() - started
        model = load_model(str(made.exported))
    scores = {
        region: judge.score(embedding_features(judge.pixels, judge.window, model)[0])
        for region, judge in judges(job.case, job.data).items()
    }
    told = {
        "case": job.case,
        "variant": job.variant,
        "seed": job.seed,
        "epochs": job.epochs,
        "steps": made.step,
        "cpu_seconds": round(seconds, 1),
    }
    return {**told, "scores": scores}


def raw(name: str, data: Path) -> list[dict[str, Any]]:
    """Score the raw features of a case."""
    rows: dict[str, dict[str, Any]] = {}
    for region, judge in judges(name, data).items():
        for features in judge.samples.features:
            rows.setdefault(features.name, {})[region] = judge.score(features)
    return [{"case": name, "variant": each, "seed": 0, "scores": scores} for each, scores in rows.items()]


def show(path: Path) -> None:
    """Print means and standard deviations over the seeds, in points of macro-F1, as Markdown."""
    rows = _read(path)
    for name, epochs in dict.fromkeys((row["case"], row["epochs"]) for row in rows if "epochs" in row):
        regions = [region.name for region in CASES[name].regions]
        heads = [f"{region}, {budget}" for region in regions for budget in BUDGETS]
        print(f"\n{name}, {epochs:g} epochs\n")
        print(f"| variant | seeds | CPU s | {' | '.join(heads)} |\n|---|---|---|{'---|' * len(heads)}")
        those = [row for row in rows if row["case"] == name and row.get("epochs", epochs) == epochs]
        for variant in dict.fromkeys(row["variant"] for row in those):
            some = [row for row in those if row["variant"] == variant]
            cells = [[row["scores"][r].get(b) for row in some] for r in regions for b in BUDGETS]
            seconds = np.mean([row.get("cpu_seconds", 0) for row in some])
            print(f"| {variant} | {len(some)} | {seconds:.0f} | {' | '.join(map(_cell, cells))} |")


def _cell(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.mean(known):.1f}" + (f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else "")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("case", choices=CASES, nargs="?")
    options.add_argument("--data", type=Path, default=Path())
    options.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=float, default=150, help="Of the preset: 150.")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--json", type=Path, default=Path("recipes.jsonl"))
    options.add_argument("--show", type=Path)
    args = options.parse_args()
    if args.show:
        show(args.show)
        return
    if args.case is None:
        options.error("name a case")
    logging.disable(logging.WARNING)
    done = {(row["case"], row.get("epochs"), row["variant"], row["seed"]) for row in _read(args.json)}
    with tempfile.TemporaryDirectory() as scratch, args.json.open("a") as out:
        if (args.case, None, "raw-series", 0) not in done:
            out.writelines(json.dumps(row) + "\n" for row in raw(args.case, args.data))
            out.flush()
        shards = _shards(CASES[args.case], args.data, Path(scratch))
        wanted = [(variant, seed) for seed in range(args.seeds) for variant in args.only]
        missing = [one for one in wanted if (args.case, args.epochs, *one) not in done]
        jobs = [Job(args.case, args.data, shards, args.epochs, *one) for one in missing]
        with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
            for row in pool.imap_unordered(run, jobs):
                out.write(json.dumps(row) + "\n")
                out.flush()
    show(args.json)


def _shards(case: Case, data: Path, scratch: Path) -> Path:
    """Build the training pixels once for all runs."""
    import tessera_cli

    tables = [data / name for name in case.train]
    tessera_cli.pretrain(tables, preset="small-data", steps=1, shards=scratch / "shards", out=scratch / "first")
    return scratch / "shards"


if __name__ == "__main__":
    main()
