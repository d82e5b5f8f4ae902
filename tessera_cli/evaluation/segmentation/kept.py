"""Arrays of tiles that are kept in memory as long as they fit, since every draw reads them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

MOST = 1 << 30
"""Bytes."""
Arrays = tuple[np.ndarray, ...]


class Kept:
    """What was read last, up to a number of bytes."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._held: OrderedDict[Hashable, Arrays] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, read: Callable[[], Arrays]) -> Arrays:
        """Return what is kept of `key`, else read it."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        found = read()
        self._held[key] = found
        self._bytes += _size(found)
        while self._bytes > self.most and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])
        return found


def _size(arrays: Arrays) -> int:
    return sum(each.nbytes for each in arrays)
