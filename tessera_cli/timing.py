"""What a run takes: how long each stage was at work, whichever threads did it, and the memory."""

from __future__ import annotations

import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def rss_mb() -> float:
    """Return the resident set of this process now, in MB of 10^6 bytes; where it cannot be read, the largest so far."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6 if statm.exists() else peak_rss_mb()


def peak_rss_mb() -> float:
    """Return the largest resident set of this process so far, in MB of 10^6 bytes.

    Linux counts in `ru_maxrss` what the parent held when it forked, so the peak of this program itself is read.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_device_mb() -> float | None:
    """Return the most memory that this process has had on a GPU so far, in MB; None where it has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())), default=0) / 1e6)


class StageTimer:
    """Seconds by stage. Stages run side by side, so that the sum may exceed the time on the clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """What runs inside counts as work of this stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of stages elsewhere."""
        with self._lock:
            for stage, more in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + more

    @property
    def seconds(self) -> dict[str, float]:
        """A copy, in the order in which the stages first ended."""
        with self._lock:
            return dict(self._seconds)
