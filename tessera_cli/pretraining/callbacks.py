"""Training callbacks; all default to no-ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""One object of `metrics.jsonl`."""
COLLAPSED = 0.5
"""Off-diagonal RMS of the projections above which the run has collapsed; healthy runs end at 0.1 to 0.3."""


@dataclass(frozen=True)
class Callbacks:
    on_shards: Callable[[int, int], None] = lambda done, total: None
    """Called with parts done and in all while shards are built; an exception ends the build."""
    on_teacher: Callable[[int, int], None] = lambda done, total: None
    """Called with pixels done and in all while a teacher embeds them; an exception ends it, what is finished stays."""
    on_start: Callable[[int, int], None] = lambda steps, start: None
    """Called before the first step with the steps in all and those already done."""
    on_row: Callable[[Row], None] = lambda row: None
    """Called with every row of `metrics.jsonl`."""
    on_step: Callable[[int], None] = lambda step: None
    """Called after each step with the number of finished steps."""
    should_stop: Callable[[], bool] = lambda: False
    """Return whether to save and stop after this step."""
