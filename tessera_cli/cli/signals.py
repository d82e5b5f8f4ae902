"""Signals that ask a run to leave: SIGTERM, SIGUSR1, which schedulers send before the time is up, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tessera_cli.errors import TesseraError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
"""75: try again later, which wrappers of Slurm take for a request to requeue."""


class Stopped(BaseException):
    """Raised in the main thread on SIGTERM and SIGUSR1, as KeyboardInterrupt is on Ctrl-C."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.exit_code = EXIT_CODES[number]
        self.text = "terminated" if number == signal.SIGTERM else f"stopped by {number.name}"


def raise_on_signals() -> None:
    """Have the first signal raise Stopped or KeyboardInterrupt.

    While the run leaves, further ones do nothing: schedulers say it twice, and the tile in hand is being saved. Only
    another Ctrl-C interrupts that too.
    """
    leaving = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal leaving
        if number == signal.SIGINT:
            leaving = True
            raise KeyboardInterrupt
        if not leaving:
            leaving = True
            raise Stopped(signal.Signals(number))

    for number in EXIT_CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as jobs in the background inherit it of Ctrl-C
            signal.signal(number, leave)


class StoppedError(TesseraError):
    """A signal ended the run before there was anything to save."""

    def __init__(self, text: str, number: signal.Signals) -> None:
        super().__init__(text)
        self.exit_code = EXIT_CODES[number]


@dataclass
class Signals:
    """Signal handlers: the first SIGTERM, SIGUSR1 or Ctrl-C asks to save and stop, a second Ctrl-C ends at once."""

    number: signal.Signals | None = None

    @classmethod
    @contextmanager
    def caught(cls) -> Iterator[Signals]:
        caught = cls()
        if threading.current_thread() is not threading.main_thread():  # only there can they be
            yield caught
            return
        before = {number: signal.getsignal(number) for number in EXIT_CODES}

        def note(number: int, frame: FrameType | None) -> None:
            caught.number = caught.number or signal.Signals(number)
            if number == signal.SIGINT:  # somebody insists; schedulers and torchrun just say it twice
                signal.signal(number, before[signal.SIGINT])

        for number in before:
            signal.signal(number, note)
        try:
            yield caught
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
