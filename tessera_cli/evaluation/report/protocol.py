"""How an evaluation was made, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from tessera_cli.evaluation.report.results import Results
from tessera_cli.evaluation.report.words import ADAPTERS, is_number, metric
from tessera_cli.pages import blocks

SPLITS = {
    "given": "The split is the one that the data bring: one set to learn from, one to test on.",
    "blocked": "The ground is divided into blocks; all samples of a block are tested together, by what was learned in "
    "the others.",
    "grouped": "Samples of one group (a site, a parcel) are tested together, by what was learned from the others.",
    "regions": "Each region is tested by what was learned in the others.",
    "random": "Samples are split at random. Neighbours stand on both sides, which flatters every set of features.",
}


def protocol(found: Results) -> str:
    """Return the protocol as HTML."""
    rows = [
        [entry["name"], entry.get("kind", ""), str(entry.get("dims", "")), entry.get("origin", "")]
        for entry in found.report.get("features") or ()
    ]
    table = blocks.table(["Features", "Kind", "Numbers", "Made from"], rows)
    lines = "".join(f"<p>{escape(line)}</p>\n" for line in sentences(found))
    return lines + table


def sentences(found: Results) -> Iterator[str]:
    """Yield what was done and what the numbers mean."""
    split: dict[str, Any] = dict(found.report.get("split") or {})
    kind = str(split.get("kind", ""))
    said = [SPLITS.get(kind, f"Split: {kind}." if kind else "")]
    if is_number(split.get("folds")) and split["folds"] > 1:
        said.append(f"{split['folds']} folds.")
    if kind in ("blocked", "grouped") and is_number(split.get("blocks")):
        wide = f", {split['size_m']:,.0f} m wide" if is_number(split.get("size_m")) else ""
        said.append(f"{split['blocks']:,} {'blocks' if kind == 'blocked' else 'groups'}{wide}.")
    if is_number(split.get("test_share")):
        said.append(f"{100 * split['test_share']:.0f} % of the samples are tested.")
    yield " ".join(filter(None, said))
    stratified = "" if found.report.get("task") == "regression" else ", stratified by class"
    yield (
        f"A budget of labels is a part of the parcels that may be learned from, drawn anew for each draw{stratified}. "
        "Points and rows of a table are parcels of one sample. All features and adapters get the same draws, "
        "and are tested on all test samples of the fold."
    )
    used = [f"{name}: {ADAPTERS[name]}" for name in found.adapters if name in ADAPTERS]
    chosen = "Their settings are chosen by validation within the labels that are learned from"
    if found.report.get("task") == "segmentation":
        chosen = "Networks are trained for a number of steps that was set before, on nothing of the ground of the test"
    yield (
        f"Adapters: {'; '.join(used)}. {chosen}; no test sample takes part in any choice. "
        "Features are standardised, and missing values replaced by "
        "means, by the samples that are learned from."
    )
    yield (
        f"The sentences at the top are about {found.headline} and {metric(found.metric).label}, which were declared "
        "before anything was measured. Measures are means over the draws. Intervals are 95 % of a bootstrap in which "
        "blocks (or groups, or samples) and draws are drawn again with replacement, the same for all features, so "
        "that differences are paired."
    )
    yield (
        "What this does not say: how good a map of the whole area is (samples are rarely a random sample of it), what "
        "another year or region would give unless it was the test set, and whether a large model trained on these "
        "labels alone would do better."
    )
