"""Connected components of equal values of a raster, window by window: its parcels.

Pixels are connected along their four edges; parcels that touch at a corner alone are two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tessera_cli.errors import UsageError

NEEDED = 'Labels in a raster need another package. Run: pip install "tessera-embed[evaluate]".'
STRIP = 1 << 22
"""Pixels that are labelled at a time; they take about 40 bytes each."""

Read = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
"""First and last row (exclusive) -> values (h, W), and which of them are labels, bool (h, W)."""


@dataclass(frozen=True, eq=False)
class Components:
    """The parcels of a raster, numbered from 0."""

    numbers: np.ndarray
    """int32 (H, W): that of each pixel, -1 where there is no label."""
    count: int

    @classmethod
    def of(cls, read: Read, shape: tuple[int, int], strip: int = STRIP) -> Components:
        """Find them, about `strip` pixels at a time. Memory: 4 bytes a pixel of the raster, and a strip's."""
        try:
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components
        except ImportError as error:
            raise UsageError(NEEDED) from error
        height, width = shape
        numbers = np.zeros(shape, np.int32)  # 0 for none until the end
        step = max(1, strip // max(width, 1))
        seams, found, last = [np.zeros((2, 0), np.int32)], 0, None
        for top in range(0, height, step):
            values, there = read(top, min(top + step, height))
            part, count = _within(values, there)
            part[part > 0] += found
            numbers[top : top + len(part)] = part
            if last is not None:
                same = last[1] & there[0] & (last[0] == values[0])
                seams.append(np.unique(np.stack([numbers[top - 1][same], part[0][same]]), axis=1))
            last = values[-1], there[-1]
            found += count
        one, other = np.concatenate(seams, axis=1)
        graph = coo_array((np.ones(len(one), bool), (one, other)), (found + 1, found + 1))
        count, merged = connected_components(graph, directed=False)
        for top in range(0, height, step):
            numbers[top : top + step] = merged[numbers[top : top + step]]
        numbers -= 1  # node 0, none, has no neighbours and comes first
        return cls(numbers, count - 1)

    @cached_property
    def centroids(self) -> np.ndarray:
        """float64 (P, 2): mean row and column of the pixels of each, as corners of pixels count: the first pixel's
        centre is .5, .5."""
        height, width = self.numbers.shape
        sums, sizes = np.zeros((2, self.count)), np.zeros(self.count)
        step = max(1, STRIP // max(width, 1))
        for top in range(0, height, step):
            rows, columns = np.nonzero(self.numbers[top : top + step] >= 0)
            part = self.numbers[rows + top, columns]
            sizes += np.bincount(part, minlength=self.count)
            sums[0] += np.bincount(part, rows + top + 0.5, self.count)
            sums[1] += np.bincount(part, columns + 0.5, self.count)
        return (sums / sizes).T


def _within(values: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the components of a strip: int32 (h, W), from 1, 0 for none; and how many there are."""
    from scipy import ndimage

    height, width = there.shape
    # pixels and, between them, the edges across which values are equal: components of these are those of values
    grid = np.zeros((2 * height - 1, 2 * width - 1), bool)
    grid[::2, ::2] = there
    grid[::2, 1::2] = there[:, :-1] & there[:, 1:] & (values[:, :-1] == values[:, 1:])
    grid[1::2, ::2] = there[:-1] & there[1:] & (values[:-1] == values[1:])
    labelled, count = ndimage.label(grid)
    return np.ascontiguousarray(labelled[::2, ::2], np.int32), int(count)
