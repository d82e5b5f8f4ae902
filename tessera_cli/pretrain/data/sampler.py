"""Steps -> which pixels a batch holds."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Order:
    """An endless stream of epochs, cut into batches: nothing is left over, and any step can be looked up.

    Each epoch visits the shards, and each shard's pixels, in an order of its own: every pixel once. As pixels lie in
    the shards at random, a batch is a sample of all ground although it comes from one or two shards.
    """

    sizes: tuple[int, ...]
    """Pixels of each shard."""
    batch: int
    """Pixels per step, of all processes together."""
    seed: int

    def __post_init__(self) -> None:
        if not sum(self.sizes) or self.batch < 1:
            raise ValueError(f"no batches of {self.batch} from {sum(self.sizes)} pixels")

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The joint batch of a step, from 0: numbers of the pixels, counted through all shards, and the epochs, from 0,
        in which they are seen. int64 (batch,) both. A batch larger than the data shows pixels in several epochs."""
        total = sum(self.sizes)
        begin, end = step * self.batch, (step + 1) * self.batch
        numbers = [self._epoch(epoch, begin, end) for epoch in range(begin // total, (end - 1) // total + 1)]
        return np.concatenate(numbers), np.arange(begin, end, dtype=np.int64) // total

    def part(self, step: int, rank: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """One process's part of `at`: the rank-th of `size` equal slices."""
        numbers, epochs = self.at(step)
        own = self.slice_of(rank, size)
        return numbers[own], epochs[own]

    def slice_of(self, rank: int, size: int) -> slice:
        """Where a process's part lies in the joint batch; ValueError if it cannot be dealt out evenly."""
        if self.batch % size:
            raise ValueError(f"a batch of {self.batch} pixels has no {size} equal parts")
        each = self.batch // size
        return slice(rank * each, (rank + 1) * each)

    def _epoch(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """The pixels of an epoch that lie between two positions in the stream; there are some."""
        sizes = np.array(self.sizes, np.int64)
        firsts = np.cumsum(sizes) - sizes
        visited = _permutation(self.seed, epoch, 0, len(sizes))
        ends = epoch * sizes.sum() + np.cumsum(sizes[visited])
        touched = slice(np.searchsorted(ends, begin, "right"), np.searchsorted(ends, end, "left") + 1)
        found = []
        for shard, last in zip(visited[touched].tolist(), ends[touched].tolist(), strict=True):
            start = last - self.sizes[shard]
            pixels = _permutation(self.seed, epoch, 1 + shard, self.sizes[shard])
            found.append(firsts[shard] + pixels[max(begin - start, 0) : end - start])
        return np.concatenate(found)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, what: int, count: int) -> np.ndarray:
    """0..count−1 shuffled, int64, read-only. `what`: 0 for the shards, from 1 on for the pixels of each shard."""
    found = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, what)))).permutation(count)
    found.flags.writeable = False
    return found
