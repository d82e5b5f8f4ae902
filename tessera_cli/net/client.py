"""HTTP requests, repeated until they succeed or the retry policies are exhausted."""

from __future__ import annotations

import email.utils
import functools
import http
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from tessera_cli.errors import SourceUnavailableError, TesseraError
from tessera_cli.json_text import parse_json
from tessera_cli.net import retries
from tessera_cli.net.address import parse, redact, unsigned
from tessera_cli.net.responses import error_for, page_instead, unreachable
from tessera_cli.net.retries import RETRY_POLICIES, Cause
from tessera_cli.net.signing import OPEN, GivenSignatures, Signer
from tessera_cli.net.stats import RequestStats
from tessera_cli.net.transport import Headers, Session
from tessera_cli.net.trust import untrusted

_CHUNK = 1 << 16
_NO_ADDRESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.TooManyRedirects,
)
Causes = Mapping[int, Cause | None]
"""Status -> what lies behind it, where that is something else than `retries.cause_of` says."""

T = TypeVar("T")


@dataclass(frozen=True)
class Response:
    """The whole body of a response, as the server sent it."""

    body: bytes
    headers: Mapping[str, str]
    status: int = http.HTTPStatus.OK
    url: str = ""
    """Where the body was found: after redirects, unless they only led to a signed address."""

    @functools.cached_property
    def json(self) -> Any:
        """Return the parsed body; ValueError if it is not JSON."""
        return parse_json(self.body)


class RetryableError(Exception):
    """A request that failed in a way that may pass."""

    def __init__(self, cause: Cause, final: TesseraError, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.final = final
        """What to raise once the retries are exhausted."""
        self.retry_after = retry_after
        """Seconds that the server asked for."""
        self.progress = False
        """Whether the request brought something all the same: then retries count from the beginning."""


class Client:
    """HTTP with the retries of `RETRY_POLICIES`; shared by all threads of a run.

    Raises AbsentError, CredentialsError, SourceBusyError, SourceRefusedError or SourceUnavailableError. A body that is
    returned is as long as the server said it would be.
    """

    def __init__(self, signer: Signer = OPEN, *, stats: RequestStats | None = None, connections: int = 64) -> None:
        self.signer = signer
        self.given = GivenSignatures(signer)
        """Comes before `signer`."""
        self.stats = stats or RequestStats()
        self._stopped = threading.Event()
        self._session = Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=8, pool_maxsize=connections, max_retries=0))

    def stop(self) -> None:
        """Stop for good: nothing more is requested, and what waits for a retry gives up."""
        self._stopped.set()
        self.signer.stop()

    def check_authorities(self, url: str) -> None:
        """Raise UsageError if the certificate authorities that the user named cannot be used; nothing is requested."""
        self._session.merge_environment_settings(url, {}, None, None, None)

    def get(self, url: str) -> Response:
        """Return the whole body at `url`; compressed transfers are unpacked, files are not."""
        return self.retrying(url, lambda: self.fetch(url))

    def json(
        self,
        url: str,
        *,
        posted: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        causes: Causes | None = None,
    ) -> Response:
        """Return the JSON at `url`, or in response to a POST that changes nothing. Anything else with status 200 is
        requested again.
        """

        def attempt() -> Response:
            response = self.fetch(url, headers, posted, causes)
            try:
                response.json  # noqa: B018 - kept for the caller
            except ValueError as error:
                raise RetryableError(Cause.ERROR_PAGE, page_instead(url)) from error
            return response

        return self.retrying(url, attempt)

    def retrying(self, url: str, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, calling it again by the retry policies while it raises RetryableError."""
        failed: Counter[Cause] = Counter()
        begun = time.monotonic()
        while True:
            if self._stopped.is_set():
                raise SourceUnavailableError(f"{redact(url)} was not requested: the run has been stopped.")
            try:
                return attempt()
            except RetryableError as error:
                if error.progress:
                    failed, begun = Counter(), time.monotonic()
                cause = error.cause
                failed[cause] += 1
                if cause is Cause.FORBIDDEN and not self.given.renew(url):
                    raise error.final from None  # the next signature would be the same
                seconds = retries.pause(cause, failed[cause], retry_after=error.retry_after)
                late = time.monotonic() + seconds > begun + retries.RETRY_BUDGET * retries.TIME_SCALE
                if late or failed[cause] > RETRY_POLICIES[cause].retries:
                    raise error.final from None
                self.stats.retry(cause)
                self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        """Wait, at most until the run is over."""
        self._stopped.wait(seconds)

    @contextmanager
    def responding(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        posted: bytes | None = None,
        causes: Causes | None = None,
    ) -> Iterator[requests.Response]:
        """Send one request, a POST if there is something `posted`; the body of the response has not been read.

        Raises RetryableError for what may pass, here and while the body is read, and the errors of `Client` for what
        will not.
        """
        parse(url)  # which refuses what requests and urllib3 may read in two ways
        given, signed = self.given.uses(url), self.given.sign(url)
        response = None
        try:
            with self._session.request(
                "GET" if posted is None else "POST",
                signed.url,
                data=posted,
                headers=dict(headers or {}),
                auth=Headers(signed.headers),
                stream=True,
                timeout=(retries.CONNECT_TIMEOUT * retries.TIME_SCALE, retries.READ_TIMEOUT * retries.TIME_SCALE),
            ) as response:
                if response.status_code not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                    causes = causes or {}
                    if given:  # S3 and GCS say so of an expired signature
                        causes = {400: Cause.FORBIDDEN, **causes}
                    raise _refusal(response, url, causes)
                yield response
        except _NO_ADDRESS as error:
            raise unreachable(url, error) from None  # its text holds the signature
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise RetryableError(Cause.STALLED, unreachable(url, error)) from error
        except (
            requests.exceptions.ChunkedEncodingError,
            urllib3.exceptions.ProtocolError,
            urllib3.exceptions.DecodeError,
        ) as error:
            raise RetryableError(Cause.TRUNCATED, unreachable(url, error)) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if refused := untrusted(url, error):
                raise refused from error
            stalled = bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
            raise RetryableError(Cause.STALLED if stalled else Cause.UNREACHABLE, unreachable(url, error)) from error
        finally:
            self.stats.request(0 if response is None else response.raw.tell())

    def fetch(self, url: str, *request: Any) -> Response:
        """Send one request, as `responding` does, and read the body within TOTAL_TIMEOUT."""
        with self.responding(url, *request) as response:
            deadline = time.monotonic() + retries.TOTAL_TIMEOUT * retries.TIME_SCALE
            body = bytearray()
            for chunk in chunks(response, url):
                body += chunk
                if time.monotonic() > deadline:
                    late = TimeoutError("the response comes too slowly")
                    raise RetryableError(Cause.STALLED, unreachable(url, late))
            found = response.url if response.history and not unsigned(response.url)[1] else url
            return Response(bytes(body), response.headers, response.status_code, found)


def chunks(response: requests.Response, url: str) -> Iterator[bytes]:
    """Yield the body as it arrives. Raises RetryableError if it is shorter than its Content-Length."""
    received = 0
    while chunk := response.raw.read1(_CHUNK, decode_content=True):  # `read` may wait for a whole chunk for hours
        received += len(chunk)
        yield chunk
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and "Content-Encoding" not in response.headers and received != int(announced):
        early = EOFError(f"the response ended after {received} of {announced} bytes")
        raise RetryableError(Cause.TRUNCATED, unreachable(url, early))


def _refusal(response: requests.Response, url: str, causes: Causes) -> Exception:
    status = response.status_code
    error, cause = error_for(status, url), causes[status] if status in causes else retries.cause_of(status)
    return error if cause is None else RetryableError(cause, error, _seconds(response.headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or by a date; None if it says nothing."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
