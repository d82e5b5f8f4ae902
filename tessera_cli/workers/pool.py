"""An executor over processes of this machine: the death of one breaks its own call alone, and it is replaced."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from tessera_cli.errors import TesseraError
from tessera_cli.workers.child import PATIENCE
from tessera_cli.workers.process import Worker, WorkerDiedError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""To start a process, before it is taken that none can be."""

P = ParamSpec("P")
T = TypeVar("T")


class ProcessPool(Executor):
    """`workers` processes with `threads` each; of `gpus`, if there are any, each sees one.

    A call goes to a process that is free. To leave `with` by an exception interrupts the calls in hand, and waits a
    moment for what they keep.
    """

    def __init__(self, workers: int, *, threads: int = 1, gpus: Sequence[str] = ()) -> None:
        self.slots = workers
        self._threads = threads
        self._calls: queue.SimpleQueue[tuple[Future[Any], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: dict[int, Worker] = {}
        self._closed = self._stopping = False
        self._servers = [
            threading.Thread(target=self._serve, args=(number, gpus[number] if gpus else None), daemon=True)
            for number in range(workers)
        ]
        for server in self._servers:
            server.start()

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        with self._lock:
            return [worker.pid for worker in self._workers.values() if worker.pid is not None]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: Future[T] = Future()
            self._calls.put((future, (fn, args, kwargs)))
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._close(cancel_futures)
        if wait:
            for server in self._servers:
                server.join()

    def stop(self) -> None:
        """Interrupt the calls in hand and end all processes; those that take too long are killed."""
        with self._lock:
            self._stopping = True
            self._close(cancel_futures=True)
            for worker in self._workers.values():
                worker.ask_to_stop()
        deadline = time.monotonic() + PATIENCE
        try:
            for server in self._servers:
                server.join(max(0.0, deadline - time.monotonic()))
        finally:  # also where somebody insists, by another Ctrl-C
            with self._lock:
                left = list(self._workers.values())
            for worker in left:
                worker.end(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.shutdown()
        except BaseException:
            self.stop()
            raise
        if error is not None:
            self.stop()

    def _close(self, cancel_futures: bool) -> None:
        if cancel_futures:
            while True:
                try:
                    item = self._calls.get_nowait()
                except queue.Empty:
                    break
                if item is not None:
                    item[0].cancel()
                    item[0].set_running_or_notify_cancel()
        if not self._closed or cancel_futures:
            for _ in self._servers:
                self._calls.put(None)
        self._closed = True

    def _serve(self, number: int, gpu: str | None) -> None:
        """Hand calls to one process, and start another where it has died."""
        try:
            while (item := self._calls.get()) is not None:
                future, call = item
                if future.set_running_or_notify_cancel():
                    try:
                        result = self._worker(number, gpu).perform(*call)
                    except BaseException as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
                        del result
                del item, future, call
        finally:
            with self._lock:
                worker = self._workers.pop(number, None)
            if worker is not None:
                worker.end(PATIENCE)

    def _worker(self, number: int, gpu: str | None) -> Worker:
        """Return the process of this number, a new one where it has died."""
        with self._lock:
            worker = self._workers.get(number)
        if worker is not None:
            if worker.alive:
                return worker
            worker.end(0)
        for _ in range(ATTEMPTS):
            if self._stopping:
                raise WorkerDiedError("the run stops")
            try:
                worker = Worker(self._threads, gpu)
            except WorkerDiedError as error:
                death = error
                continue
            with self._lock:
                self._workers[number] = worker
                if self._stopping:
                    worker.ask_to_stop()
            return worker
        raise TesseraError(f"{death} before it began, {ATTEMPTS} times. Look at its messages; run with --workers 1.")
