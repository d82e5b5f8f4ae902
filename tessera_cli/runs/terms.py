"""How a run goes about its tiles: which of them, until when, in which processes. None of it changes a byte of them."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from tessera_cli.planning.shard import Shard


@dataclass(frozen=True)
class Terms:
    """What a run is told besides what to make."""

    allow_missing: int = 0
    """Scenes per tile that may be absent or broken before the tile fails."""
    tiles: tuple[str, ...] = ()
    """Ids or names of the only tiles to take; empty for all."""
    retry_failed: bool = False
    """Take only tiles that failed before."""
    overwrite: bool = False
    """Make finished tiles again."""
    deadline: float | None = None
    """Seconds since 1970 after which the run ends, finished or not."""
    executor: Executor | None = None
    """Where tasks run; None for this process."""
    slots: int = 1
    """Tasks that the executor works on side by side."""
    shard: Shard | None = None
    """The share of the tiles that this process takes; None for all."""


PLAIN = Terms()
