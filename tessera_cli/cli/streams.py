"""Standard streams that may be closed, full, left by their reader, or lack a letter: reporting never stops the work."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from typing import Any

logger = logging.getLogger(__name__)

LOST = 74
"""Exit code (EX_IOERR) of a command that did its work and could not write its results."""


class Output(io.FileIO):
    """A file descriptor to which writing never fails; what cannot be written is dropped from then on."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                while (written := super().write(data)) is None:  # another program made it non-blocking
                    select.select((), (self,), ())
                return written
            except OSError as error:
                self.failure = error
                if self.lost:
                    logger.warning("Standard output cannot be written (%s); the work goes on", error.strerror)
        return memoryview(data).nbytes

    @property
    def lost(self) -> bool:
        """Return whether results were lost on standard output, other than to a reader that left, as `head` does."""
        return self.fileno() == 1 and self.failure is not None and self.failure.errno != errno.EPIPE


def guard() -> Output:
    """Put streams to which writing never fails in the place of standard output and error; return that of output.

    Letters that an encoding lacks are escaped. A descriptor that is closed is opened, on what refuses to be written:
    else the next file that the process opens would take its number, and get what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - empty
    output, errors = Output(1, "wb", closefd=False), Output(2, "wb", closefd=False)
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(errors, sys.stderr)
    return output


def _text(raw: Output, before: Any) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    live = raw.isatty() or raw.fileno() == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=live)
