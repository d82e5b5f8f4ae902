"""How many threads the libraries below may use meanwhile, and fits side by side."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit BLAS and OpenMP to `threads` and undo it afterwards."""
    with _controller().limit(limits=threads):
        yield


@functools.cache
def _controller() -> Any:
    """Return what knows the libraries; to look for them takes longer than many a fit."""
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401 - so that their libraries are there to be found
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # scikit-learn needs it too

    return ThreadpoolController()


def side_by_side(work: Callable[[T, int], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """Yield the result of each item in order, several at a time; `work` is told how many threads it may use itself.

    Several items get one thread each, so that sums do not depend on how many run at a time.
    """
    each = threads if len(items) == 1 else 1
    if threads < 2 or len(items) < 2:
        for item in items:
            yield work(item, each)
        return
    with limited(each):  # before they begin: it holds for the whole process
        pool = ThreadPoolExecutor(threads)
        try:
            yield from pool.map(lambda item: work(item, each), items)
        finally:
            pool.shutdown(cancel_futures=True)


class _Ignored:
    """Warnings of a category that are ignored while anyone asks for it, in whichever thread."""

    def __init__(self) -> None:
        self._lock, self._users, self._catcher = threading.Lock(), 0, warnings.catch_warnings()

    @contextmanager
    def category(self, category: type[Warning]) -> Iterator[None]:
        # catch_warnings by itself would put back, in one thread, what another one still needs
        with self._lock:
            if not self._users:
                self._catcher = warnings.catch_warnings()
                self._catcher.__enter__()
                warnings.simplefilter("ignore", category)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._catcher.__exit__(None, None, None)


ignored = _Ignored().category
"""Context in which warnings of a category are ignored; of one category at a time."""
