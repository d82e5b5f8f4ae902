"""A confusion matrix: shares of each true class as colour, counts as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tessera_cli.figures.axes import at_values
from tessera_cli.figures.picture import Picture
from tessera_cli.figures.style import WIDTH, new_figure, plain, role, style

MOST_NUMBERS = 16
"""Classes; with more of them colour alone is shown."""
MOST_NAMES = 40
"""Classes; with more of them their numbers stand at the axes."""


def matrix(title: str, counts: np.ndarray, names: tuple[str, ...]) -> Picture:
    """Draw counts (K, K), rows the true class and columns the predicted one."""
    size = len(names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    with style():
        from matplotlib.patches import Rectangle

        figure = new_figure(WIDTH, min(WIDTH, 1.6 + 0.24 * size))
        plot = figure.add_subplot()
        plot.grid(visible=False)
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = float(shares[row, column])
            look: dict[str, Any] = {"facecolor": role("c1"), "alpha": 0.06 + 0.94 * share, "linewidth": 0}
            plot.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **look))
            if size <= MOST_NUMBERS:
                said = f"{int(counts[row, column]):,}"
                small = max(4.5, 7.5 - 0.25 * max(0, size - 6) - 0.5 * max(0, len(said) - 4))
                where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": small}
                plot.text(column, row, said, color=role("card" if share > 0.55 else "ink"), **where)
        for edge in np.arange(size + 1) - 0.5:
            for line in (plot.axhline, plot.axvline):
                line(edge, color=role("rule"), linewidth=0.5)
        plot.set_xlim(-0.5, size - 0.5)
        plot.set_ylim(size - 0.5, -0.5)
        plot.spines[:].set_visible(False)
        said_names = [plain(name, 18) for name in names] if size <= MOST_NAMES else [str(n) for n in range(size)]
        every = 1 if size <= MOST_NAMES else -(-size // 20)
        places, texts = list(range(0, size, every)), said_names[::every]
        for along in ("x", "y"):
            at_values(plot, along, places, texts)
        small = 7.5 if size <= 12 else 5.5 if size <= 25 else 4
        plot.tick_params(length=0, labelsize=small)
        plot.tick_params(axis="x", labelrotation=0 if size <= 4 else 45)
        for label in plot.get_xticklabels() if size > 4 else ():
            label.set(ha="right", rotation_mode="anchor")
        plot.set_xlabel("predicted", loc="right")
        plot.set_ylabel("true", loc="top")
        return Picture.of(title, figure)
