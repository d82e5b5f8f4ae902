"""Keep what is encoded of a tile while the rest is not, so that an interruption costs minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import numpy as np

EVERY = 60.0
"""Seconds between two times of saving, at least."""
SHARE = 0.01
"""Of the time that saving may take, at most: where it is slow it is done less often."""


class Keeper(Protocol):
    """Where what is known of the first pixels of a tile is kept until all of them are done.

    Arrays (N, ...) hold a row per pixel, in row-major order of the pixels; the last one is finite. None is no array.
    """

    def load(self, *arrays: np.ndarray | None) -> int:
        """Fill the first rows of the arrays with what is kept; return how many, 0 if there is nothing of use."""

    def save(self, *arrays: np.ndarray | None) -> None:
        """Keep these rows, all that are finished, in place of what was kept; must not raise if that is impossible."""


class Keeping:
    """Context manager around the encoding of a tile: saves what is finished now and then, and if an error ends it.

    Signals count as errors. When the block succeeds nothing is saved: the tile is there.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        *arrays: np.ndarray | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper, self._clock = keeper, clock
        self._arrays, self._count = arrays, max(len(array) for array in arrays if array is not None)
        self.done = self._saved = 0
        """Rows."""

    def __enter__(self) -> Keeping:
        if self._keeper is not None:
            self.done = self._saved = self._keeper.load(*self._arrays)
        self._due = self._clock() + EVERY
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._save()

    def add(self, part: slice, *rows: np.ndarray | None) -> None:
        """Take the next rows of each array, and save all of them if it is time."""
        assert part.start == self.done
        for array, some in zip(self._arrays, rows, strict=True):
            if array is not None:
                array[part] = some
        self.done = part.stop
        if self.done < self._count and (before := self._clock()) >= self._due:
            self._save()
            now = self._clock()
            self._due = now + max(EVERY, (now - before) / SHARE)

    def _save(self) -> None:
        if self._keeper is not None and self.done > self._saved:
            self._keeper.save(*(None if array is None else array[: self.done] for array in self._arrays))
            self._saved = self.done
