"""Curves over training steps as SVG within a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MOST_POINTS = 800
"""Of a curve; longer ones are thinned evenly."""
MARKED = 40
"""A curve of at most so many points shows each of them, else the last alone."""
WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 440, 12, 184
"""The edges of the plot within a chart."""


@dataclass(frozen=True)
class Curve:
    """Values at steps, in rising step."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "c1"
    """Classes of `STYLE`: c1 to c4 or plain, and dashed."""


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    name: str
    value: float
    style: str
    """A class of `STYLE`: good or bad."""


def chart(
    title: str,
    caption: str,
    curves: Sequence[Curve],
    levels: Sequence[Level] = (),
    *,
    log: bool = False,
    zero: bool = False,
) -> str:
    """An HTML figure; empty if no curve has a point.

    `zero`: the axis begins at 0 or below. `log`: it is logarithmic, and leaves out what is not above 0.
    """
    if log:
        curves = [Curve(c.name, [point for point in c.points if point[1] > 0], c.style) for c in curves]
        levels = [level for level in levels if level.value > 0]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    values = [value for curve in curves for _, value in curve.points] + [level.value for level in levels]
    low, high = min([*values, 0.0] if zero else values), max(values)
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    end = max(1.0, *(curve.points[-1][0] for curve in curves))
    scale = math.log if log else float

    def x(step: float) -> float:
        return LEFT + step / end * (RIGHT - LEFT)

    def y(value: float) -> float:
        share = (scale(value) - scale(ticks[0])) / (scale(ticks[-1]) - scale(ticks[0]))
        return BOTTOM - share * (BOTTOM - TOP)

    drawn = [_rule(y(tick), "grid") + _text(LEFT - 6, y(tick) + 4, _label(tick), "end") for tick in ticks]
    steps = [tick for tick in linear_ticks(0, end) if tick <= end and tick == int(tick)]
    drawn += [_text(x(tick), BOTTOM + 16, f"{tick:,.0f}", "middle") for tick in steps]
    drawn += [_text(RIGHT, HEIGHT - 4, "step", "end")]
    drawn += [_rule(y(level.value), level.style) for level in levels]
    for curve in curves:
        thinned = curve.points[:: -math.ceil(len(curve.points) / MOST_POINTS)][::-1]  # the last point stays
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thinned)
        drawn.append(f'<polyline class="{curve.style}" points="{line}"/>')
        for step, value in thinned if len(thinned) <= MARKED else thinned[-1:]:
            told = f"{escape(curve.name)}: {number(value)} at step {step:,.0f}"
            place = f'cx="{x(step):.1f}" cy="{y(value):.1f}"'
            drawn.append(f'<circle class="{curve.style}" {place} r="2.5"><title>{told}</title></circle>')
    keys = [_key(curve.name, curve.points[-1][1], curve.style) for curve in curves]
    keys += [_key(level.name, level.value, level.style) for level in levels]
    return (
        f'<figure><h3>{escape(title)}</h3><div class="legend">{"".join(keys)}</div>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def number(value: float | None) -> str:
    """Three significant digits, but all digits before the point; a dash for nothing."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}".replace("e-0", "e-")


def linear_ticks(low: float, high: float) -> list[float]:
    """Two or more round numbers 1, 2 or 5 x 10^n apart, from at most `low` to at least `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    least = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Two or more of 1, 2 and 5 x 10^n, or of 10^n where those would be many, from at most `low` to at least `high`."""
    factors = (1, 2, 5) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    known = [factor * 10.0**power for power in powers for factor in factors]
    first = max(n for n, tick in enumerate(known) if tick <= low)
    last = min(n for n, tick in enumerate(known) if tick >= high)
    return known[first : max(last, first + 1) + 1]


def _label(tick: float) -> str:
    return f"{tick:,.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _key(name: str, value: float, style: str) -> str:
    swatch = f'<svg viewBox="0 0 18 6"><line class="{style}" x2="18" y1="3" y2="3"/></svg>'
    return f"<span>{swatch}{escape(name)} <b>{number(value)}</b></span>"


def _rule(height: float, style: str) -> str:
    return f'<line class="{style}" x1="{LEFT}" x2="{RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


STYLE = """
figure { margin: 0; padding: 1rem; } figcaption { font-size: .82rem; color: var(--soft); margin-top: .4rem; }
figure > svg { width: 100%; height: auto; display: block; }
.legend { font-size: .82rem; color: var(--soft); display: flex; flex-wrap: wrap; gap: 0 1rem; }
.legend svg { width: 18px; height: 6px; margin-right: .35rem; } .legend b { color: var(--ink); font-weight: 600; }
text { font-size: 11px; fill: var(--soft); } polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
line { stroke-width: 1.8; } line.grid { stroke: var(--rule); stroke-width: 1; }
.c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); }
.plain { stroke: var(--soft); opacity: .6; } line.bad { stroke: var(--bad); } line.good { stroke: var(--good); }
line.good, line.bad { stroke-width: 1.4; stroke-dasharray: 2 3; } .dashed { stroke-dasharray: 5 4; }
circle { fill: var(--card); stroke-width: 1.6; } circle.dashed { stroke-dasharray: none; }
"""
"""It takes the colours --ink, --soft, --rule, --card, --c1 to --c4, --good and --bad."""
