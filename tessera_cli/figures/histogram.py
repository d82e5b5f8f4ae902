"""How values are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_cli.figures.axes import linear
from tessera_cli.figures.curves import Level
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import WIDTH, new_figure, plain, role, style


def histogram(title: str, values: np.ndarray, axis: str, levels: Sequence[Level] = ()) -> Picture | None:
    """Draw how many of the values (N,) lie where, with levels as upright lines; None if none is finite."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    with style():
        figure = new_figure(WIDTH, 2.0)
        plot = figure.add_subplot()
        plot.grid(visible=False, axis="x")
        bins = int(np.clip(np.sqrt(len(values)), 5, 40))
        plot.hist(values, bins=bins, color=role("c1"), alpha=0.75)
        for level in levels:
            plot.axvline(level.value, color=role(level.colour), linestyle=(0, (2, 3)), label=plain(level.name))
        linear(plot, "x")
        linear(plot, "y", whole=True)
        plot.set_xlabel(plain(axis), loc="right")
        plot.set_ylabel("samples")
        if levels:
            figure.legend(loc="outside lower left", ncols=3)
        return Picture.of(title, figure)
