"""The figures of where: the split, the errors, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tessera_cli.evaluation.report.charts import Shown
from tessera_cli.evaluation.report.results import Results
from tessera_cli.evaluation.report.words import budget
from tessera_cli.figures.curves import Level
from tessera_cli.figures.histogram import histogram
from tessera_cli.figures.matrix import matrix
from tessera_cli.figures.places import amounts, categories

MOST_MATRICES = 4


def confusion(found: Results) -> Iterator[Shown]:
    """Yield the confusion matrices, those of embeddings first."""
    matrices = found.report.get("confusion") or {}
    order = sorted(matrices, key=lambda name: found.kinds.get(name) != "embedding")
    for number, name in enumerate(order[:MOST_MATRICES], 1):
        counts = np.asarray(matrices[name]["counts"], float)
        labels = tuple(map(str, matrices[name]["labels"]))
        if counts.shape != (len(labels), len(labels)) or not counts.sum():
            continue
        title = f"Confusion by {name} ({found.adapter_of(name)}, {_most(found)})"
        caption = (
            "Rows are true classes, columns what they were taken for. Numbers are test samples of all folds; "
            "the darker, the larger the share of its row."
        )
        yield Shown(f"confusion-{number}", title, caption, matrix(title, counts, labels))


def split_map(found: Results) -> Iterator[Shown]:
    """Yield which samples are tested together."""
    lonlat, fold = _places(found, "fold")
    if lonlat is None:
        return
    count = int(fold.max(initial=-1)) + 1
    names = ["tested"] if count == 1 else [f"fold {number + 1}" for number in range(count)]
    learned = fold < 0
    if learned.any():
        names.append("learned from only")
        fold = np.where(learned, count, fold)
    title = "The split"
    if picture := categories(title, lonlat, fold, names):
        caption = "Samples of one fold are tested together, by what was learned from the others."
        yield Shown("split", title, caption, picture)


def error_map(found: Results) -> Iterator[Shown]:
    """Yield where the headline adapter errs, with all labels."""
    lonlat, error = _places(found, "error")
    if lonlat is None:
        return
    by = found.report["places"].get("features") or found.adapter
    if found.report.get("task") == "regression":
        title = f"Where {by} errs ({found.adapter}, {_most(found)})"
        if picture := amounts(title, lonlat, error, "predicted less true"):
            yield Shown("errors", title, "The strongest colours are the largest 2 % of the errors and more.", picture)
        title = f"How much {by} errs ({found.adapter}, {_most(found)})"
        mean = float(np.nanmean(error)) if np.isfinite(error).any() else float("nan")
        if picture := histogram(title, error, "predicted less true", [Level("mean", mean, "bad")]):
            yield Shown("error-sizes", title, "", picture)
        return
    title = f"Where {by} errs ({found.adapter}, {_most(found)})"
    group = np.where(np.isfinite(error), (error != 0).astype(int), -1)
    if picture := categories(title, lonlat, group, ["right", "wrong"], colours=["c6", "bad"]):
        yield Shown("errors", title, "", picture)


def _places(found: Results, key: str) -> tuple[np.ndarray | None, Any]:
    places = found.report.get("places") or {}
    lonlat = np.array([[np.nan if x is None else x for x in pair] for pair in places.get("lonlat") or ()], float)
    values = np.array([np.nan if value is None else value for value in places.get(key) or ()], float)
    if not len(lonlat) or len(values) != len(lonlat):
        return None, None
    return lonlat, np.nan_to_num(values, nan=-1).astype(int) if key == "fold" else values


def _most(found: Results) -> str:
    shares = [each for each in found.select() if each.get("labels") is not None]
    return budget(max(shares, key=lambda each: each["labels"])) + " of the labels" if shares else "all labels"
