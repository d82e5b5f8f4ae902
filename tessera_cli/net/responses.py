"""What a response, or none, means for the user: errors by HTTP status, without secrets."""

from __future__ import annotations

import re

from tessera_cli.errors import (
    AbsentError,
    CredentialsError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
    reason,
)
from tessera_cli.net.address import redact

_SECRET = re.compile(r"\?\S+|(?<=//)[^\s/@]*@")
"""Queries and passwords of URLs: libraries quote them with their signatures."""


def error_for(status: int | None, url: str) -> TesseraError:
    """Return the error for an HTTP status that is no success, after all retries."""
    error = _error_for(status, redact(url))
    error.status = status
    return error


def _error_for(status: int | None, where: str) -> TesseraError:
    if status in (404, 410):
        return AbsentError(f"{where} does not exist (HTTP {status}). Check the address.")
    if status in (401, 403):
        return CredentialsError(f"{where} refused the request (HTTP {status}). Check the credentials.")
    if status == 407:
        return SourceRefusedError(
            f"The proxy on the way to {where} wants a name and a password (HTTP 407). Put them into HTTP_PROXY and "
            "HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT."
        )
    if status == 429:
        return SourceBusyError(f"{where} has too many requests to answer (HTTP 429). Try again later.")
    if status is not None and 400 <= status < 500 and status not in (408, 425):
        return SourceRefusedError(f"{where} refused the request (HTTP {status}). Check the address.")
    what = f"answered with HTTP {status}" if status else "gave no usable answer"
    return SourceUnavailableError(f"{where} {what}. Try again later.")


def unreachable(url: str, error: Exception) -> TesseraError:
    """Return the error for a request that got no response, after all retries."""
    why = _SECRET.sub("", reason(innermost(error)))
    return SourceUnavailableError(f"{redact(url)} cannot be reached: {why}. Check the network and try again later.")


def page_instead(url: str) -> TesseraError:
    """Return the error for a web page in place of data: a login form, a proxy's excuse."""
    error = SourceUnavailableError(
        f"{redact(url)} answers with a web page in place of data. Check proxies and logins, and try again later."
    )
    error.status = 200
    return error


def innermost(error: BaseException) -> BaseException:
    """Return the first cause of an error, which libraries wrap in errors of their own."""
    while True:
        wrapped = (getattr(error, "reason", None), *error.args, error.__cause__)
        inner = next((one for one in wrapped if isinstance(one, BaseException)), None)
        if inner is None:
            return error
        error = inner
