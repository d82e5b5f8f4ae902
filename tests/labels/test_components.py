"""Connected components of a raster: against a flood fill, and at the bar for memory."""

from __future__ import annotations

import subprocess
import sys
from collections import deque

import numpy as np
import pytest

from tessera_cli.labels.components import Components


def flooded(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Components by a flood fill, int (H, W), in the order of their first pixels; -1 for none."""
    numbers, count = np.full(values.shape, -1), 0
    for start in zip(*np.nonzero(there), strict=True):
        if numbers[start] >= 0:
            continue
        queue = deque([start])
        numbers[start] = count
        while queue:
            row, column = queue.popleft()
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                inside = 0 <= near[0] < values.shape[0] and 0 <= near[1] < values.shape[1]
                if inside and there[near] and numbers[near] < 0 and values[near] == values[row, column]:
                    numbers[near] = count
                    queue.append(near)
        count += 1
    return numbers


def found(values: np.ndarray, there: np.ndarray, strip: int) -> Components:
    return Components.of(lambda first, last: (values[first:last], there[first:last]), values.shape, strip)


@pytest.mark.parametrize("strip", [1, 50, 200, 10**6])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_components_are_those_of_a_flood_fill(strip, dtype):
    rng = np.random.default_rng(4)
    values = rng.integers(1, 3, (37, 29)).astype(dtype)
    there = rng.random(values.shape) < 0.8
    made, due = found(values, there, strip), flooded(values, there)
    assert ((made.numbers < 0) == (due < 0)).all()
    pairs = np.unique(np.stack([made.numbers[there], due[there]]), axis=1)
    assert pairs.shape[1] == made.count == due.max() + 1  # one to one
    for number in (0, made.count // 2, made.count - 1):
        rows, columns = np.nonzero(made.numbers == number)
        assert made.centroids[number] == pytest.approx((rows.mean() + 0.5, columns.mean() + 0.5))


def test_what_touches_at_a_corner_alone_is_two_and_what_winds_back_through_strips_is_one():
    corner = np.eye(4, dtype=np.uint8)
    assert found(corner, corner > 0, 4).count == 4
    comb = np.ones((9, 9), np.uint8)
    comb[:-1, 1::2] = 0  # teeth that only the last row joins
    made = found(comb, comb > 0, 9)
    assert made.count == 1
    assert (made.numbers[comb > 0] == 0).all()


def test_a_raster_without_labels():
    made = found(np.zeros((5, 4)), np.zeros((5, 4), bool), 8)
    assert (made.count, made.centroids.shape) == (0, (0, 2))
    assert (made.numbers == -1).all()


PROGRAM = """
import sys
import numpy as np
from tessera_cli.timing import peak_rss_mb
from tessera_cli.labels.components import Components
side = 10980
fields = np.random.default_rng(0).integers(1, 9, (side // 20 + 1,) * 2, np.uint8)
def read(first, last):
    values = fields[np.arange(first, last)[:, None] // 20, np.arange(side)[None] // 20]
    return values, values > 1
made = Components.of(read, (side, side))
assert len(made.centroids) == made.count > 100_000
print(int(peak_rss_mb()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bar is for Linux")
def test_a_raster_of_a_whole_granule_takes_less_than_a_gigabyte_and_a_half():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1500
