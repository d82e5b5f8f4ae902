"""Means of the loss, speed, waiting time and memory between two log lines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera_cli.pretraining.data.batch import Batch
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.trainee import StepOutput
from tessera_cli.timing import peak_rss_mb


class Meter:
    """Accumulate steps; `take` returns their means and starts anew."""

    def __init__(self, world: World, device: torch.device) -> None:
        self._world, self._device = world, device
        self._restart()

    def _restart(self) -> None:
        self._began = time.perf_counter()
        self._waited, self._pixels, self._steps, self._same = 0.0, 0, 0, 0.0
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def waiting(self, batches: Iterable[Batch[Any]]) -> Iterator[Batch[Any]]:
        """Yield the batches and measure how long the caller waits for each."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside out of the interval."""
        started = time.perf_counter()
        yield
        self._began += time.perf_counter() - started

    def add(self, batch: Batch[Any], output: StepOutput) -> None:
        """Add one step; nothing is copied from the device."""
        terms = torch.stack([output.loss.detach(), *output.terms.values()]).double()
        self._names = ("loss", *output.terms)
        self._sums = terms if self._sums is None else self._sums + terms
        self._steps += 1
        self._pixels += batch.pixels * self._world.size
        _, counts = np.unique(batch.tile_index, return_counts=True)
        self._same += float((counts**2).sum() - batch.pixels) / max(1, batch.pixels * (batch.pixels - 1))

    def take(self) -> dict[str, float]:
        """Return the interval's numbers; all processes call it at the same step, since losses are means over them."""
        assert self._sums is not None, "no step was added"
        means = (self._world.all_reduce_detached(self._sums) / (self._steps * self._world.size)).tolist()
        seconds = time.perf_counter() - self._began
        row = dict(zip(self._names, means, strict=True))
        row |= {
            "pixels_per_second": round(self._pixels / seconds, 1),
            "wait_share": round(self._waited / seconds, 4),
            "same_tile_share": round(self._same / self._steps, 4),
            "memory_mb": round(peak_rss_mb()),
            "seconds": round(seconds, 3),
        }
        if self._device.type == "cuda":
            row["device_memory_mb"] = round(torch.cuda.max_memory_allocated(self._device) / 1e6)
        self._restart()
        return row
