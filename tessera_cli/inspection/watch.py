"""Follow a run, of one process or a thousand on many machines, from what it leaves in the folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.errors import PartialFailureError
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.census import Census, TileState, census_taker
from tessera_cli.journal import NEXT
from tessera_cli.parts import PART, is_alive, process_of
from tessera_cli.runs.results import SCHEMA

HOUR = 3600.0
SPANS = (HOUR, 24 * HOUR)
"""Over which tiles per hour are counted: the first in which there are LEAST."""
LEAST = 3
FRESH = 120.0
"""Seconds since its last change after which nobody is taken to write an unfinished file any more."""
SEEN = 600.0
"""Seconds for which a process counts as at work after it was seen writing: it writes only at times."""


@dataclass(frozen=True)
class Round:
    """What a look at the folder showed."""

    path: Path
    census: Census
    at: float
    """When, in seconds since 1970."""
    failed: tuple[TileState, ...]
    """Tiles that failed since the round before, in the first round all that had."""
    processes: int
    """Processes seen writing in the last ten minutes, without those that are known to have ended."""
    writing: int
    """Files and tiles that are being written at this moment."""

    @property
    def per_hour(self) -> float | None:
        """Tiles finished per hour in the last hour, or day; None as long as there are too few."""
        for span in SPANS:
            times = [at for state in self.census.states if (at := state.finished) and at >= self.at - span]
            if len(times) >= LEAST:
                return (len(times) - 1) / max(self.at - min(times), 1.0) * HOUR
        return None

    @property
    def eta(self) -> float | None:
        """Seconds until the last missing tile is finished, at this rate; None if it is not known."""
        left, rate = self.census.counts.get("missing", 0), self.per_hour
        return 0.0 if not left else left / rate * HOUR if rate else None

    @property
    def is_last(self) -> bool:
        """Return whether every tile is finished or failed, and nothing is being written."""
        return self.census.is_over and not self.writing

    def error(self) -> PartialFailureError | None:
        """Return the error that a run which has come to this end ends with; None if all tiles are finished."""
        if self.census.is_complete:
            return None
        told = ", ".join(f"{self.census.counts[s]:,} {s}" for s in ("failed", "missing") if s in self.census.counts)
        return PartialFailureError(f"Of {len(self.census.states):,} tiles in {self.path}, {told}. Run again.")

    def to_dict(self) -> dict[str, Any]:
        """Return the object of a round with --json."""
        rate, eta = self.per_hour, self.eta
        return {
            "type": "round",
            "schema": SCHEMA,
            "folder": str(self.path),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.at)),
            "tiles": dict(self.census.counts),
            "pixels": sum(state.pixels for state in self.census.states),
            "per_hour": None if rate is None else round(rate, 2),
            "eta_seconds": None if eta is None else round(eta),
            "failed": {state.name: state.reason for state in self.failed},
            "processes": self.processes,
            "over": self.is_last,
        }


def watch(
    path: Path, seconds: float, *, sleep: Callable[[float], object] = time.sleep, now: Callable[[], float] = time.time
) -> Iterator[Round]:
    """Yield what the folder shows now and every `seconds`; the last round is the one with which the run is over.

    Each round lists the folder once and reads only records that are new. UsageError if no run or plan has asked for
    anything there.
    """
    taker = census_taker(path)
    before, seen = dict[str, str](), dict[str, float]()
    while True:
        if not taker.folder.identity:  # of a plan alone; the runs it is for have yet to begin
            taker.folder = TileFolder.open(path)
        census, at = taker.take(), now()
        failed = {state.name: state for state in census.states if state.status == "failed"}
        new = tuple(state for name, state in failed.items() if before.get(name) != state.reason)
        before = {name: state.reason for name, state in failed.items()}
        writing = [name for name in taker.listed if name.endswith((PART, NEXT)) and _is_fresh(path / name, at)]
        seen |= {name: at for name in writing if process_of(name)}
        seen = {name: last for name, last in seen.items() if at - last < SEEN and is_alive(name) is not False}
        found = Round(path, census, at, new, len({process_of(name) for name in seen}), len(writing))
        yield found
        if found.is_last:
            return
        sleep(seconds)


def _is_fresh(path: Path, at: float) -> bool:
    """Return whether something unfinished has changed lately, and does not belong to a process that has ended."""
    if is_alive(path.name) is False:
        return False
    with suppress(OSError):
        return at - path.stat().st_mtime < FRESH
    return False
