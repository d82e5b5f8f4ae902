"""Deadlines: a request that takes too long, or whose run is over, loses its connections, whatever it waits for.

The timeouts of sockets begin anew with every byte, and http.client skips `100 Continue` without end. So a thread of our
own shuts the sockets of late requests down, which wakes whoever waits for them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_IDLE = 3600.0
"""Seconds between two looks of the watching thread, where nothing is under way."""


class OverError(Exception):
    """The time of a request is over."""


class Deadline:
    """Until when one request may take, and what then wakes those who wait for it."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self.over = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._calls: list[Callable[[], object]] = []

    def cuts(self, connection: int) -> None:
        """Shut the connection with this file number down when the time is over.

        By a duplicate: a socket that is turned into one of TLS is out of reach while it shakes hands.
        """
        duplicate = socket.socket(fileno=socket.dup(connection))
        with self._lock:
            self._connections.append(duplicate)
        if self.over:
            self.end()

    def calls(self, call: Callable[[], object]) -> None:
        """Call this when the time is over."""
        with self._lock:
            self._calls.append(call)
        if self.over:
            self.end()

    def more(self, seconds: float) -> None:
        """Give so many seconds from now."""
        self.at = time.monotonic() + seconds

    def check(self) -> None:
        """Raise OverError if the time is over: the end of a connection that we have cut is no end of a body."""
        if self.over:
            raise OverError

    def end(self) -> None:
        """Wake whoever waits."""
        with self._lock:
            self.over = True
            for connection in self._connections:
                with contextlib.suppress(OSError):  # it has ended by itself
                    connection.shutdown(socket.SHUT_RDWR)
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def release(self) -> None:
        """Let go of the connections."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections = []


class Deadlines:
    """The deadlines of one client: all end when it is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[Deadline] = set()
        self.stopped = threading.Event()

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Watch over what is done within, for so many seconds."""
        deadline = Deadline(seconds)
        with self._lock:
            self._live.add(deadline)
        _WATCH.add(deadline)
        try:
            if self.stopped.is_set():
                deadline.end()
            yield deadline
        finally:
            _WATCH.remove(deadline)
            with self._lock:
                self._live.discard(deadline)
            deadline.release()

    def stop(self) -> None:
        """End everything that is under way, and at once whatever begins later."""
        self.stopped.set()
        with self._lock:
            live = list(self._live)
        for deadline in live:
            deadline.end()


class _Watch:
    """The thread that ends what is late; one for all clients of the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._live: set[Deadline] = set()
        self._thread: threading.Thread | None = None
        self._looks_at = 0.0
        """When the thread looks again."""

    def add(self, deadline: Deadline) -> None:
        with self._changed:
            self._live.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline.at < self._looks_at:
                self._changed.notify()

    def remove(self, deadline: Deadline) -> None:
        with self._changed:
            self._live.discard(deadline)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                late = [deadline for deadline in self._live if deadline.at <= now]
                self._live.difference_update(late)
                if not late:
                    self._looks_at = min((deadline.at for deadline in self._live), default=now + _IDLE)
                    self._changed.wait(self._looks_at - now)
            for deadline in late:
                deadline.end()


def _after_fork() -> None:
    """A fork has no threads, and its locks may be held by those of its parent."""
    global _WATCH
    _WATCH = _Watch()


_WATCH = _Watch()
os.register_at_fork(after_in_child=_after_fork)
