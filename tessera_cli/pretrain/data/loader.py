"""Batches, drawn ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tessera_cli.pretrain.config import ViewSettings
from tessera_cli.pretrain.data.batch import Batch, Mixing
from tessera_cli.pretrain.data.sampler import Order
from tessera_cli.pretrain.data.shards import Shards
from tessera_cli.pretrain.data.views import see, view_keys
from tessera_cli.sampling import BucketedSampling
from tessera_cli.sampling.draws import hashed, numbered, uniform

_SHARE, _PARTNERS = 1, 2
"""What is drawn for a step, each from a hash of its own."""


@dataclass(frozen=True, eq=False)
class Loader:
    """A process's parts of all steps. The joint batches do not depend on the number of processes or of threads."""

    shards: Shards
    order: Order
    views: ViewSettings
    bins: BucketedSampling
    """The lengths of bucketed sequences."""
    seed: int
    mix: bool
    """Whether batches carry what the mixing regulariser takes."""
    rank: int = 0
    """Of this process, from 0."""
    size: int = 1
    """Processes."""
    workers: int = 2
    """Threads that draw ahead."""

    def batch(self, step: int) -> Batch:
        """This process's part of a step: the same pixels twice, seen in two views of their epoch."""
        numbers, epochs = self.order.part(step, self.rank, self.size)
        pixels = self.shards.gather(numbers)
        first, second = (
            see(pixels, self.views, self.bins, view_keys(pixels.keys, seed=self.seed, epochs=epochs, view=view))
            for view in (0, 1)
        )
        return Batch(step, first, second, pixels.origins, self._mixing(step) if self.mix else None)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The steps from `start` to before `stop`, in order. The error of a step is raised where it would come."""
        with ThreadPoolExecutor(self.workers, "views") as executor:
            prefetch: deque[Future[Batch]] = deque()
            steps = iter(range(start, stop))

            def draw(count: int) -> None:
                prefetch.extend(executor.submit(self.batch, step) for step in islice(steps, count))

            try:
                draw(self.workers + 1)
                while prefetch:
                    batch = prefetch.popleft().result()
                    draw(1)
                    yield batch
            finally:
                executor.shutdown(cancel_futures=True)

    def _mixing(self, step: int) -> Mixing:
        """The share is uniform, Beta(1, 1); partners are a permutation of the joint batch. Both are equal in all
        processes."""
        share = float(uniform(hashed(self.seed, step, _SHARE)))
        permutation = numbered(hashed(self.seed, step, _PARTNERS)[None], self.order.batch)[0].argsort()
        partners = permutation[self.order.slice_of(self.rank, self.size)]
        numbers, epochs = self.order.at(step)
        pixels = self.shards.gather(numbers[partners])
        keys = view_keys(pixels.keys, seed=self.seed, epochs=epochs[partners], view=1)
        return Mixing(share, partners, see(pixels, self.views, self.bins, keys))
