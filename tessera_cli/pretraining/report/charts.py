"""The charts of a run's report: measures over training steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from tessera_cli.figures.curves import Axes, Curve, Level, curves
from tessera_cli.figures.numbers import number
from tessera_cli.pages import blocks
from tessera_cli.pretraining.callbacks import COLLAPSED, Row
from tessera_cli.pretraining.report.measures import MEASURES, measure

SIZE = (4.6, 2.2)
"""Inches."""
_DATES = ((5.0, "5"), (10.0, "10"), (20.0, "20"), (40.0, "all"))
"""Where numbers of dates lie on the axis."""


@dataclass(frozen=True)
class Chart:
    """Curves and what they mean."""

    title: str
    caption: str
    curves: Sequence[Curve]
    """Each has a point."""
    levels: Sequence[Level] = ()
    axes: Axes | None = None


def of_rows(train: Sequence[Row], evaluations: Sequence[Row], size: Any, clip: Any) -> Iterator[Chart]:
    """Yield the charts of rows of `metrics.jsonl`; those of which nothing was measured have no curve.

    `size` is the dimensions of the embedding and `clip` the bound of the gradient, if they are known.
    """
    losses = [_curve(train, "loss_above_floor", "above the floor"), _curve(train, "loss", "loss", "soft")]
    caption = (
        "B pixels cannot make D outputs independent: D\u00b2/(B\u22121) \u2212 D of the off-diagonal terms "
        "always remain, often most of the loss. What training changes is what lies above."
    )
    title = "Loss above its floor" if losses[0].points else "Loss"
    yield _chart(title, caption if losses[0].points else "", losses, axes=Axes(log_y=True))

    yield _over_dates(evaluations)

    chance = measure(train[-1], "offdiag_rms_chance") if train else None
    levels = [] if chance is None else [Level("chance, 1/\u221abatch", chance, "good")]
    levels.append(Level("collapse", COLLAPSED, "bad"))
    rms = _curve(train, "offdiag_rms", "training")
    yield _chart("Off-diagonal RMS", MEASURES["offdiag_rms"][1], [rms], levels, Axes(zero=True))

    yield _beside_random("Probes", evaluations, "probe_knn", "probe_linear")
    yield _beside_teacher("Probes from all dates", evaluations, "probe_knn_all", "probe_linear_all")
    yield _beside_random("Two views of a pixel", evaluations, "retrieval", "agreement")

    drift = [key for key in MEASURES if key.startswith("drift_")]
    caption = "Agreement of an embedding from fewer observations with the one from all of them; 1: no drift."
    fewer = [_curve(evaluations, key, MEASURES[key][0], f"c{colour}") for colour, key in enumerate(drift, 1)]
    yield _chart("Fewer observations", caption, fewer)

    ranks = [
        _curve(train, "rank_me", "training"),
        _curve(evaluations, "rank_me", "held out", "c2"),
        _curve(evaluations, "rank_me_random", "held out, random", "c2", "dashed"),
    ]
    title = "RankMe" if size is None else f"RankMe of {size} dimensions"
    yield _chart(title, MEASURES["rank_me"][1], ranks, axes=Axes(zero=True))

    caption = "Rises while the optimiser warms up, then falls to 0 along a cosine."
    yield _chart("Learning rate", caption, [_curve(train, "lr", "rate")], axes=Axes(zero=True))

    caption = "Before clipping. Single spikes are harmless; a rise without end is not: lower optim.lr."
    levels = [Level("clipped at", clip, "bad")] if isinstance(clip, int | float) else []
    yield _chart("Gradient norm", caption, [_curve(train, "gradient_norm", "norm")], levels, Axes(log_y=True))


def drawn(chart: Chart) -> str:
    """Return a chart as an HTML figure whose legend says the last value of each curve."""
    picture = curves(chart.title, chart.curves, chart.levels, chart.axes, legend=False, size=SIZE)
    keys = [_key(curve.name, curve.points[-1][1], curve.colour, curve.dash) for curve in chart.curves]
    keys += [_key(level.name, level.value, level.colour, "dotted") for level in chart.levels]
    return blocks.figure(chart.title, picture.svg() if picture else "", chart.caption, "".join(keys))


def _chart(
    title: str, caption: str, found: Sequence[Curve], levels: Sequence[Level] = (), axes: Axes | None = None
) -> Chart:
    asked = axes or Axes()
    if asked.log_y:  # the legend names what is drawn
        found = [replace(curve, points=[point for point in curve.points if point[1] > 0]) for curve in found]
        levels = [level for level in levels if level.value > 0]
    return Chart(title, caption, [curve for curve in found if curve.points], levels, asked)


def _curve(rows: Iterable[Row], key: str, name: str, colour: str = "c1", dash: str = "solid") -> Curve:
    pairs = ((measure(row, "step"), measure(row, key)) for row in rows)
    return Curve(name, [(x, y) for x, y in pairs if x is not None and y is not None], colour, dash)


def _beside_random(title: str, evaluations: Sequence[Row], *keys: str) -> Chart:
    found = []
    for colour, key in enumerate(keys, 1):
        label = MEASURES[key][0]
        found.append(_curve(evaluations, key, label, f"c{colour}"))
        found.append(_curve(evaluations, f"{key}_random", f"{label}, random", f"c{colour}", "dashed"))
    return _chart(title, " ".join(MEASURES[key][1] for key in keys), found)


def _over_dates(evaluations: Sequence[Row]) -> Chart:
    """Draw the first and the last cosine to the teacher over the number of dates."""
    rows = [row for row in evaluations if measure(row, "teacher_all") is not None]
    found = []
    for row, colour, dash in zip(
        rows[:: -max(1, len(rows) - 1)][:2], ("c1", "soft"), ("solid", "dashed"), strict=False
    ):
        points = [(x, measure(row, f"teacher_{name}")) for x, name in _DATES]
        name = f"step {number(measure(row, 'step'))}, all dates"
        found.append(Curve(name, [(x, y) for x, y in points if y is not None], colour, dash))
    caption = (
        "Mean cosine, after the mean is subtracted, between the teacher's embedding of held-out pixels from all "
        "observations and what is predicted of it from so many per sensor; 1: nothing is lost."
    )
    axes = Axes("dates per sensor", log_x=True, x_places=_DATES)
    return _chart("Held-out pixels against the teacher", caption, found, axes=axes)


def _beside_teacher(title: str, evaluations: Sequence[Row], *keys: str) -> Chart:
    found = [_curve(evaluations, key, MEASURES[key][0], f"c{colour}") for colour, key in enumerate(keys, 1)]
    for colour, key in enumerate(keys, 1):
        value = next((measure(row, f"{key}_teacher") for row in reversed(evaluations)), None)
        points = [] if value is None else [(x, value) for x, _ in found[colour - 1].points]
        found.append(Curve(f"{MEASURES[key][0]}, teacher", points, f"c{colour}", "dashed"))
    return _chart(title, MEASURES[keys[0]][1], found)


def _key(name: str, value: float, colour: str, dash: str) -> str:
    line = f'<line class="{dash}" style="stroke: var(--{colour})" x2="18" y1="3" y2="3"/>'
    return f'<span><svg viewBox="0 0 18 6">{line}</svg>{escape(name)} <b>{number(value)}</b></span>'
