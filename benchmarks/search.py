"""How well examples find land of their kind, with and without counterexamples; what short codes lose.

    python -m benchmarks.search --json benchmarks/results/$(date +%F)-search.json

Every fourth row and column of a simulated landscape, embedded by the demo model. Of each class, ten times: pixels of
some parcels are the examples, pixels of other classes that are most similar to them the counterexamples, and the mean
average precision says how far the class stands before others in the order of similarity, parcels of examples left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.change import year
from tessera_cli.models import load_model
from tessera_cli.similarity.codes import Codes

CASES = (1, 0), (3, 0), (5, 0), (1, 1), (3, 3), (5, 5)
"""Numbers of examples and of counterexamples."""
WEIGHTS = 0.0, 0.1, 0.25, 0.5, 0.75, 1.0
HARDEST, DRAWS, PIXELS = 300, 10, 5000


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def precision(vectors: np.ndarray, labels: np.ndarray, parcels: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Return the mean average precision by case and weight of the counterexamples."""
    found: dict[str, dict[str, list[float]]] = {}
    for label in np.unique(labels):
        own = np.unique(parcels[labels == label])
        for like, unlike in CASES:
            for _ in range(DRAWS if len(own) >= like + 3 else 0):
                chosen = rng.choice(own, like, replace=False)
                rows = [rng.choice(np.flatnonzero((parcels == each) & (labels == label))) for each in chosen]
                rest, positive = ~np.isin(parcels, chosen), vectors @ vectors[rows].mean(axis=0)
                wrong = np.flatnonzero(labels != label)
                hard = rng.choice(wrong[np.argsort(-positive[wrong])[:HARDEST]], unlike, replace=False)
                rest[hard] = False
                negative = vectors @ vectors[hard].mean(axis=0) if unlike else 0 * positive
                for weight in WEIGHTS if unlike else (0.0,):
                    score = average_precision_score(labels[rest] == label, (positive - weight * negative)[rest])
                    found.setdefault(f"{like} like, {unlike} unlike", {}).setdefault(str(weight), []).append(score)
    return {case: {weight: float(np.mean(each)) for weight, each in of.items()} for case, of in found.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--place", default="flanders")
    options.add_argument("--size", type=int, default=640)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--step", type=int, default=4)
    options.add_argument("--changes", type=float, default=0.0)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = year(Path(scratch), load_model("demo").bind_source("mpc"), args.place, 2022, args, None)
    rng = np.random.default_rng(0)
    some = rng.choice(len(made["values"]), min(PIXELS, len(made["values"])), replace=False)
    vectors = unit(made["values"][some].astype(np.float64))
    codes = Codes.of(made["values"])
    one, other = rng.integers(0, len(vectors), (2, 50_000))
    prefix = unit(vectors[:, :16])
    away = np.abs((prefix[one] * prefix[other]).sum(axis=1) - (vectors[one] * vectors[other]).sum(axis=1))
    told = {
        "conditions": {name: value for name, value in vars(args).items() if name != "json"},
        "mean_average_precision": precision(vectors, made["labels"][some], made["parcels"][some], rng),
        "codes": {"kept": codes.kept, "mean_difference": codes.difference[0], "difference_99": codes.difference[1]},
        "first_16_numbers": {"mean_difference": float(away.mean())},
    }
    print(json.dumps(told))
    if args.json:
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
