"""An executor over the workers of a Dask cluster, whoever has started it: all that is needed is its address."""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar

from tessera_cli import __version__
from tessera_cli.errors import SourceUnavailableError, TesseraError, UsageError, plainly, reason
from tessera_cli.workers.process import WorkerDiedError

logger = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds in which a scheduler must answer at first."""
LOOK = 1.0
"""Seconds between two looks at the scheduler and its workers, which come and go."""

P = ParamSpec("P")
T = TypeVar("T")

_alone = threading.Lock()
"""Held by the task that uses the GPU of this process."""


class SchedulerGoneError(SourceUnavailableError):
    """The scheduler has ended, or has forgotten the run."""


class DaskExecutor(Executor):
    """Calls run in the workers of the scheduler at `address`; with `alone` each works on one at a time.

    A future raises WorkerDiedError when Dask gives up a call whose workers died, and SchedulerGoneError when the
    scheduler is gone.
    """

    tells = False
    """Log records stay with the workers."""
    elsewhere = True
    """They may have other machines, whose memory is not known here."""

    def __init__(self, address: str, *, alone: bool = False) -> None:
        self.address, self._alone = address, alone
        check_scheduler(address)
        distributed = _distributed()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tables of versions; see `_look`
                self._client = _client(distributed, address)
        except Exception as error:
            raise _no_answer(address, error) from error
        self._inner = self._client.get_executor(pure=False)
        self._killed: type[BaseException] = distributed.KilledWorker
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False
        self._slots = 1
        try:
            self._look(distributed)
        except BaseException:
            self._disconnect()
            raise
        self._watch = threading.Thread(target=self._keep_watch, daemon=True)
        self._watch.start()

    @property
    def slots(self) -> int:
        """Calls that the workers of this moment work on side by side; at least 1, since they may be on their way."""
        return self._slots

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: Future[T] = Future()
            self._open.add(future)
        try:
            call = pickle.dumps(_Call(__version__, self._alone, fn, args, kwargs))
            inner = self._inner.submit(pickle.loads, call, key=f"tessera-{uuid.uuid4().hex}")
        except Exception as error:
            self._end(future, error=self._gone(error))
            return future
        inner.add_done_callback(partial(self._pass_on, future))
        future.add_done_callback(lambda ended: inner.cancel() if ended.cancelled() else None)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            left = list(self._open)
        for future in left if cancel_futures else ():
            future.cancel()
        if wait:
            for future in left:
                with suppress(Exception, CancelledError):
                    future.result()
            self._disconnect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self.shutdown(cancel_futures=error is not None)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        with suppress(Exception):  # the scheduler may be gone
            self._client.close(timeout=1)

    def _pass_on(self, future: Future[Any], inner: Future[Any]) -> None:
        """End a future of ours as that of Dask has ended."""
        if inner.cancelled():
            self._end(future, error=self._gone())
        elif (error := inner.exception()) is None:
            self._end(future, result=inner.result())
        elif isinstance(error, self._killed):
            self._end(future, error=WorkerDiedError(f"the workers of a task have died, {_deaths(error)} times"))
        elif _is_missing(error):
            self._end(future, error=self._not_installed())
        elif isinstance(error, OSError | CancelledError) and self._client.status != "running":
            self._end(future, error=self._gone(error))
        else:
            self._end(future, error=error)

    def _end(self, future: Future[Any], *, result: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            if future not in self._open:
                return
            self._open.discard(future)
        if future.set_running_or_notify_cancel():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _keep_watch(self) -> None:
        """Count the workers, and end all futures when the scheduler is gone: of itself Dask may wait for it."""
        while not self._closed or self._open:
            time.sleep(LOOK)
            try:
                if self._client.status != "running":
                    raise self._gone()
                self._slots = self._count()
            except Exception as error:
                for future in list(self._open):
                    self._end(future, error=self._gone(error))
                if self._client.status == "closed":
                    return

    def _count(self) -> int:
        threads = self._client.nthreads()
        return max(1, len(threads) if self._alone else sum(threads.values()))

    def _look(self, distributed: ModuleType) -> None:
        """Look at the workers that are there: how many they are, and whether they run what runs here."""
        try:
            found = self._client.run(_versions)
        except Exception as error:
            raise (self._not_installed() if _is_missing(error) else self._gone(error)) from error
        if not found:
            logger.warning("The scheduler at %s has no workers yet; tasks wait for them", self.address)
        for worker, version in found.items():
            _check_version(version, worker)
        theirs = {place: each["packages"].get("distributed") for place, each in _places(self._client.get_versions())}
        other = {place: version for place, version in theirs.items() if version not in (None, distributed.__version__)}
        for place, version in list(other.items())[:1]:
            logger.warning("Dask is %s here and %s at the %s; use one version", distributed.__version__, version, place)
        self._slots = self._count()

    def _gone(self, error: BaseException | None = None) -> SchedulerGoneError:
        if isinstance(error, SchedulerGoneError):
            return error
        if error is not None:
            logger.debug("%s", error, exc_info=error)
        return SchedulerGoneError(
            f"the scheduler at {self.address} is gone; tiles in hand may still be finished by their workers. "
            "Run the same command again."
        )

    def _not_installed(self) -> UsageError:
        return UsageError(
            f"--scheduler {self.address}: its workers have no tessera-embed. Install {__version__} where they run."
        )


def check_scheduler(address: str) -> None:
    """Raise UsageError where Dask is missing or this is no address, SourceUnavailableError where nothing listens."""
    _distributed()
    from distributed.comm.addressing import get_address_host_port, parse_address
    from distributed.comm.registry import get_backend

    try:
        scheme, _ = parse_address(address)
        get_backend(scheme)
        if scheme in ("tcp", "tls"):
            socket.create_connection(get_address_host_port(address), TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise _no_answer(address, error) from error


class _Call:
    """A call that is performed when it is unpickled, inside of a task.

    A worker that could not unpickle the task itself, since it lacks our package, would end, and the next after it.
    """

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return perform_in_worker, self._call


def perform_in_worker(
    version: str, alone: bool, function: Callable[..., T], arguments: tuple[Any, ...], more: dict[str, Any]
) -> T:
    """Perform a call in a worker of Dask; with `alone` after others of its process."""
    _check_version(__version__, "a worker", due=version)
    if not alone:
        return function(*arguments, **more)
    with _alone:
        return function(*arguments, **more)


def _is_missing(error: BaseException) -> bool:
    """Return whether a worker could not import our package; Dask wraps what it says."""
    said = f"{error} {error.__cause__}".replace("'", "")
    return "No module named tessera_cli" in said


def _versions() -> str:
    return __version__


def _check_version(version: str, where: str, *, due: str | None = None) -> None:
    due = due or __version__
    if version != due:
        raise UsageError(f"tessera is {due} here and {version} at {where}. Install one version everywhere.")


def _places(versions: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    workers = [(f"worker {address}", each) for address, each in (versions.get("workers") or {}).items()]
    return [("scheduler", versions["scheduler"]), *workers]


def _deaths(error: BaseException) -> int:
    return int(getattr(error, "allowed_failures", 3)) + 1


def _no_answer(address: str, error: Exception) -> TesseraError:
    text = f"--scheduler {address}: no Dask scheduler answers there: {plainly(error)}. "
    if isinstance(error, OSError):
        return SourceUnavailableError(f"{text}Start it, or name the address that it prints, and run again.")
    return UsageError(f"{text}Name the address that it prints when it starts, such as tcp://host:8786.")


def _client(distributed: ModuleType, address: str) -> Any:
    """Return a client; one that finds no scheduler is closed, or it would try to be when the program ends."""
    made: list[Any] = []

    class Client(distributed.Client):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            made.append(self)
            super().__init__(address, timeout=TIMEOUT, set_as_default=False, name="tessera")

    try:
        return Client()
    except BaseException:
        with suppress(Exception):
            made[0].close(timeout=1)
        made.pop().status = "closed"
        raise


def _distributed() -> ModuleType:
    """Import Dask. Its log, which it writes to standard error, goes the way of ours, and is silent unless asked for."""
    if sys.modules.get("distributed") is not None:
        return sys.modules["distributed"]
    before = {name: logging.getLogger(name).level or logging.CRITICAL for name in ("distributed", "tornado", "bokeh")}
    try:
        import distributed
    except ImportError as error:
        raise UsageError(f"--scheduler needs Dask ({reason(error)}): pip install 'tessera-embed[dask]'.") from None
    known = logging.getLogger().manager.loggerDict
    for name in [each for each in known if each.split(".")[0] in before]:
        each = logging.getLogger(name)
        each.handlers.clear()
        each.propagate = True
        each.setLevel(before.get(name, logging.NOTSET))
    return distributed
