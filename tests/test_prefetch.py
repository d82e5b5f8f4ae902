"""What is made ahead: in order, side by side, and no more than was asked for."""

from __future__ import annotations

import threading
import time

import pytest

from tessera_cli.prefetch import prefetch


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_in_order_whatever_takes_longest(ahead: int, count: int) -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))
        return number * number

    found = [(item, made.result()) for item, made in prefetch(range(count), make, ahead=ahead)]
    assert found == [(number, number * number) for number in range(count)]


def test_side_by_side() -> None:
    together = threading.Barrier(3)

    def make(number: int) -> int:
        return together.wait(timeout=60)

    found = [made.result() for _, made in prefetch(range(6), make, ahead=3)]
    assert sorted(found[:3]) == sorted(found[3:]) == [0, 1, 2]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_than_asked_for(ahead: int) -> None:
    begun: list[int] = []
    for number, made in prefetch(range(20), begun.append, ahead=ahead):
        made.result()
        time.sleep(0.003)
        assert len(begun) <= number + 1 + ahead
    assert sorted(begun) == list(range(20))


@pytest.mark.parametrize("ahead", [1, 3])
def test_leaving_early_stops_what_is_made(ahead: int) -> None:
    stopped = threading.Event()

    def make(number: int) -> int:
        if number:
            assert stopped.wait(timeout=60)
        return number

    upcoming = prefetch(range(20), make, stopped.set, ahead=ahead)
    assert next(upcoming)[1].result() == 0
    upcoming.close()
    assert stopped.is_set()
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_errors_are_where_they_happened() -> None:
    def make(number: int) -> int:
        return 1 // (number - 2)

    upcoming = prefetch(range(4), make, ahead=2)
    assert next(upcoming)[1].result() == -1
    assert next(upcoming)[1].result() == -1
    with pytest.raises(ZeroDivisionError):
        next(upcoming)[1].result()
    assert next(upcoming)[1].result() == 1
