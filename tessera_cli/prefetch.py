"""Prefetch the next item in a background thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(
    items: Sequence[In], make: Callable[[In], Out], stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[In, Future[Out]]]:
    """Yield each item with the finished future of `make(item)`, while the next item is made in a background thread.

    `stop` is called when the caller leaves early or is interrupted: it must make `make` end soon.
    """
    if not items:
        return
    with ThreadPoolExecutor(1, "prefetch") as executor:
        try:
            upcoming = executor.submit(make, items[0])
            for item, following in zip_longest(items, items[1:]):
                current = upcoming
                wait([current])
                if following is not None:
                    upcoming = executor.submit(make, following)
                yield item, current
                del current
        except BaseException:
            stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)
