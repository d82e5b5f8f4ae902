"""The object of report.json, asked for what pages, figures and tables show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tessera_cli.evaluation.report.words import budget, is_number

Entry = Mapping[str, Any]
CONSTANT = "constant"


class Results:
    """A report as plain JSON; what it lacks is empty."""

    def __init__(self, report: Entry) -> None:
        self.report = report
        self.results: Sequence[Entry] = report.get("results") or ()
        self.comparisons: Sequence[Entry] = report.get("comparisons") or ()
        self.unit: str = report.get("unit") or "sample"
        headline = report.get("headline") or {}
        self.adapter: str = headline.get("adapter", "")
        self.metric: str = headline.get("metric", "")

    @property
    def features(self) -> list[str]:
        """Return the sets of features in the order of the report."""
        named = [entry["name"] for entry in self.report.get("features") or ()]
        return list(dict.fromkeys([*named, *(each["features"] for each in self.results if each.get("features"))]))

    @property
    def kinds(self) -> dict[str, str]:
        """Return `embedding`, `raw`, `random` or `both` for each set of features that says so."""
        return {entry["name"]: entry.get("kind", "") for entry in self.report.get("features") or ()}

    @property
    def adapters(self) -> list[str]:
        """Return the adapters that have results, the headline's first and the constant last."""
        found = dict.fromkeys([*(self.report.get("adapters") or ()), *(each["adapter"] for each in self.results)])
        there = {each["adapter"] for each in self.results}
        rank = {self.adapter: 0, CONSTANT: 2}
        return sorted((name for name in found if name in there), key=lambda name: rank.get(name, 1))

    def adapter_of(self, features: str) -> str:
        """Return the adapter that the sentences hold these features against others by: the headline's, or their own.

        A segmentation has a network per kind of features.
        """
        used = [each["adapter"] for each in self.select(features) if each["adapter"] != CONSTANT]
        return used[0] if self.report.get("task") == "segmentation" and used else self.adapter

    @property
    def headline(self) -> str:
        """Return what the headline results are by, for titles: the adapter, or those of all features."""
        return " and ".join(dict.fromkeys(map(self.adapter_of, self.features))) or self.adapter

    @property
    def budgets(self) -> list[str]:
        """Return the budgets of results and comparisons: shares of the labels rising, then numbers per class."""
        found = {budget(each): each for each in (*self.results, *self.comparisons)}

        def order(name: str) -> tuple[bool, float]:
            each = found[name]
            share = is_number(each.get("labels"))
            return (not share, each["labels"] if share else each.get("shots") or 0)

        return sorted(found, key=order)

    @property
    def units(self) -> list[str]:
        """Return what was scored, the unit of the labels first; such as `pixel`, `parcel vote`."""
        found = dict.fromkeys(each.get("unit") or self.unit for each in self.results)
        return sorted(found, key=lambda name: name != self.unit)

    def select(
        self, features: str | None = None, adapter: str | None = None, unit: str | None = None, at: str | None = None
    ) -> list[Entry]:
        """Return results of these features, adapter, unit (None: that of the labels) and budget."""
        wanted = unit or self.unit
        return [
            each
            for each in self.results
            if (features is None or each.get("features") == features)
            and (adapter is None or each["adapter"] == adapter)
            and (each.get("unit") or self.unit) == wanted
            and (at is None or budget(each) == at)
        ]

    def impossible(self) -> list[str]:
        """Return what could not be done, a line each."""
        lines = []
        for each in self.report.get("budgets") or ():
            if not each.get("possible", True):
                lines.append(f"{budget(each)} of the labels: {each.get('why') or 'not possible'}")
        return [line.replace(" per class of the labels:", " per class:") for line in lines]

    def declared(self) -> list[Entry]:
        """Return the comparisons of the headline adapter and metric."""
        return [each for each in self.comparisons if (each["adapter"], each["metric"]) == (self.adapter, self.metric)]

    def pairs(self, comparisons: Sequence[Entry]) -> list[tuple[str, str]]:
        """Return who is held against whom: embeddings against others first, against the constant last."""
        found = dict.fromkeys((each["features"], each["against"]) for each in comparisons)
        kinds = self.kinds
        return sorted(found, key=lambda pair: (pair[1] == CONSTANT, "embedding" not in map(kinds.get, pair)))
