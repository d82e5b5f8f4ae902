"""What runs in a worker process: calls come in, outcomes and log records go out, and nothing is printed.

Ctrl-C is left to the process that started it. SIGTERM and SIGUSR1 interrupt the call in hand, once; so does the death
of that process, which a thread waits for.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from tessera_cli import environment

PATIENCE = 10.0
"""Seconds in which a worker that was told to stop keeps what it has of a tile, before it is killed."""
STOPPING = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Setup:
    """What a worker is told when it starts."""

    threads: int
    gpu: str | None
    """The one GPU that it sees; None leaves all."""
    levels: dict[str, int]
    """Logger -> level, those of the process that starts it; the root logger's name is empty."""
    filters: bytes
    """Its filters of warnings, pickled: to load them may import libraries, which must know their threads by then."""


class Interrupted(BaseException):
    """Raised in the main thread of a worker that is to stop: what is in hand is tidied up on the way out."""


def work(line: Connection, setup: Setup) -> None:
    """Perform calls until there are no more, or the process is to stop."""
    environment.take_share(setup.threads, setup.gpu)
    os.dup2(2, 1)  # standard output is for results
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # A thread sends, since signals interrupt the main one: half a message would spoil all that follow.
    sender = threading.Thread(target=_send, args=(line, outbox), daemon=True)
    sender.start()
    try:
        _obey_signals()
        _report_to(outbox, setup)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        outbox.put(("ready", None))
        while call := line.recv_bytes():
            outbox.put(_perform(call))
    except (EOFError, OSError, Interrupted):  # nobody is left, or wants more
        pass
    finally:
        _obey_no_more()
        outbox.put(None)
        sender.join(PATIENCE)


def _perform(call: bytes) -> tuple[str, Any]:
    try:
        function, arguments, more = pickle.loads(call)
        return "result", function(*arguments, **more)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        error.__traceback__ = error.__cause__ = error.__context__ = None
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return "error", error


def _send(line: Connection, outbox: queue.SimpleQueue[Any]) -> None:
    while (message := outbox.get()) is not None:
        try:
            line.send(message)
        except OSError:  # nobody listens; the watch on the parent ends the process
            return
        except Exception as error:  # it cannot be pickled
            if message[0] != "log":
                line.send(("error", RuntimeError(f"a result cannot be sent: {error}")))


def _obey_signals() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        _obey_no_more()  # a scheduler, a shell and the parent may all say so
        raise Interrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in STOPPING:
        signal.signal(number, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # held back until now by whoever started this process


def _obey_no_more() -> None:
    """Take no notice of signals. With SIG_IGN, Python complains on standard error of one that has just come."""
    for number in STOPPING:
        signal.signal(number, lambda number, frame: None)


def _end_with_parent() -> None:
    """End this process when the one that started it has died: first as on SIGTERM, then at once."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


def _report_to(outbox: queue.SimpleQueue[Any], setup: Setup) -> None:
    """Send log records and warnings to the parent, as much of them as it wants."""
    root = logging.getLogger()
    root.handlers[:] = [_Reporter(outbox)]
    for name, level in setup.levels.items():
        logging.getLogger(name).setLevel(level)

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)

    warnings.showwarning = show
    warnings.filters[:] = pickle.loads(setup.filters)  # type: ignore[index]


class _Reporter(logging.handlers.QueueHandler):
    """Log handler that makes of a record what can be sent."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.put_nowait(("log", record))
