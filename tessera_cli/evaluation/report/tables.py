"""The tables of the page: results, comparisons, classes, the split at random, and robustness."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import product
from typing import Any

import numpy as np

from tessera_cli.evaluation.report.results import CONSTANT, Results
from tessera_cli.evaluation.report.words import (
    NOTHING,
    budget,
    difference,
    is_number,
    metric,
    shows,
    unit_of,
    value,
    with_interval,
)
from tessera_cli.pages import blocks


def by_budget(found: Results) -> str:
    """Return the headline metric: a row per features and adapter, a column per budget."""
    made = ""
    shares = [at for at in found.budgets if at.endswith("%")]
    for unit, budgets in product(found.units, (shares, [at for at in found.budgets if at not in shares])):
        rows = [
            [
                name if adapter != CONSTANT else NOTHING,
                adapter,
                *(_cell(found, name, adapter, unit, at) for at in budgets),
            ]
            for adapter in found.adapters
            for name in (found.features if adapter != CONSTANT else found.features[:1])
        ]
        table = blocks.table(["Features", "Adapter", *budgets], (row for row in rows if {*row[2:]} - {NOTHING}), 2)
        if table:
            made += f"<p>{unit_of(found.metric)}, scored by {unit}; in brackets the 95 % interval.</p>\n{table}"
    return made


def _cell(found: Results, name: str, adapter: str, unit: str, at: str) -> str:
    results = found.select(name, adapter, unit, at)
    return with_interval(found.metric, results[0]) if results else NOTHING


def everything(found: Results) -> str:
    """Return all metrics of all results, folded away."""
    names = list(dict.fromkeys(name for each in found.results for name in each.get("metrics") or {}))
    rows = [
        [
            str(each.get("features")),
            each["adapter"],
            each.get("unit") or found.unit,
            budget(each),
            str(each.get("draws", NOTHING)),
            f"{each['n_train']:,.6g}" if is_number(each.get("n_train")) else NOTHING,
            *(with_interval(name, each) for name in names),
            _chosen(each.get("chosen") or {}),
        ]
        for each in found.results
    ]
    head = ["Features", "Adapter", "Unit", "Labels", "Draws", "Samples learned from", *map(unit_of, names), "Chosen"]
    table = blocks.table(head, rows, 4)
    meanings = blocks.listing(f"{metric(name).label}: {metric(name).meaning}" for name in names if metric(name).meaning)
    return f"<details><summary>All measures</summary>\n{table}{meanings}</details>\n" if table else ""


def _chosen(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:.4g}" if is_number(value) else f"{key} {value}" for key, value in settings.items())


def comparisons(found: Results) -> str:
    """Return the paired differences of the headline adapter, a row per pair; the list of all folded away."""
    mine = found.declared()
    budgets = [at for at in found.budgets if any(budget(each) == at for each in mine)]
    cells = {(each["features"], each["against"], budget(each)): difference(each) for each in mine}
    rows = [[*pair, *(cells.get((*pair, at), NOTHING) for at in budgets)] for pair in found.pairs(mine)]
    first = blocks.table(["Features", "Against", *budgets], rows, 2)
    every = blocks.table(
        ["Features", "Against", "Adapter", "Labels", "Difference", "Better in", "Shows"],
        (
            [
                *(each["features"], each["against"], each["adapter"], budget(each), difference(each)),
                f"{each.get('better_draws', NOTHING)} of {each.get('draws', NOTHING)} draws",
                shows(each),
            ]
            for each in found.comparisons
        ),
        4,
    )
    points = "in points of" if metric(found.metric).percent else "in units of"
    said = (
        f"<p>{metric(found.metric).label} by {escape(found.headline)}: differences {points} it with 95 % intervals; "
        "above 0 the features are better than what they are held against. Of twenty pairs that differ in nothing, "
        "about one shows something.</p>\n"
    )
    folded = f"<details><summary>All comparisons</summary>\n{every}</details>\n"
    return (said + first if first else "") + folded if every else ""


def classes(found: Results) -> str:
    """Return per class how many samples there are, and by each confusion matrix how many are found."""
    matrices: Mapping[str, Any] = found.report.get("confusion") or {}
    shares = {}
    for name, each in matrices.items():
        counts = np.asarray(each["counts"], float)
        if counts.ndim == 2 and counts.shape == (len(each["labels"]),) * 2:
            rights = np.diag(counts)
            recall, precision = (
                np.divide(
                    rights, counts.sum(axis=axis), out=np.full(len(counts), np.nan), where=counts.sum(axis=axis) > 0
                )
                for axis in (1, 0)
            )
            shares[name] = {str(label): (recall[n], precision[n]) for n, label in enumerate(each["labels"])}
    rows = []
    for entry in found.report.get("classes") or ():
        name = str(entry["name"])
        row = [name, *(f"{entry[key]:,}" if is_number(entry.get(key)) else NOTHING for key in ("samples", "parcels"))]
        for each in shares.values():
            recall, precision = each.get(name, (np.nan, np.nan))
            row.append(f"{value('accuracy', float(recall))} / {value('accuracy', float(precision))}")
        rows.append(row)
    return blocks.table(["Class", "Samples", "Parcels", *(f"{name}: found / right, %" for name in shares)], rows, 1)


def random_split(found: Results) -> str:
    """Return how much better a split at random looks, beside the split that was used."""
    entries = (found.report.get("split") or {}).get("random")
    entries = [entries] if isinstance(entries, Mapping) else entries or []
    rows = []
    for each in entries:
        name = each.get("metric") or found.metric
        gap = each.get("gap")
        if gap is None and is_number(each.get("random")) and is_number(each.get("blocked")):
            gap = each["random"] - each["blocked"]
        both = (value(name, each.get("random")), value(name, each.get("blocked")))
        rows.append([each.get("features", NOTHING), metric(name).label, *both, value(name, gap)])
    table = blocks.table(["Features", "Measure", "Split at random", "Split as used", "Gap"], rows, 2)
    return table and (
        "<p>Split at random, neighbours of a test sample are learned from, which flatters where labels stand close "
        "together. The gap says by how much; it is no measure of the features.</p>\n" + table
    )


def robustness(found: Results) -> str:
    """Return accuracy and cosine of every variant of the observations."""
    rows = []
    for each in found.report.get("robustness") or ():
        name = str(each.get("metric"))
        rows.append(
            [
                *(each["features"], str(each.get("variant", NOTHING)), metric(name).label),
                *(value(name, each.get(key)) for key in ("value", "reference")),
                value("", each.get("cosine")),
                *(f"{each[key]:,}" if is_number(each.get(key)) else NOTHING for key in ("samples", "lost")),
            ]
        )
    head = ["Features", "Observations", "Measure", "Value", "With all", "Cosine", "Samples", "Without embedding"]
    table = blocks.table(head, rows, 3)
    return table and (
        "<p>What was learned from embeddings of all observations is asked for samples that have fewer. <i>With all</i> "
        "is of the same samples. Cosine: of the embedding with the one from all observations; 1 is the same.</p>\n"
        + table
    )
