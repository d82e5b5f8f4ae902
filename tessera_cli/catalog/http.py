"""One way to ask servers: retries, and what a refusal means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tessera_cli.errors import CredentialsError, SourceRefusedError, SourceUnavailableError, TesseraError, reason

if TYPE_CHECKING:
    from urllib3 import Retry

TIMEOUT = 60.0
"""Seconds for an answer."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same question may be answered."""


def retry() -> Retry:
    """Up to five more tries with growing pauses, for every method: searches are POSTed and change nothing."""
    from urllib3 import Retry

    return Retry(total=5, connect=2, backoff_factor=1, status_forcelist=PASSING, allowed_methods=None)


def get(url: str) -> bytes:
    """The body of an answer, or the error that its status means."""
    import requests
    from requests.adapters import HTTPAdapter

    with requests.Session() as session:
        session.mount(url, HTTPAdapter(max_retries=retry()))
        try:
            answer = session.get(url, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise unreachable(url, error) from error
        if not answer.ok:
            raise error_for(answer.status_code, url)
        return answer.content


def error_for(status: int | None, url: str) -> TesseraError:
    """What a status that is no success means for the user."""
    if status in (401, 403):
        return CredentialsError(f"{url} refused the request (HTTP {status}). Check the credentials.")
    if status is not None and 400 <= status < 500 and status not in PASSING:
        return SourceRefusedError(f"{url} refused the request (HTTP {status}). Check the address.")
    what = f"answered with HTTP {status}" if status else "gave no usable answer"
    return SourceUnavailableError(f"{url} {what}. Try again later.")


def unreachable(url: str, error: Exception) -> TesseraError:
    """No answer at all."""
    return SourceUnavailableError(
        f"{url} cannot be reached: {reason(error)}. Check the network and try again later, or give --catalog FILE."
    )
