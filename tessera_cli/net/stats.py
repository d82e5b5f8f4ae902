"""Counts of a run: requests, bytes, retries, and how every planned read ended."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Literal

Outcome = Literal["read", "absent", "broken", "refused", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("read", "absent", "broken", "refused", "unknown")


class RequestStats:
    """Counters that many threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._requests = self._bytes = self._local_bytes = 0

    def read(self, outcome: Outcome) -> None:
        """Count the outcome of a planned read of one asset on one tile."""
        with self._lock:
            self._reads[outcome] += 1

    def retry(self, cause: str) -> None:
        """Count a request that is repeated."""
        with self._lock:
            self._retries[cause] += 1

    def request(self, received: int) -> None:
        """Count one request and the bytes of its response."""
        with self._lock:
            self._requests += 1
            self._bytes += received

    def local(self, count: int) -> None:
        """Count bytes that were read from files on this machine."""
        with self._lock:
            self._local_bytes += count

    def to_dict(self) -> dict[str, Any]:
        """Return `reads` by outcome, `retries` by cause, `requests`, `bytes`, `local_bytes`."""
        with self._lock:
            return {
                "reads": {outcome: self._reads[outcome] for outcome in OUTCOMES},
                "retries": dict(sorted(self._retries.items())),
                "requests": self._requests,
                "bytes": self._bytes,
                "local_bytes": self._local_bytes,
            }
