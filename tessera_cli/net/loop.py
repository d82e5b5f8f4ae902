"""The event loop of all clients, in a thread of its own: requests wait there, and threads for what comes of them.

Threads that waited for servers themselves would wake up for every piece of a body, only to find that another thread
runs: with 64 of them that takes more time than all the rest of a request.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """An event loop that begins when it is first needed."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of no loop yet: a fork has no threads, and its locks may be held by those of its parent."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which runs."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="requests", daemon=True).start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns or raise what it raises; it is cancelled if the waiting is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self.get())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


LOOP = Loop()
os.register_at_fork(after_in_child=LOOP.begin)
