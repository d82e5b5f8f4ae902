"""Deadlines: a request that takes too long, or whose run is over, ends at once, whatever it waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OverError(Exception):
    """The time of a request is over."""


class Deadline:
    """Until when one request may take."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    @property
    def at(self) -> float:
        """Return the time of the loop."""
        return self._timeout.when() or 0.0

    def more(self, seconds: float) -> None:
        """Give so many seconds from now."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)


class Deadlines:
    """The deadlines of one client: all end when it is stopped."""

    def __init__(self) -> None:
        self._live: set[asyncio.Task[object]] = set()
        """Touched by the loop alone."""
        self.stopped = threading.Event()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[Deadline]:
        """End what the task does within after so many seconds, by OverError."""
        task = asyncio.current_task()
        assert task is not None
        self._live.add(task)
        timeout = asyncio.timeout(seconds)
        try:
            if self.stopped.is_set():
                raise OverError
            async with timeout:
                yield Deadline(timeout)
        except (TimeoutError, asyncio.CancelledError) as error:
            if timeout.expired() or self.stopped.is_set():
                raise OverError from error
            raise
        finally:
            self._live.discard(task)

    def stop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """End everything that is under way in the loop, and at once whatever begins later."""
        self.stopped.set()
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for task in self._live:
            task.cancel()
