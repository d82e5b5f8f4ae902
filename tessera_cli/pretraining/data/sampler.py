"""Which pixels the batch of each step holds: a function of the seed and the step."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BatchSampler:
    """An endless sequence of epochs, cut into batches; any step can be looked up.

    Each epoch visits the shards, and each shard's pixels, in an order of its own: every pixel once. Pixels lie in the
    shards at random, so a batch is a sample of all ground although it comes from one or two shards.
    """

    sizes: tuple[int, ...]
    """Pixels of each shard."""
    batch: int
    """Pixels per step over all processes."""
    seed: int

    def __post_init__(self) -> None:
        if not sum(self.sizes) or self.batch < 1:
            raise ValueError(f"no batches of {self.batch} from {sum(self.sizes)} pixels")

    def joint_batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel numbers, counted through all shards, and epochs of a step: int64 (batch,) each, all from 0.

        A batch larger than the data holds pixels of several epochs.
        """
        total = sum(self.sizes)
        begin, end = step * self.batch, (step + 1) * self.batch
        numbers = [self._epoch(epoch, begin, end) for epoch in range(begin // total, (end - 1) // total + 1)]
        return np.concatenate(numbers), np.arange(begin, end, dtype=np.int64) // total

    def slice_of(self, rank: int, size: int) -> slice:
        """Return the slice of the joint batch that belongs to one process; ValueError if it has no equal parts."""
        if self.batch % size:
            raise ValueError(f"a batch of {self.batch} pixels has no {size} equal parts")
        each = self.batch // size
        return slice(rank * each, (rank + 1) * each)

    def _epoch(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """Return the pixels of an epoch that lie between two positions of the sequence, at least one."""
        sizes = np.array(self.sizes, np.int64)
        firsts = np.cumsum(sizes) - sizes
        visited = _permutation(self.seed, epoch, 0, len(sizes))
        ends = epoch * sizes.sum() + np.cumsum(sizes[visited])
        touched = slice(np.searchsorted(ends, begin, "right"), np.searchsorted(ends, end, "left") + 1)
        parts = []
        for shard, last in zip(visited[touched].tolist(), ends[touched].tolist(), strict=True):
            start = last - self.sizes[shard]
            pixels = _permutation(self.seed, epoch, 1 + shard, self.sizes[shard])
            parts.append(firsts[shard] + pixels[max(begin - start, 0) : end - start])
        return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, what: int, count: int) -> np.ndarray:
    """Return 0..count−1 shuffled, int64, read-only. `what`: 0 for the shards, 1 + number for the pixels of a shard."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, what)))).permutation(count)
    order.flags.writeable = False
    return order
