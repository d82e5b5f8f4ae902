"""How right a map is where it is labelled: each label predicted by a model that has seen none of its block."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.evaluation import splitting
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.evaluation.scores import votes
from tessera_cli.learning.adapters import fit
from tessera_cli.learning.bootstrap import binomial
from tessera_cli.learning.metrics import scores
from tessera_cli.learning.splits import Split

logger = logging.getLogger(__name__)

FOLDS = 5


def split_of(samples: LabelledSamples, size: float | None, seed: int) -> Split | None:
    """Return folds of whole blocks of ground, `size` metres wide; None, with a warning, where too few hold labels."""
    try:
        return splitting.split_of(samples, block=size, folds=FOLDS, leave_out=False, seed=seed)
    except UsageError as error:
        logger.warning("how right the map is cannot be estimated: %s", error)
        return None


def out_of_fold(samples: LabelledSamples, split: Split, adapter: str, *, seed: int, threads: int) -> np.ndarray:
    """Return each sample's class, int64 (N,), or value, float64 (N,), by a model of the other folds."""
    found = np.empty_like(samples.targets)
    for fold in range(split.count):
        rest = samples.take(split.train(fold))
        model = fit(
            adapter,
            samples.task,
            rest.features[0].values,
            rest.targets,
            rest.groups,
            classes=len(samples.classes),
            seed=seed,
            threads=threads,
        )
        test = split.test(fold)
        found[test] = model.predict(samples.features[0].values[test])
    return found


def accuracy(samples: LabelledSamples, found: np.ndarray) -> dict[str, Any]:
    """Return what the predictions of labels are worth, with exact binomial intervals (95 %) of classes.

    What counts is a parcel, told by the vote of its pixels, since those of one parcel do not err independently: the
    intervals would be far too narrow. Points are parcels of one.
    """
    if samples.task == "regression":
        return {"samples": len(samples), **scores("regression", samples.targets, found, 0)}
    first, voted = votes(np.arange(len(samples)), found, samples.parcels)
    truth = samples.targets[first]
    right = truth == voted
    return {
        "samples": len(samples),
        "pixel_accuracy": float((found == samples.targets).mean()),
        "overall": share(right),
        "classes": [
            {"class": name, "users": share(right[voted == number]), "producers": share(right[truth == number])}
            for number, name in enumerate(samples.classes)
        ],
        "confusion": _confusion(truth, voted, len(samples.classes)),
    }


def share(right: np.ndarray) -> dict[str, float | int | None]:
    """Return how many of how many are right, bool (N,), with the exact interval of Clopper and Pearson."""
    if not len(right):
        return {"right": 0, "of": 0, "accuracy": None, "low": None, "high": None}
    count = int(right.sum())
    low, high = binomial(count, len(right))
    return {"right": count, "of": len(right), "accuracy": count / len(right), "low": low, "high": high}


def _confusion(truth: np.ndarray, voted: np.ndarray, classes: int) -> list[list[int]]:
    """Return counts of parcels: a row per true class, a column per class of the map."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, voted), 1)
    return [[int(count) for count in row] for row in counts]
