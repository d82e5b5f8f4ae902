"""Numbers as pages, figures and logs write them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three significant digits, but all digits before the point; a dash for nothing."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}".replace("e-0", "e-")


def tick(value: float) -> str:
    """What an axis says at a place: six digits at most, none that says nothing."""
    return f"{value:,.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("-", "\u2212")


def percent(share: float) -> str:
    """A share of labels as per cent: 1 %, 0.5 %."""
    return f"{100 * share:.3g} %"
