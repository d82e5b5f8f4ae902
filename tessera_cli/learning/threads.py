"""How many threads the libraries below may use meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit BLAS and OpenMP to `threads` and undo it afterwards."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn needs it too

    with threadpool_limits(threads):
        yield
