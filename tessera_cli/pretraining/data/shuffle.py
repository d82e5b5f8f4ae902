"""Shuffle pixels on disk into one random order, with bounded memory.

The first pass deals every pixel to one of many bucket files by the high bits of a hash of its key, the second sorts
each bucket by the whole hash. One bucket after the other they are the pixels sorted by hash, whatever the number of
buckets. On disk the buckets take as much as the shards made of them, and shrink as those grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tessera_cli.pretraining.data.array_files import append_pixels, appended_pixels
from tessera_cli.pretraining.data.statistics import BandStatistics
from tessera_cli.sampling.draws import mix
from tessera_cli.sampling.ragged import RaggedPixels

_SALT = np.uint64(0xE7037ED1A0B428DB)
_BUCKETS_PER_SHARD = 4


class Buckets:
    """Pixels on their way into the order of their hashes: the n-th of `count` files takes the n-th part of the hashes.

    `most` is an upper bound of the pixels to come, so that a file is small against a shard.
    """

    def __init__(self, folder: Path, most: int, shard_pixels: int) -> None:
        self.count = max(1, math.ceil(most * _BUCKETS_PER_SHARD / shard_pixels))
        self.pixels = 0
        self.statistics = BandStatistics()
        self._folder = folder
        folder.mkdir()

    def add(self, pixels: RaggedPixels, numbers: np.ndarray) -> None:
        """Add these of the pixels, int (M,)."""
        buckets = (_hashes(pixels.keys[numbers]) >> np.uint64(32)) * np.uint64(self.count) >> np.uint64(32)
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(self.count + 1, dtype=np.uint64))
        for number in np.flatnonzero(np.diff(edges)).tolist():
            part = pixels.take(numbers[order[edges[number] : edges[number + 1]]])
            self.statistics.add(part)
            with self._file(number).open("ab") as file:
                append_pixels(file, part)
        self.pixels += len(numbers)

    def drain(self, step_done: Callable[[], None]) -> Iterator[RaggedPixels]:
        """Yield all pixels by rising hash, bucket after bucket, and remove them from the disk."""
        for number in range(self.count):
            file = self._file(number)
            if file.exists():
                pixels = appended_pixels(file)
                file.unlink()
                yield pixels.take(np.lexsort((pixels.tile_index, _hashes(pixels.keys))))
            step_done()
        self._folder.rmdir()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}"


def cut(parts: Iterator[RaggedPixels], sizes: Sequence[int]) -> Iterator[list[RaggedPixels]]:
    """Yield the same pixels in runs of these sizes, which add up to the number of all pixels."""
    run: list[RaggedPixels] = []
    ends = iter(sizes)
    missing = next(ends)
    for part in parts:
        first = 0
        while first < len(part):
            taken = part.take(np.arange(first, min(first + missing, len(part))))
            run.append(taken)
            first, missing = first + len(taken), missing - len(taken)
            if not missing:
                yield run
                run, missing = [], next(ends, 0)


def _hashes(keys: np.ndarray) -> np.ndarray:
    """Return hashes, uint64 (N,), whose order is that of the shards."""
    return mix(keys ^ _SALT)
