"""Values with their intervals, a row each: measures, or differences against nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tessera_cli.figures.axes import at_values, linear
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import MARKS, WIDTH, new_figure, plain, role, style


@dataclass(frozen=True)
class Dot:
    """A value with an interval."""

    value: float
    low: float | None
    high: float | None
    kind: int = 0
    """Which of `kinds` it is."""


def intervals(
    title: str,
    rows: Sequence[tuple[str, Sequence[Dot]]],
    axis: str,
    *,
    kinds: Sequence[str] = ("",),
    zero: bool = False,
) -> Picture | None:
    """Draw rows from top to bottom; None if there is no finite value.

    `kinds`: what dots of one row differ in; with more than one, they are named below. `zero`: draw a line at 0, where
    nothing differs.
    """
    shown = [(name, [dot for dot in dots if math.isfinite(dot.value)]) for name, dots in rows]
    shown = [(name, dots) for name, dots in shown if dots]
    if not shown:
        return None
    each = 0.115 * max(1, len(kinds)) + 0.15
    with style():
        from matplotlib.lines import Line2D

        figure = new_figure(WIDTH, 0.75 + each * len(shown) + (0.2 * ((len(kinds) + 2) // 3) if len(kinds) > 1 else 0))
        plot = figure.add_subplot()
        plot.grid(visible=False, axis="y")
        for row, (_, dots) in enumerate(shown):
            for dot in dots:
                look = {"color": role(f"c{dot.kind % 8 + 1}"), "gid": "dot"}
                y = row + (0.0 if len(kinds) < 2 else 0.7 * ((dot.kind + 0.5) / len(kinds) - 0.5))
                if dot.low is not None and dot.high is not None and math.isfinite(dot.low + dot.high):
                    plot.plot([dot.low, dot.high], [y, y], linewidth=1.3, solid_capstyle="butt", **look)
                mark = MARKS[dot.kind % len(MARKS)]
                plot.plot([dot.value], [y], marker=mark, markerfacecolor=role("card"), markeredgewidth=1.1, **look)
        if zero:
            plot.axvline(0, color=role("soft"), linewidth=0.9)
        plot.set_ylim(len(shown) - 0.5, -0.5)
        at_values(plot, "y", range(len(shown)), [plain(name, 44) for name, _ in shown])
        linear(plot, "x")
        plot.set_xlabel(plain(axis), loc="right")
        if len(kinds) > 1:
            keys = [
                Line2D([], [], color=role(f"c{n % 8 + 1}"), marker=MARKS[n % len(MARKS)], label=plain(kind, 24))
                for n, kind in enumerate(kinds)
            ]
            figure.legend(handles=keys, loc="outside lower left", ncols=3)
        return Picture.of(title, figure)
