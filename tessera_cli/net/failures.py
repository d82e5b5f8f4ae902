"""What it means that a request got no answer, or only a part of one."""

from __future__ import annotations

import os
import ssl

import aiohttp

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.address import redact
from tessera_cli.net.answers import EncodingError
from tessera_cli.net.connections import UnansweredError
from tessera_cli.net.responses import error_for, unreachable
from tessera_cli.net.retries import Cause, RetryableError, cause_of
from tessera_cli.net.trust import untrusted

FAILURES = (EOFError, EncodingError, UnansweredError, aiohttp.ClientError)
"""What `failure` knows."""


def failure(url: str, error: Exception) -> Exception:
    """Return the error to raise for one of `FAILURES`."""
    if isinstance(error, EncodingError):
        return SourceRefusedError(f"{redact(url)} answers in the encoding {error}, which was not asked for.")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return RetryableError(Cause.STALLED, unreachable(url, TimeoutError("it timed out")))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        final, cause = error_for(error.status, url), cause_of(error.status)
        return final if cause is None else RetryableError(cause, final)
    if refusal := untrusted(url, error):
        return refusal
    if isinstance(error, aiohttp.ClientConnectorError) and (number := _number(error.os_error)):
        return RetryableError(Cause.UNREACHABLE, unreachable(url, OSError(number, os.strerror(number))))
    if isinstance(error, UnansweredError):
        return RetryableError(Cause.UNREACHABLE, unreachable(url, ConnectionError(str(error))))
    if isinstance(error, EOFError):
        return RetryableError(Cause.TRUNCATED, unreachable(url, error))
    return RetryableError(Cause.UNREACHABLE, unreachable(url, error))


def _number(error: OSError) -> int | None:
    """Return the number of an error of the system, whose text asyncio has made its own; None of others."""
    return error.errno if not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0 else None
