"""Where tasks run when not in this process: executors over processes of this machine, and over a Dask cluster.

Both are a `concurrent.futures.Executor`. A future whose process died raises a `BrokenExecutor`, and others go on.
"""

from tessera_cli.workers.pool import ProcessPool

__all__ = ["ProcessPool"]
