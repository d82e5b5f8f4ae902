"""What axes say: numbers as we write them, on round places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tessera_cli.figures.numbers import tick

Along = str
"""`x` or `y`."""


def linear(axes: Any, along: Along, *, whole: bool = False, say: Callable[[float], str] = tick) -> None:
    """Let an axis have a few round places; `whole`: none between whole numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = getattr(axes, f"{along}axis")
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: say(value)))


def logarithmic(axes: Any, along: Along) -> None:
    """Let an axis be logarithmic, with places at 1, 2 and 5 x 10^n, or at 10^n where those would be many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{along}scale")("log")
    axis = getattr(axes, f"{along}axis")
    low, high = axis.get_view_interval()
    steps = (1.0, 2.0, 5.0) if low > 0 and high / low < 300 else (1.0,)
    axis.set_major_locator(LogLocator(10, subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def at_values(axes: Any, along: Along, values: Sequence[float], names: Sequence[str]) -> None:
    """Let an axis have exactly these places."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis = getattr(axes, f"{along}axis")
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(NullLocator())
