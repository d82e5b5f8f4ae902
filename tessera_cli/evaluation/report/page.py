"""The report of an evaluation as one HTML page: what was shown, then figures, numbers and the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

from tessera_cli.evaluation.report import charts, maps, tables
from tessera_cli.evaluation.report.charts import Shown
from tessera_cli.evaluation.report.protocol import protocol
from tessera_cli.evaluation.report.results import Results
from tessera_cli.evaluation.report.words import metric
from tessera_cli.figures.style import NEEDED, drawable
from tessera_cli.files import write_bytes
from tessera_cli.pages import blocks
from tessera_cli.pages.document import document, facts


@dataclass(frozen=True, eq=False)
class Page:
    """A report that was composed."""

    html: str
    """Self-contained, without scripts."""
    pictures: Mapping[str, bytes]
    """PNG by file name."""

    def write(self, out: Path) -> list[Path]:
        """Write `report.html` and `figures/*.png` into a folder; return the paths, the page first."""
        paths = [out / "report.html", *(out / "figures" / name for name in self.pictures)]
        if self.pictures:
            (out / "figures").mkdir(parents=True, exist_ok=True)
        for path, data in zip(paths, (self.html.encode(), *self.pictures.values()), strict=True):
            write_bytes(path, data)
        return paths


def compose(report: Mapping[str, Any]) -> Page:
    """Return the page of a report, the object of report.json. Without matplotlib it has tables, and says so."""
    found = Results(report)
    drawn: list[Shown] = []
    can_draw = drawable()

    def figures(shown: Iterable[Shown]) -> str:
        """Return figures within the page, and keep them for files."""
        if not can_draw:
            return ""
        here = list(shown)
        drawn.extend(here)
        return blocks.figures(blocks.figure(each.title, each.picture.svg(), each.caption) for each in here)

    sections = [
        _verdicts(report),
        "" if can_draw else f"<p>There are no figures here. {escape(NEEDED)}</p>\n",
        _section(f"{metric(found.metric).label} against labels", figures(charts.label_curves(found))),
        _section("Results", tables.by_budget(found), figures(charts.at_most_labels(found)), tables.everything(found)),
        _section("Paired comparisons", figures(charts.paired(found)), tables.comparisons(found)),
        _section("What is taken for what", figures(maps.confusion(found)), tables.classes(found)),
        _section("Where", figures(chain(maps.split_map(found), maps.error_map(found))), tables.random_split(found)),
        _section("With fewer observations", figures(charts.robustness(found)), tables.robustness(found)),
        _section("What was left out", blocks.listing([*(report.get("left_out") or ()), *found.impossible()])),
        _section("Notes", blocks.listing(report.get("notes") or ())),
        _section("How it was measured", protocol(found)),
        _section("To do it again", facts(_again(report))),
    ]
    title = "What the features are worth"
    body = f"<h1>{title}</h1>\n" + facts(_facts(found)) + "".join(sections)
    return Page(
        document(f"{title}: {report.get('task', 'evaluation')}", blocks.STYLE, body),
        {f"{each.name}.png": each.picture.png() for each in drawn},
    )


def _section(title: str, *parts: str) -> str:
    inner = "".join(parts)
    return f"<h2>{escape(title)}</h2>\n{inner}" if inner else ""


def _verdicts(report: Mapping[str, Any]) -> str:
    warning = (report.get("split") or {}).get("warning")
    told = f'<p class="warning"><b>Mind the split.</b> {escape(str(warning))}</p>\n' if warning else ""
    return told + blocks.listing(report.get("verdicts") or ("Nothing was measured.",), "verdicts")


def _facts(found: Results) -> dict[str, object]:
    report = found.report
    told: dict[str, object] = {"Task": report.get("task", "")}
    if samples := report.get("samples"):
        told["Samples"] = f"{samples:,}, each a {found.unit}"
    if classes := report.get("classes"):
        told["Classes"] = len(classes)
    if targets := report.get("targets"):
        told["Targets"] = f"{targets['min']:.4g} to {targets['max']:.4g}, mean {targets['mean']:.4g}"
    told["Features"] = len(found.features)
    told["Declared in advance"] = f"{metric(found.metric).label} of {found.headline}"
    return told


def _again(report: Mapping[str, Any]) -> dict[str, object]:
    told: dict[str, object] = {}
    for name, value in (("Seed", "seed"), ("Software", "software"), ("Inputs", "inputs")):
        if (found := report.get(value)) not in (None, "", [], {}):
            told[name] = _said(found)
    return told


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_said(each)}" for key, each in value.items())
    return ", ".join(map(_said, value)) if isinstance(value, list | tuple) else str(value)
