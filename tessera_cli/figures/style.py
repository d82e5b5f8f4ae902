"""One look for all figures: colours of the page's theme, type, and nothing of the user's matplotlib settings."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tessera_cli.errors import UsageError, printable

ROLES = {
    "card": "#ffffff",
    "ink": "#1c1c1a",
    "soft": "#65645f",
    "rule": "#e4e3de",
    "c1": "#2467b0",
    "c2": "#c2620a",
    "c3": "#1f8a5f",
    "c4": "#c65b9c",
    "c5": "#2b2b6e",
    "c6": "#45a3d9",
    "c7": "#6e3a12",
    "c8": "#a89a00",
    "bad": "#c62828",
    "good": "#5f7f2e",
}
"""Names of the theme (`pages/theme.css`) and their light colours: figures are drawn in these, and a page puts its own
in their place. The eight of series are told apart with any kind of colour vision, with their marks and dashes."""

SERIES = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = {"solid": "solid", "dashed": (0, (4, 2.2)), "dotted": (0, (1, 1.6)), "dashdot": (0, (4, 1.6, 1, 1.6))}

WIDTH = 4.6
"""Inches. Pages show a figure so wide in about 420 pixels: 8 points of type are 10 pixels there, and 8 on a phone."""

NEEDED = 'Figures need another package. Run: pip install "tessera-embed[evaluate]".'

_SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "text.color": ROLES["ink"],
    "text.parse_math": False,
    "axes.labelsize": 8,
    "axes.labelcolor": ROLES["soft"],
    "axes.edgecolor": ROLES["soft"],
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": ROLES["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": ROLES["soft"],
    "ytick.color": ROLES["soft"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.2,
    "legend.borderaxespad": 0,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.image_inline": True,
}
_LOCK = threading.RLock()


def drawable() -> bool:
    """Return whether there is matplotlib."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """Let matplotlib draw in this style, whatever it is set to elsewhere; its settings are those of the process."""
    try:
        mpl: Any = import_module("matplotlib")
    except ImportError as error:
        raise UsageError(NEEDED) from error
    with _LOCK, mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # SVG has the letter all the same
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS | more)
        yield


def new_figure(width: float = WIDTH, height: float = 2.6) -> Any:
    """Return an empty matplotlib Figure of so many inches; within `style()`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def role(name: str) -> str:
    """Return the light colour of a name of the theme."""
    return ROLES[name]


def colour(number: int) -> str:
    """Return the light colour of a series, counted from 0; beyond eight they come again."""
    return ROLES[SERIES[number % len(SERIES)]]


def plain(text: object, most: int = 60) -> str:
    """Return text of others as one line that can be drawn: cut, and without characters that XML does not know."""
    line = printable(str(text), longest=None)
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"
