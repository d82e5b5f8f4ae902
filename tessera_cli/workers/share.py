"""How many cores a task may use where several run side by side in one process."""

from __future__ import annotations

import sys

from tessera_cli import config


def threads_of_task() -> int:
    """Return the cores for a task: those of this process, shared among the threads of a Dask worker if it is one."""
    return max(1, config.threads() // _side_by_side())


def _side_by_side() -> int:
    """Return how many tasks this process works on at a time."""
    distributed = sys.modules.get("distributed")  # nobody else imports it in a worker of Dask
    if distributed is None:
        return 1
    try:
        return int(distributed.get_worker().state.nthreads)
    except ValueError:  # this process is no worker
        return 1
