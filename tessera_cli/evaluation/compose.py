"""An evaluation as plain JSON: `report.json`, from which the page and the tables are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.evaluation.run import Evaluation
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.evaluation.verdicts import summary, verdicts
from tessera_cli.learning.adapters import HEADLINE
from tessera_cli.learning.budgets import Budget
from tessera_cli.learning.metrics import MAIN

SCHEMA = 1
PLACES = 5000
"""Samples of which the report says where they lie."""


def compose(
    made: Evaluation,
    *,
    inputs: Mapping[str, Any],
    robustness: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the report as plain JSON; docs/evaluation.md explains it.

    Args:
        made: what came of the evaluation.
        inputs: paths and options, as the user gave them.
        robustness: a row per set of features and variant of the inputs.
        warnings: ways in which test samples are known from training.
        notes: further lines for the reader.
    """
    samples, split, settings = made.samples, made.split, made.settings
    headline = {"adapter": HEADLINE[samples.task], "metric": MAIN[samples.task]}
    report = {
        "schema": SCHEMA,
        "task": samples.task,
        "unit": samples.unit,
        "samples": len(samples),
        "parcels": len(np.unique(samples.parcels)),
        **_targets(samples),
        "features": [
            {
                "name": each.name,
                "kind": each.kind,
                "dims": each.values.shape[1],
                "origin": each.origin,
                "parts": list(each.parts),
            }
            for each in samples.features
        ],
        "split": {
            "kind": split.kind,
            "folds": int(split.folds.max()) + 1,
            "blocks": len(np.unique(split.blocks)),
            "size_m": split.size,
            "test_share": float((split.folds == 0).mean()),
            "warning": " ".join(warnings) or None,
            "random": [
                {
                    "features": each.features,
                    "metric": each.metric,
                    "random": each.random,
                    "blocked": each.blocked,
                    "gap": each.random - each.blocked,
                }
                for each in made.random_split
            ],
        },
        "adapters": list(settings.adapters),
        "headline": headline,
        "budgets": [
            {**_named(budget), "possible": not why, "why": why}
            for budget, why in _possible(settings.budgets, {draws.budget: draws.why for draws in made.impossible})
        ],
        "results": [score.to_dict() for score in made.scores],
        "comparisons": [each.to_dict() for each in made.differences],
        "verdicts": [*verdicts(samples, made.scores, made.differences), *summary(samples, made.differences)],
        "confusion": _confusion(made),
        "robustness": list(robustness),
        "left_out": list(samples.left_out),
        "notes": list(notes),
        "places": _places(made),
        "seed": settings.seed,
        "software": f"tessera {__version__}",
        "inputs": dict(inputs),
    }
    return {key: _plain(value) for key, value in report.items()}


def _plain(value: Any) -> Any:
    """Return JSON without numbers that it has not: null for what is not known or has no end."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _named(budget: Budget) -> dict[str, Any]:
    return {"labels": budget.fraction, "shots": budget.shots}


def _possible(budgets: Sequence[Budget], why: Mapping[Budget, str]) -> list[tuple[Budget, str]]:
    return [(budget, why.get(budget, "")) for budget in budgets]


def _targets(samples: LabelledSamples) -> dict[str, Any]:
    """Return the classes and how often they occur, or how the values of a regression are spread."""
    if not samples.classes:
        values = samples.targets
        names = ("min", "max", "mean", "std")
        return {"classes": [], "targets": {name: float(getattr(values, name)()) for name in names}}
    count = np.bincount(samples.targets, minlength=len(samples.classes))
    _, first = np.unique(samples.parcels, return_index=True)
    parcels = np.bincount(samples.targets[first], minlength=len(samples.classes))
    known = zip(samples.classes, count.tolist(), parcels.tolist(), strict=True)
    return {"classes": [{"name": name, "samples": one, "parcels": other} for name, one, other in known]}


def _confusion(made: Evaluation) -> dict[str, Any]:
    """Return, per set of features, how often each class was taken for each, by the headline adapter on all labels."""
    classes = made.samples.classes
    if not classes:
        return {}
    found = {}
    for cell in made.cells:
        counts = np.zeros((len(classes), len(classes)), np.int64)
        for test, predicted in zip(cell.tests, cell.predictions, strict=True):
            np.add.at(counts, (made.samples.targets[test], predicted), 1)
        found[cell.features] = {"labels": list(classes), "counts": counts.tolist()}
    return found


def _places(made: Evaluation) -> dict[str, Any] | None:
    """Return where samples lie, in which fold, and by how much the first features missed them; None if unknown."""
    samples = made.samples
    known = np.flatnonzero(np.isfinite(samples.lonlat).all(axis=1))
    if not len(known) or not made.cells:
        return None
    cell = made.cells[0]
    error = np.full(len(samples), np.nan)
    for test, predicted in zip(cell.tests, cell.predictions, strict=True):
        error[test] = predicted != samples.targets[test] if samples.classes else predicted - samples.targets[test]
    if len(known) > PLACES:
        known = np.sort(np.random.default_rng(made.settings.seed).choice(known, PLACES, replace=False))
    return {
        "features": cell.features,
        "lonlat": samples.lonlat[known].round(6).tolist(),
        "fold": made.split.folds[known].tolist(),
        "error": [None if np.isnan(value) else round(float(value), 6) for value in error[known]],
    }
