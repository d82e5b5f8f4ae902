"""Tokens that threads share: requested once, renewed before they expire."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tessera_cli.errors import AbsentError, SourceRefusedError, TesseraError

LONGEST = 1 << 20
"""Bytes that a service may send with a token."""
RESERVE = 60.0
"""Seconds before its end from which a token is not used."""


@dataclass(frozen=True)
class Token:
    """A secret that gives access to files until it expires."""

    text: str = field(repr=False)
    expires: float = math.inf
    """POSIX time."""


def printable(token: str) -> bool:
    """Return whether a text could be a token: what is not would end the header or the URL that it is put in."""
    return token.isascii() and token.isprintable() and " " not in token


class SharedToken:
    """A token for many threads, requested at first use and again before it expires or after a refusal."""

    def __init__(self, request: Callable[[], Token]) -> None:
        """Set up a token that `request` brings; it may raise a TesseraError."""
        self._request = request
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._requested = -math.inf
        self._failure: TesseraError | None = None
        self._handed = threading.local()

    def get(self) -> str:
        """Return the text of the token. Threads that wait while another requests it share its result or error."""
        came = time.monotonic()
        with self._lock:
            fresh = self._requested >= came
            if fresh and self._failure is not None:
                raise self._failure.retold(str(self._failure)) from self._failure
            if self._token is None or not (fresh or self._token.expires - time.time() > RESERVE):
                self._renew()
            assert self._token is not None
            self._handed.token = self._token
            return self._token.text

    def drop(self) -> None:
        """Forget the token that this thread had last: it was refused."""
        with self._lock:
            if self._token is getattr(self._handed, "token", None):  # else another thread was faster
                self._token = None

    def _renew(self) -> None:
        self._token = self._failure = None
        try:
            self._token = self._request()
        except AbsentError as error:  # of the token: that says nothing of a file
            self._failure = SourceRefusedError(str(error))
            raise self._failure from error
        except TesseraError as error:
            self._failure = error
            raise
        finally:
            self._requested = time.monotonic()
