"""The figures of a report: how accuracy grows with labels, what differs, and how robust it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tessera_cli.evaluation.report.results import CONSTANT, Entry, Results
from tessera_cli.evaluation.report.words import budget, is_number, metric, unit_of
from tessera_cli.figures.curves import Axes, Curve, Level, curves
from tessera_cli.figures.intervals import Dot, intervals
from tessera_cli.figures.numbers import percent
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import MARKS, SERIES

DASH_OF_KIND = {"embedding": "solid", "raw": "dashed", "random": "dotted", "both": "dashdot"}
ENDS = ("difference", "low", "high")
MOST_ROWS = 10
"""Of a chart of differences."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture and what it is."""

    name: str
    """Of its file, without the ending."""
    title: str
    caption: str
    picture: Picture


def label_curves(found: Results) -> Iterator[Shown]:
    """Yield a picture per adapter: the headline metric against the share of labels; then against labels per class."""
    for key, x in (("labels", "labels"), ("shots", "labels per class")):
        counted = [each for each in found.select() if is_number(each.get(key))]
        places = sorted({each[key] for each in counted})
        if len(places) < 2:
            continue
        limits = _limits(found, counted)
        names = [percent(place) if key == "labels" else f"{place:g}" for place in places]
        axes = Axes(
            x=x,
            y=unit_of(found.metric),
            log_x=True,
            y_range=limits,
            x_places=list(zip(places, names, strict=True)),
        )
        headline = {name: found.adapter_of(name) for name in found.features}
        others = [name for name in found.adapters if name != CONSTANT and name not in headline.values()]
        charts = [(found.headline, headline), *((each, dict.fromkeys(found.features, each)) for each in others)]
        for number, (adapter, by) in enumerate(charts):
            lines = [_curve(found, name, n, by[name], key) for n, name in enumerate(found.features)]
            lines.append(_constant(found, key))
            title = f"{adapter}: {metric(found.metric).label} against {x}"
            if picture := curves(title, lines, axes=axes, size=(4.6, 3.2)):
                declared = "" if number else " Declared in advance: what the sentences above are about."
                caption = f"Bands: 95 % intervals.{declared}"
                yield Shown(f"{key}-{adapter.replace(' ', '-')}", title, caption, picture)


def _curve(found: Results, features: str, number: int, adapter: str, key: str) -> Curve:
    rows = [each for each in found.select(features, adapter) if is_number(each.get(key))]
    rows = sorted(rows, key=lambda each: each[key])
    dash = DASH_OF_KIND.get(found.kinds.get(features, ""), "solid")
    points, band = [], []
    for each in rows:
        value, low, high = _of_result(found, each)
        points.append((float(each[key]), value))
        band.append((low, high))
    return Curve(features, points, SERIES[number % len(SERIES)], dash, MARKS[number % len(MARKS)], band)


def _constant(found: Results, key: str) -> Curve:
    """Return the constant, which looks at no features: one curve for all."""
    by_place = {each[key]: each for each in found.select(adapter=CONSTANT) if is_number(each.get(key))}
    points = [
        (float(x), _scaled(found.metric, each["metrics"].get(found.metric))) for x, each in sorted(by_place.items())
    ]
    return Curve("constant", points, "soft", "dotted", "")


def _of_result(found: Results, result: Entry) -> tuple[float, float, float]:
    """Return value, low and high of the headline metric, NaN for nothing."""
    return _numbers(found.metric, *(result.get(key, {}).get(found.metric) for key in ("metrics", "low", "high")))


def _numbers(name: str, value: object, low: object, high: object) -> tuple[float, float, float]:
    return _scaled(name, value), _scaled(name, low), _scaled(name, high)


def _scaled(name: str, value: object) -> float:
    if not is_number(value):
        return float("nan")
    return float(value) * (100 if metric(name).percent else 1)  # type: ignore[arg-type]


def _limits(found: Results, counted: Sequence[Entry]) -> tuple[float, float] | None:
    """Return one range for all adapters; what is far worse than the constant does not press the rest together."""
    values = [value for each in counted for value in _of_result(found, each) if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    constants = [_of_result(found, each)[0] for each in counted if each["adapter"] == CONSTANT]
    if constants := [value for value in constants if math.isfinite(value)]:
        if metric(found.metric).rises:
            worst = min(constants)
            low = max(low, worst - 0.8 * (high - worst))
        else:
            worst = max(constants)
            high = min(high, worst + 0.8 * (worst - low))
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def at_most_labels(found: Results) -> Iterator[Shown]:
    """Yield all features and adapters side by side, at the largest budget."""
    shares = [each for each in found.select() if is_number(each.get("labels"))]
    if not shares:
        return
    most = max(each["labels"] for each in shares)
    adapters = [name for name in found.adapters if name != CONSTANT]
    rows = []
    for name in found.features:
        dots = []
        for each in found.select(name):
            if each.get("labels") == most and each["adapter"] in adapters:
                dots.append(Dot(*_of_result(found, each), adapters.index(each["adapter"])))
        rows.append((name, dots))
    title = f"All features and adapters at {percent(most)} of the labels"
    if picture := intervals(title, rows, unit_of(found.metric), kinds=adapters or ("",)):
        yield Shown("adapters", title, "With 95 % intervals.", picture)


def paired(found: Results) -> Iterator[Shown]:
    """Yield the differences between features, by the headline adapter."""
    chosen = found.declared()
    budgets = [name for name in found.budgets if any(budget(each) == name for each in chosen)]
    pairs = found.pairs(chosen)
    between = [pair for pair in pairs if pair[1] != CONSTANT]
    rows = []
    for one, other in (between or pairs)[:MOST_ROWS]:
        dots = [
            Dot(*_numbers(found.metric, *(each.get(key) for key in ENDS)), budgets.index(budget(each)))
            for each in chosen
            if (each["features"], each["against"]) == (one, other)
        ]
        rows.append((f"{one} \u2212 {other}", dots))
    points = "points of " if metric(found.metric).percent else ""
    axis = f"{points}{metric(found.metric).label}; right of 0: the first is better"
    title = f"Paired differences ({found.headline})"
    caption = (
        "Both were fitted on the same labels and tested on the same samples. An interval that holds 0 shows nothing."
    )
    if picture := intervals(title, rows, axis, kinds=budgets or ("",), zero=True):
        yield Shown("differences", title, caption, picture)


def robustness(found: Results) -> Iterator[Shown]:
    """Yield accuracy and cosine against the number of dates."""
    rows = [each for each in found.report.get("robustness") or () if is_number(each.get("dates"))]
    names = list(dict.fromkeys(each["features"] for each in rows))
    name = str(rows[0].get("metric", "")) if rows else ""
    for key, measure, said in (("value", name, unit_of(name)), ("cosine", "", "Cosine")):
        lines, levels = [], []
        for n, features in enumerate(names):
            mine = sorted((each for each in rows if each["features"] == features), key=lambda each: each["dates"])
            points = [(float(each["dates"]), _scaled(measure, each.get(key))) for each in mine]
            lines.append(Curve(features, points, SERIES[n % len(SERIES)], "solid", MARKS[n % len(MARKS)]))
            if key == "value" and is_number(mine[-1].get("reference")):
                all_dates = _scaled(measure, mine[-1]["reference"])
                levels.append(Level(f"{features}, all dates", all_dates, SERIES[n % len(SERIES)]))
        title = f"{said} with fewer dates"
        if picture := curves(title, lines, levels, Axes(x="dates of each sensor", y=said), size=(4.6, 2.8)):
            caption = "" if key == "value" else "Similarity to the embedding of all dates; 1 is the same."
            yield Shown(f"robustness-{key}", title, caption, picture)
