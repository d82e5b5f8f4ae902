"""A Dask scheduler and its workers as processes of their own, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.processes import free_port

ROOT = Path(__file__).parents[2]


class Cluster:
    """A scheduler at `address`, and workers that are started and killed one by one."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._environment = {**os.environ, "PYTHONPATH": path, **(environment or {})}
        self._environment |= {"OMP_NUM_THREADS": "1", "DASK_TEMPORARY_DIRECTORY": str(folder)}
        self.log = folder / "log"
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", self.port, "--no-dashboard")
        self.workers: list[subprocess.Popen[bytes]] = []

    def worker(self, *, threads: int = 1, nanny: bool = False, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker in the cluster's folder, which is not that of the tests."""
        how = ["--nthreads", threads, "--no-dashboard", "--nanny" if nanny else "--no-nanny", "--death-timeout", "20"]
        self.workers.append(self._start("dask_worker", self.address, *how, **more))
        return self.workers[-1]

    def _start(self, name: str, *arguments: object, **more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{name}", *map(str, arguments)],
                cwd=self.folder,
                env=self._environment | more,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a nanny's worker goes with it
            )

    def answers(self, seconds: float = 60) -> None:
        """Wait until the scheduler listens."""
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert self.scheduler.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, *, workers: int = 2, **more: Any) -> Iterator[Cluster]:
    """Start a scheduler and workers; they are gone in the end, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder)
    try:
        made.answers()
        for _ in range(workers):
            made.worker(**more)
        yield made
    finally:
        made.end()
