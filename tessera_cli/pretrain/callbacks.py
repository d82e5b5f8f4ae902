"""Who is told how a run goes, and who may end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""One object of `metrics.jsonl`."""
COLLAPSED = 0.5
"""Off-diagonal RMS of the projections beyond which their dimensions say the same; healthy runs end at 0.1 to 0.3."""


@dataclass(frozen=True)
class Watch:
    """Nobody, by default."""

    building: Callable[[int, int], None] = lambda done, total: None
    """Parts done and in all, while shards are built; what it raises ends that."""
    begin: Callable[[int, int], None] = lambda steps, start: None
    """Before the first step: steps in all, and those that are done."""
    row: Callable[[Row], None] = lambda row: None
    """Every row of `metrics.jsonl`."""
    step: Callable[[int], None] = lambda step: None
    """The number of finished steps, after each."""
    stop: Callable[[], bool] = lambda: False
    """Whether to save and leave after this step."""
