"""One worker process as seen by the process that starts it."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

from tessera_cli.errors import UsageError, plainly
from tessera_cli.workers.child import STOPPING, Setup, work

_starting = threading.Lock()


class WorkerDiedError(BrokenExecutor):
    """The process of a call has died: killed for lack of memory, by a scheduler, or by a fault of a library."""


class Worker:
    """A process that performs one call at a time; it starts with the first."""

    def __init__(self, threads: int, gpu: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        setup = Setup(threads, gpu, _levels(), _filters())
        self._process = context.Process(target=work, args=(theirs, setup), name="tessera-worker", daemon=True)
        try:
            with _starting, _nothing_of_main(), _signals_held_back():
                self._process.start()
        except (AssertionError, OSError, ValueError) as error:
            raise UsageError(f"--workers: no process can be started here: {plainly(error)}. Leave it out.") from error
        finally:
            theirs.close()
        if self._receive() != ("ready", None):  # pragma: no cover
            raise WorkerDiedError("a worker process is out of step")

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def perform(self, function: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
        """Return what the call returns, or raise what it raises; WorkerDiedError if the process dies meanwhile."""
        call = pickle.dumps((function, arguments, more))
        try:
            self._line.send_bytes(call)
        except OSError:
            raise self._death() from None
        kind, value = self._receive()
        if kind == "error":
            raise value
        return value

    def _receive(self) -> tuple[str, Any]:
        """Return the next message that is no log record."""
        while True:
            try:
                wait([self._line, self._process.sentinel])
                if not self._line.poll():
                    raise EOFError
                kind, value = self._line.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                raise self._death() from None
            if kind != "log":
                return kind, value
            logging.getLogger(value.name).handle(value)

    def _death(self) -> WorkerDiedError:
        self._process.join(1)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return WorkerDiedError(f"a worker process has died ({how})")

    def ask_to_stop(self) -> None:
        """Interrupt the call in hand; what it has done is kept."""
        self._process.terminate()

    def end(self, seconds: float) -> None:
        """End the process: it has so long to leave by itself."""
        with suppress(OSError):
            self._line.send_bytes(b"")
        try:
            self._process.join(seconds)
        finally:
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            self._line.close()


@contextmanager
def _nothing_of_main() -> Iterator[None]:
    """Hide the script that runs from `multiprocessing`, which would run it again in the worker.

    No call of ours needs it, and without it a script needs no `if __name__ == "__main__"`.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let the process that is started begin with signals blocked, which it lifts when it can obey them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        resource_tracker.ensure_running()  # it lifts others
        signal.pthread_sigmask(signal.SIG_BLOCK, (*STOPPING, signal.SIGINT))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _levels() -> dict[str, int]:
    root = logging.getLogger()
    named = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {"": root.level} | {name: level for name, level in named.items() if level}


def _filters() -> bytes:
    return pickle.dumps([each for each in warnings.filters if each[2].__module__ != "__main__"])
