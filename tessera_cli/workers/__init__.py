"""Where tasks run when not in the calling thread: processes of this machine, a Dask cluster, or threads.

Each is a `concurrent.futures.Executor`; its `slots` say how many calls it works on side by side. A future whose process
died raises a `BrokenExecutor`, and others go on.
"""

from tessera_cli.workers.dask import DaskExecutor, SchedulerGoneError, check_scheduler
from tessera_cli.workers.pool import ProcessPool
from tessera_cli.workers.process import WorkerDiedError
from tessera_cli.workers.share import process_pool, threads_of_task
from tessera_cli.workers.threads import ThreadPool

__all__ = [
    "DaskExecutor",
    "ProcessPool",
    "SchedulerGoneError",
    "ThreadPool",
    "WorkerDiedError",
    "check_scheduler",
    "process_pool",
    "threads_of_task",
]
