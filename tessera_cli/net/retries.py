"""The one table of retries: what may go wrong between us and a server, how often and after which pause we ask again.

Every question goes by it: searches, tokens and reads through our own client, downloads of weights through `adapter`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import Retry


class Cause(StrEnum):
    """Why a question got no usable answer."""

    UNREACHABLE = "unreachable"
    """No connection, or one that broke before the answer began."""
    STALLED = "stalled"
    """Nothing came for a while, or too slowly."""
    TRUNCATED = "truncated"
    """The answer ended early."""
    BUSY = "busy"
    """408, 425, 429: asked to wait."""
    SERVER = "server error"
    """5xx"""
    FORBIDDEN = "forbidden"
    """401, 403: asked again with a new signature."""
    ERROR_PAGE = "error page"
    """A web page with status 200 in place of data."""
    TOO_LONG = "too long"
    """413, 502, 504 to a page of a search: perhaps the page is longer than the server can send. Then it stays so."""


@dataclass(frozen=True)
class RetryPolicy:
    """How patient we are with one cause."""

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
"""Seconds after which a question is not asked again, whatever the table says."""
CONNECT_TIMEOUT, READ_TIMEOUT, TOTAL_TIMEOUT = 20.0, 30.0, 120.0
"""Seconds to connect, without a byte, and for a whole answer."""
JITTER = 0.25
"""Pauses vary by this share, so that many readers do not come back at once."""
TIME_SCALE = 1.0
"""Scales all of these seconds: tests hurry."""


def pause(cause: Cause, nth: int, *, asked: float | None = None, chance: Callable[[], float] = random.random) -> float:
    """Seconds before the nth retry (from 1) for this cause. `asked`: what Retry-After says, heeded within bounds."""
    rule = RETRY_POLICIES[cause]
    seconds = min(rule.first * 2 ** (nth - 1), rule.longest)
    if asked is not None:
        return max(seconds * TIME_SCALE, min(asked, rule.longest)) * (1 + JITTER * chance())
    return seconds * TIME_SCALE * (1 + JITTER * (2 * chance() - 1))


def cause_of(status: int) -> Cause | None:
    """The cause behind a status after which asking again may help; None if it will not."""
    if status in (408, 425, 429):
        return Cause.BUSY
    if status >= 500 and status not in (501, 505):
        return Cause.SERVER
    return Cause.FORBIDDEN if status in (401, 403) else None


def adapter(count: Callable[[Cause], None] = lambda cause: None) -> Retry:
    """The table for what goes through requests or urllib3, whatever the method. `count` is told of each retry."""
    import urllib3

    server = RETRY_POLICIES[Cause.SERVER]

    class Table(urllib3.Retry):
        def increment(self, *arguments: Any, **more: Any) -> urllib3.Retry:  # type: ignore[override]
            new = super().increment(*arguments, **more)  # raises when there is no retry left
            response = more.get("response")
            count((response is not None and cause_of(response.status)) or Cause.UNREACHABLE)
            return new

        def parse_retry_after(self, retry_after: str) -> float:
            return min(super().parse_retry_after(retry_after), RETRY_POLICIES[Cause.BUSY].longest)

    return Table(
        total=server.retries,
        backoff_factor=server.first * TIME_SCALE,
        backoff_max=server.longest * TIME_SCALE,
        backoff_jitter=JITTER * server.first * TIME_SCALE,
        status_forcelist=(408, 425, 429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
