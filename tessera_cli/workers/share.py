"""Shares of a machine: how many cores, and which GPU, belong to a process or to a task."""

from __future__ import annotations

import logging
import sys

from tessera_cli import config
from tessera_cli.errors import UsageError
from tessera_cli.workers.pool import ProcessPool

logger = logging.getLogger(__name__)


def process_pool(workers: int, *, threads: int | None = None, device: str = "cpu") -> ProcessPool:
    """Return a pool whose processes share `threads` cores, by default all that this process may use.

    On `cuda` each has a GPU of its own; there are no more processes than GPUs.
    """
    budget = threads or config.threads()
    gpus: list[str] = []
    if device.partition(":")[2]:
        raise UsageError(f"--workers takes a GPU for each process, --device {device} names one. Leave out one of them.")
    if device == "cuda":
        gpus = config.gpus()
        if workers > len(gpus):
            logger.warning("--workers %d, but %d GPU(s): one process for each", workers, len(gpus))
            workers = max(1, len(gpus))
    return ProcessPool(workers, threads=max(1, budget // workers), gpus=gpus)


def threads_of_task() -> int:
    """Return the cores for a task: those of this process, shared among the threads of a Dask worker if it is one."""
    return max(1, config.threads() // _side_by_side())


def _side_by_side() -> int:
    """Return how many tasks this process works on at a time."""
    distributed = sys.modules.get("distributed")  # it is imported where this process is a worker of Dask
    if distributed is None:
        return 1
    try:
        return max(1, int(distributed.get_worker().state.nthreads))
    except ValueError:  # this thread performs no task of Dask
        return 1
