"""Turns: how many requests are under way at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """So many turns, which threads take and give back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._over = False
        self._begin()

    def _begin(self) -> None:
        self._free, self._changed, self._process = self.most, threading.Condition(), os.getpid()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait for `count` turns, at most all of them, and have them within. Nobody waits once it is over."""
        if self._process != os.getpid():  # in a fork, whose parent's threads give nothing back here
            self._begin()
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()

    def end(self) -> None:
        """Let all go who wait."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
