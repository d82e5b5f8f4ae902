"""Samples on the ground: which fold they are of, and where a model errs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tessera_cli.figures.axes import linear
from tessera_cli.figures.numbers import tick
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import MARKS, WIDTH, colour, new_figure, plain, role, style

MOST_DRAWN = 1500
"""Points that are drawn as shapes; more are painted into a picture of their own, which keeps pages small."""
MOST_NAMED = 16
"""Groups; of more of them the neighbours differ, and nothing says which is which."""


def categories(
    title: str, lonlat: np.ndarray, group: np.ndarray, names: Sequence[str], *, colours: Sequence[str] | None = None
) -> Picture | None:
    """Draw places in the colour of their group, int (N,), an index into `names`; None where no place is known.

    `lonlat`: float (N, 2), degrees; NaN where unknown. `colours`: names of the theme, one for each group.
    """
    known = np.isfinite(lonlat).all(axis=1) & (group >= 0)
    if not known.any():
        return None
    with style():
        figure, plot = _map(lonlat[known])
        group, x, y = group[known], _unwrapped(lonlat[known, 0]), lonlat[known, 1]
        size = _size(len(x))
        for number, name in enumerate(names):
            mine = group == number
            if mine.any():
                tint = role(colours[number]) if colours else colour(number)
                look = {"c": tint, "marker": MARKS[number % len(MARKS)], "s": size, "linewidths": 0}
                label = f"{plain(name, 24)} ({int(mine.sum()):,})"
                plot.scatter(x[mine], y[mine], label=label, rasterized=len(x) > MOST_DRAWN, **look)
        if len(names) <= MOST_NAMED:
            figure.legend(
                loc="outside lower left", ncols=3, markerscale=max(1.0, math.sqrt(12 / size)), handletextpad=0.2
            )
        return Picture.of(title, figure)


def amounts(title: str, lonlat: np.ndarray, value: np.ndarray, label: str) -> Picture | None:
    """Draw places with a signed value (N,), in two colours from a neutral 0; None where nothing is known."""
    known = np.isfinite(lonlat).all(axis=1) & np.isfinite(value)
    if not known.any():
        return None
    with style():
        from matplotlib.colors import LinearSegmentedColormap

        figure, plot = _map(lonlat[known])
        order = np.argsort(np.abs(value[known]), kind="stable")  # the largest lie on top
        x, y, shown = _unwrapped(lonlat[known, 0])[order], lonlat[known, 1][order], value[known][order]
        most = float(np.quantile(np.abs(shown), 0.98)) or float(np.abs(shown).max()) or 1.0
        colours = LinearSegmentedColormap.from_list("error", [role("c1"), "#b9b8b2", role("c2")])
        look = {"cmap": colours, "vmin": -most, "vmax": most, "s": _size(len(x)), "linewidths": 0}
        drawn = plot.scatter(x, y, c=shown, rasterized=len(x) > MOST_DRAWN, **look)
        bar = figure.colorbar(drawn, ax=plot, orientation="horizontal", aspect=40, extend="both", pad=0.02)
        bar.set_label(plain(label))
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        linear(bar.ax, "x")
        return Picture.of(title, figure)


def _map(lonlat: np.ndarray) -> tuple[Any, Any]:
    x, y = _unwrapped(lonlat[:, 0]), lonlat[:, 1]
    across = max(0.2, math.cos(math.radians(float(np.clip(np.median(y), -85, 85)))))
    wide = max(float(np.ptp(x)) * across, 1e-6)
    high = max(float(np.ptp(y)), 1e-6)
    figure = new_figure(WIDTH, min(5.0, max(2.2, 0.8 + 3.9 * high / wide)))
    plot = figure.add_subplot()
    plot.set_aspect(1 / across, adjustable="datalim")
    plot.margins(0.04)
    linear(plot, "x", say=lambda value: _degrees(value, "E", "W"))
    linear(plot, "y", say=lambda value: _degrees(value, "N", "S"))
    return figure, plot


def _unwrapped(lon: np.ndarray) -> np.ndarray:
    """Return longitudes without a leap at the antimeridian."""
    first = float(lon[0])
    return first + (lon - first + 180) % 360 - 180


def _degrees(value: float, above: str, below: str) -> str:
    if above == "E":
        value = (value + 180) % 360 - 180
    side = "" if abs(value) < 1e-9 or abs(abs(value) - 180) < 1e-9 else f" {above if value >= 0 else below}"
    return f"{tick(abs(value))}\u00b0{side}"


def _size(points: int) -> float:
    """Square points of type: few places are large, many small."""
    return min(14.0, max(1.2, 6000 / points))
