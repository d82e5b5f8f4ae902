"""The event loop of all clients, in a thread of its own: requests wait there, and threads for what comes of them.

Threads that waited for servers themselves would wake up for every piece of a body, only to find that another thread
runs: with 64 of them that takes more time than all the rest of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
LAST = 5.0
"""Seconds that whoever interrupts the waiting gives a request to end."""


class Loop:
    """An event loop that begins when it is first needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know of no loop yet: a fork has no threads, and its locks may be held by those of its parent."""
        self._lock = threading.Lock()
        self.begun: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns or raise what it raises; it has ended if the waiting is interrupted."""
        with self._lock:
            if self.begun is None:
                self.begun = asyncio.new_event_loop()
                threading.Thread(target=self.begun.run_forever, name="requests", daemon=True).start()
        over = threading.Event()

        async def until_over() -> T:
            try:
                return await work
            finally:
                over.set()

        future = asyncio.run_coroutine_threadsafe(until_over(), self.begun)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                over.wait(LAST)
            raise


async def aside(call: Callable[[], T]) -> T:
    """Return what a call returns or raises that may wait for a name server, in a thread of its own.

    Nothing waits for the thread: nothing can interrupt a look-up.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if not found.done():  # else nobody waits any more
            found.set_result(result) if error is None else found.set_exception(error)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = call()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the process ends
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=work, name="resolver", daemon=True).start()
    return await found


LOOP = Loop()
os.register_at_fork(after_in_child=LOOP.forget)
