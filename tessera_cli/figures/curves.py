"""Curves with bands, and levels to hold them against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tessera_cli.figures.axes import at_values, linear, logarithmic
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import DASHES, WIDTH, new_figure, plain, role, style

MOST_POINTS = 800
"""Of a curve; longer ones are thinned evenly."""
MARKED = 40
"""A curve of at most so many points shows each of them, else the last alone."""


@dataclass(frozen=True)
class Curve:
    """Values along x, in rising x."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "c1"
    """A name of the theme: c1 to c8, soft."""
    dash: str = "solid"
    """`solid`, `dashed`, `dotted` or `dashdot`."""
    mark: str = "o"
    band: Sequence[tuple[float, float]] = ()
    """Low and high for each point; empty: none. NaN where there is no interval."""

    def where(self, keep: Sequence[bool]) -> Curve:
        """Return the points that are kept, with their band."""
        points = [point for point, kept in zip(self.points, keep, strict=True) if kept]
        band = [pair for pair, kept in zip(self.band, keep, strict=True) if kept] if self.band else ()
        return replace(self, points=points, band=band)


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    name: str
    value: float
    colour: str
    """`good`, `bad`, `soft`."""


@dataclass(frozen=True)
class Axes:
    """How the axes of curves are."""

    x: str = "step"
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    """What is not above 0 is left out."""
    zero: bool = False
    """y begins at 0 or below."""
    y_range: tuple[float, float] | None = None
    """None: what the curves need."""
    x_places: Sequence[tuple[float, str]] = ()
    """What x says, and where; empty: round numbers."""


def curves(
    title: str,
    lines: Sequence[Curve],
    levels: Sequence[Level] = (),
    axes: Axes | None = None,
    *,
    legend: bool = True,
    size: tuple[float, float] = (WIDTH, 2.6),
) -> Picture | None:
    """Draw curves; None if none has a point.

    Values that are not finite are left out. `legend` names curves and levels below; without it, whoever shows the
    picture says what is what.
    """
    asked = axes or Axes()
    lines = [line for line in (_finite(line, asked) for line in lines) if line.points]
    levels = [level for level in levels if math.isfinite(level.value) and (level.value > 0 or not asked.log_y)]
    if not lines:
        return None
    with style():
        from matplotlib.lines import Line2D

        figure = new_figure(*size)
        plot = figure.add_subplot()
        plot.grid(visible=False, axis="x")
        keys = []
        for line in lines:
            _draw(plot, line, clip=asked.y_range is not None)
            look: dict[str, Any] = {"color": role(line.colour), "linestyle": DASHES[line.dash], "marker": line.mark}
            keys.append(Line2D([], [], label=plain(line.name), **look))
        for level in levels:
            look = {"color": role(level.colour), "linestyle": (0, (2, 3)), "linewidth": 1.2}
            plot.axhline(level.value, gid="level", **look)
            keys.append(Line2D([], [], label=plain(level.name), **look))
        _scale(plot, lines, asked)
        plot.set_xlabel(plain(asked.x), loc="right")
        if asked.y:
            plot.set_ylabel(plain(asked.y))
        if legend:
            figure.legend(handles=keys, loc="outside lower left", ncols=2 if len(keys) > 3 else len(keys))
        return Picture.of(title, figure)


def _finite(line: Curve, axes: Axes) -> Curve:
    def kept(x: float, y: float) -> bool:
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not axes.log_x) and (y > 0 or not axes.log_y)

    return line.where([kept(x, y) for x, y in line.points])


def _draw(plot: Any, line: Curve, clip: bool) -> None:
    if line.band:
        low, high = zip(*line.band, strict=True)
        plot.fill_between(
            [place for place, _ in line.points], low, high, color=role(line.colour), alpha=0.14, linewidth=0, gid="band"
        )
    every = math.ceil(len(line.points) / MOST_POINTS)
    thinned = line.points[::-every][::-1]  # the last point stays
    x, y = zip(*thinned, strict=True)
    marked = list(range(len(x))) if len(x) <= MARKED else [len(x) - 1]
    plot.plot(
        x,
        y,
        color=role(line.colour),
        linestyle=DASHES[line.dash],
        marker=line.mark,
        markevery=marked,
        markerfacecolor=role("card"),
        markeredgewidth=1.1,
        gid="curve",
        linewidth=1.5 if len(line.points) <= MOST_POINTS // 4 else 1.0,
        clip_on=clip,
    )


def _scale(plot: Any, lines: Sequence[Curve], asked: Axes) -> None:
    across = [x for line in lines for x, _ in line.points]
    if asked.log_x:
        plot.set_xscale("log")
        wide = (max(across) / min(across)) ** 0.04 if max(across) > min(across) else 2.0
        plot.set_xlim(min(across) / wide, max(across) * wide)
    else:
        plot.set_xlim(min(0.0, *across), max(1.0, *across))
    if asked.x_places:
        at_values(plot, "x", *zip(*asked.x_places, strict=True))
    elif asked.log_x:
        logarithmic(plot, "x")
    else:
        linear(plot, "x", whole=True)
    plot.margins(y=0.08)
    plot.autoscale(axis="y")
    if asked.log_y:
        logarithmic(plot, "y")
    else:
        linear(plot, "y")
        if asked.zero:
            plot.set_ylim(bottom=min(0.0, plot.get_ylim()[0]) if _lowest(lines) < 0 else 0.0)
    if asked.y_range:
        plot.set_ylim(*asked.y_range)


def _lowest(lines: Sequence[Curve]) -> float:
    return min(y for line in lines for _, y in line.points)
