"""When a run ends, and which tiles it still begins before that."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from tessera_cli import jobs
from tessera_cli.errors import OutOfTimeError, UsageError

logger = logging.getLogger(__name__)

MARGIN = 60.0
"""Seconds before the end of a Slurm job at which its run ends: for keeping the tile in hand (a second), writing the
one before (a few) and the lists and mosaics of ten thousand tiles (twenty)."""
REMEMBERED = 50
"""Tiles by which the next one is judged."""
ALIKE = 8
"""How many times as large a tile may be as those it is judged by: what every tile costs once would tell too much."""
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS), re.ASCII)

Part = Literal["read", "process", "write"]
"""What a tile goes through."""


def seconds_of(text: str | float) -> float:
    """Return a duration such as 90s, 55m, 1h30m or 2d in seconds; numbers are seconds already. UsageError if none."""
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip().lower())
        amounts = [float(amount or 0) for amount in match.groups()] if match else []
        found = sum(amount * unit for amount, unit in zip(amounts, _UNITS.values(), strict=False))
    else:
        found = float(text)
    if not 0 < found < math.inf:
        raise UsageError(f"--deadline {text} is no duration. Write 90s, 55m or 1h30m.")
    return found


def ends_at(given: str | float | None, clock: Callable[[], float] = time.time) -> float | None:
    """Return when a run ends, in seconds since 1970: so long from now, or before the Slurm job does; None for never."""
    if given is not None:
        return clock() + seconds_of(given)
    end = jobs.job_end(clock=clock)
    if end is None:
        return None
    logger.info("this Slurm job ends in %.0f minutes, and the run a minute before", (end - clock()) / 60)
    return end - MARGIN


class Pace:
    """How long the last tiles of this process took, by their pixels."""

    def __init__(self) -> None:
        self._seen: dict[Part, deque[tuple[int, float]]] = {}

    def add(self, part: Part, pixels: int, seconds: float) -> None:
        """Take note of a tile."""
        if pixels > 0:
            self._seen.setdefault(part, deque(maxlen=REMEMBERED)).append((pixels, seconds))

    def seconds(self, part: Part, pixels: int) -> float | None:
        """Return how long a tile of so many pixels will take; None if no tile of about that size was taken."""
        alike = [each for each in tuple(self._seen.get(part, ())) if ALIKE * each[0] >= pixels]
        return pixels * sum(taken for _, taken in alike) / sum(size for size, _ in alike) if alike else None


class Deadline:
    """The end of a run in one process. What cannot be judged is begun: of a tile that is left much is kept."""

    def __init__(self, at: float | None, pace: Pace, clock: Callable[[], float] = time.time) -> None:
        self._at, self._clock, self.pace = math.inf if at is None else at, clock, pace
        self._called = False

    def check(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        if self._called or self._clock() >= self._at:
            raise OutOfTimeError("The time is up.")

    def check_reading(self, pixels: int, left: int, meanwhile: int) -> None:
        """Raise OutOfTimeError unless a tile can be read and finished until then.

        `left` of its `pixels` are to be processed, after the `meanwhile` of the tile before, while it is read.
        """
        ready = max(self.pace.seconds("read", pixels) or 0.0, self.pace.seconds("process", meanwhile) or 0.0)
        self._check_finishing(ready, pixels, left)

    def check_processing(self, pixels: int, left: int) -> None:
        """Raise OutOfTimeError unless a tile that was read can be finished until then."""
        self._check_finishing(0.0, pixels, left)

    def _check_finishing(self, ready: float, pixels: int, left: int) -> None:
        process = self.pace.seconds("process", left)
        needed = 0.0 if process is None else ready + process + (self.pace.seconds("write", pixels) or 0.0)
        if self._clock() + needed >= self._at:
            raise OutOfTimeError("The time is up.")

    @contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` when the time is up, unless the block has ended by then."""
        if self._at == math.inf:
            yield
            return

        def call() -> None:
            self._called = True  # a clock may have been set back meanwhile
            stop()

        delay = min(max(0.0, self._at - self._clock()), threading.TIMEOUT_MAX)
        timer = threading.Timer(delay, call)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
