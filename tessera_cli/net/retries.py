"""The retry policies: what may go wrong between us and a server, how often and after which pause we try again.

They hold for every request: searches, tokens, reads and downloads of weights.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tessera_cli.errors import TesseraError


class Cause(StrEnum):
    """Why a request got no usable response."""

    UNREACHABLE = "unreachable"
    """No connection, or one that broke before the response began."""
    STALLED = "stalled"
    """Nothing came for a while, or too slowly."""
    TRUNCATED = "truncated"
    """The response ended early."""
    BUSY = "busy"
    """408, 425, 429: the server asks for patience."""
    SERVER = "server error"
    """5xx"""
    FORBIDDEN = "forbidden"
    """401, 403: repeated with a new signature."""
    ERROR_PAGE = "error page"
    """A web page with status 200 in place of data."""
    TOO_LONG = "too long"
    """413, 502, 504 to a page of a search: perhaps longer than the server can send. Then retrying will not help."""


class RetryableError(Exception):
    """A request that failed in a way that may pass."""

    def __init__(self, cause: Cause, final: TesseraError, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.final = final
        """What to raise once the retries are exhausted."""
        self.retry_after = retry_after
        """Seconds that the server asked for."""
        self.begun = time.monotonic()
        """When the request began."""
        self.progress = False
        """Whether the request brought something all the same: then retries count from the beginning."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and after which pauses requests that failed for one cause are repeated."""

    retries: int
    first: float
    """Seconds before the first retry; each further pause is twice as long."""
    longest: float
    """Seconds; also the most that a Retry-After header may ask for."""


RETRY_POLICIES: Mapping[Cause, RetryPolicy] = {
    Cause.UNREACHABLE: RetryPolicy(5, 1.0, 16.0),
    Cause.STALLED: RetryPolicy(3, 1.0, 8.0),
    Cause.TRUNCATED: RetryPolicy(4, 0.5, 8.0),
    Cause.BUSY: RetryPolicy(6, 2.0, 60.0),
    Cause.SERVER: RetryPolicy(5, 1.0, 16.0),
    Cause.FORBIDDEN: RetryPolicy(2, 1.0, 4.0),
    Cause.ERROR_PAGE: RetryPolicy(2, 1.0, 4.0),
    Cause.TOO_LONG: RetryPolicy(1, 1.0, 1.0),
}
RETRY_BUDGET = 240.0
"""Seconds after which a request is not repeated, whatever its policy says."""
CONNECT_TIMEOUT, READ_TIMEOUT, TOTAL_TIMEOUT = 20.0, 30.0, 120.0
"""Seconds to connect, without a byte, and for a request from its first look-up to the last byte of its response."""
PROGRESS = 1 << 18
"""Bytes that give a download, which may take hours, another TOTAL_TIMEOUT."""
JITTER = 0.25
"""Pauses vary by this share, so that many readers do not come back at once."""
TIME_SCALE = 1.0
"""Scales all of these seconds: tests hurry."""


def pause(
    cause: Cause, nth: int, *, retry_after: float | None = None, chance: Callable[[], float] = random.random
) -> float:
    """Return the seconds before the nth retry (from 1), heeding `retry_after` of the server up to the longest pause."""
    policy = RETRY_POLICIES[cause]
    seconds = min(policy.first * 2 ** (nth - 1), policy.longest)
    if retry_after is not None:
        return max(seconds * TIME_SCALE, min(retry_after, policy.longest)) * (1 + JITTER * chance())
    return seconds * TIME_SCALE * (1 + JITTER * (2 * chance() - 1))


def cause_of(status: int) -> Cause | None:
    """Return the cause behind an HTTP status; None if retrying will not help."""
    if status in (408, 425, 429):
        return Cause.BUSY
    if status >= 500 and status not in (501, 505):
        return Cause.SERVER
    return Cause.FORBIDDEN if status in (401, 403) else None
