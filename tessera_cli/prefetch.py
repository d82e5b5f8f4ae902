"""Prefetch the next items in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(
    items: Sequence[In], make: Callable[[In], Out], stop: Callable[[], None] = lambda: None, *, ahead: int = 1
) -> Generator[tuple[In, Future[Out]], None, None]:
    """Yield each item with the finished future of `make(item)`, while the next ones are made in background threads.

    `ahead`: how many are made side by side, or wait to be yielded. `stop` is called when the caller leaves early or is
    interrupted: it must make `make` end soon.
    """
    if not items:
        return
    with ThreadPoolExecutor(ahead, "prefetch") as executor:
        try:
            upcoming = deque(executor.submit(make, item) for item in items[:ahead])
            for number, item in enumerate(items):
                current = upcoming.popleft()
                wait([current])
                if number + ahead < len(items):
                    upcoming.append(executor.submit(make, items[number + ahead]))
                yield item, current
                del current
        except BaseException:
            stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def in_order(calls: Iterable[Callable[[], Out]], threads: int, ahead: int) -> Iterator[Out]:
    """Yield the results of the calls in their order, or raise their errors; at most `ahead` run or wait to be taken."""
    remaining = iter(calls)
    executor = ThreadPoolExecutor(threads, "in-order")
    try:
        begun = deque(executor.submit(call) for call in islice(remaining, ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(executor.submit(call) for call in islice(remaining, 1))
            yield result
    finally:
        executor.shutdown(cancel_futures=True)
