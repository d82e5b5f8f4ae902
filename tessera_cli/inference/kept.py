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
    """Where the first embeddings of a tile are kept until all of them are there.

    `values` are float32 (N, dims), or int8 codes with `scales` float32 (N,), in row-major order of the pixels.
    """

    def load(self, values: np.ndarray, scales: np.ndarray | None) -> int:
        """Fill the first rows of the arrays with what is kept; return how many, 0 if there is nothing of use."""

    def save(self, values: np.ndarray, scales: np.ndarray | None) -> None:
        """Keep these rows, all that are finished, in place of what was kept; must not raise if that is impossible."""


class Keeping:
    """Context manager around the encoding of a tile: saves what is finished now and then, and if an error ends it.

    Signals count as errors. When the block succeeds nothing is saved: the tile is there.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        values: np.ndarray,
        scales: np.ndarray | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper, self._values, self._scales, self._clock = keeper, values, scales, clock
        self.done = self._saved = 0
        """Rows."""

    def __enter__(self) -> Keeping:
        if self._keeper is not None:
            self.done = self._saved = self._keeper.load(self._values, self._scales)
        self._due = self._clock() + EVERY
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._save()

    def add(self, part: slice, values: np.ndarray, scales: np.ndarray | None) -> None:
        """Take the next rows, and save all of them if it is time."""
        assert part.start == self.done
        self._values[part] = values
        if self._scales is not None:
            self._scales[part] = scales
        self.done = part.stop
        if self.done < len(self._values) and (before := self._clock()) >= self._due:
            self._save()
            now = self._clock()
            self._due = now + max(EVERY, (now - before) / SHARE)

    def _save(self) -> None:
        if self._keeper is not None and self.done > self._saved:
            rows = slice(self.done)
            self._keeper.save(self._values[rows], None if self._scales is None else self._scales[rows])
            self._saved = self.done
