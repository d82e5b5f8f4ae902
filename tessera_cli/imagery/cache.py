"""Cache of headers and of blocks that neighbouring tiles share, limited in bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Least-recently-used cache of at most `limit` bytes. Threads may share it."""

    def __init__(self, limit: int, nbytes: Callable[[T], int]) -> None:
        self._held: LRUCache[Hashable, T] = LRUCache(limit, nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            return self._held.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Keep the value, unless it alone is larger than the limit."""
        with self._lock:
            self._held.pop(key, None)
            if self._held.getsizeof(value) <= self._held.maxsize:
                self._held[key] = value
