"""Draw batches and prefetch them in threads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tessera_cli.prefetch import in_order
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import Batch, Mixing, View
from tessera_cli.pretraining.data.sampler import BatchSampler
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.pretraining.data.taught import Taught
from tessera_cli.pretraining.data.views import random_view, view_keys
from tessera_cli.sampling.draws import hashed, numbered, uniform
from tessera_cli.sampling.ragged import RaggedPixels

_SHARE, _PARTNERS = 1, 2
"""Numbers of the hashes that decide the mixing of a step."""


@dataclass(frozen=True, eq=False)
class Loader:
    """One process's parts of all steps. The joint batches do not depend on the number of processes or threads."""

    shards: Shards
    config: PretrainConfig
    rank: int = 0
    size: int = 1
    """Number of processes."""
    taught: Taught | None = None
    """The teacher's embeddings."""

    @functools.cached_property
    def sampler(self) -> BatchSampler:
        return BatchSampler(tuple(self.shards.sizes), self.config.train.batch, self.config.train.seed)

    def batch(self, step: int) -> Batch[np.ndarray]:
        """Return this process's part of a step: the same pixels in two views of their epoch."""
        numbers, epochs = self.sampler.joint_batch(step)
        own = self.sampler.slice_of(self.rank, self.size)
        pixels = self.shards.gather(numbers[own])
        first, second = (self._view(pixels, epochs[own], view) for view in (0, 1))
        mixing = self._mixing(step, numbers, epochs, own) if self.config.loss.mix > 0 else None
        answers = None if self.taught is None else self.taught.answers(numbers[own])
        return Batch(step, first, second, pixels.tile_index, mixing, answers)

    def batches(self, start: int, stop: int) -> Iterator[Batch[np.ndarray]]:
        """Yield the steps from `start` to before `stop`, in order; the error of a step is raised in its place."""
        workers = self.config.train.workers
        steps = (functools.partial(self.batch, step) for step in range(start, stop))
        return in_order(steps, workers, ahead=workers + 1)

    def _mixing(self, step: int, numbers: np.ndarray, epochs: np.ndarray, own: slice) -> Mixing[np.ndarray]:
        """Draw a share from Beta(1, 1) and partners by a permutation of the joint batch, equal in all processes."""
        seed = self.config.train.seed
        share = float(uniform(hashed(seed, step, _SHARE)))
        partners = numbered(hashed(seed, step, _PARTNERS)[None], len(numbers))[0].argsort()[own]
        return Mixing(share, partners, self._view(self.shards.gather(numbers[partners]), epochs[partners], 1))

    def _view(self, pixels: RaggedPixels, epochs: np.ndarray, view: int) -> View[np.ndarray]:
        keys = view_keys(pixels.keys, seed=self.config.train.seed, epochs=epochs, view=view)
        return random_view(pixels, self.config.views, self.config.model.buckets, keys)
