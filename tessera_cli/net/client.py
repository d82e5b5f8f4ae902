"""The client: one question, asked until it is answered or the table of retries is exhausted."""

from __future__ import annotations

import email.utils
import functools
import http
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from tessera_cli.errors import SourceUnavailableError, TesseraError
from tessera_cli.net import retries
from tessera_cli.net.responses import error_for, page_instead, redact, unreachable
from tessera_cli.net.retries import RETRY_POLICIES, Cause
from tessera_cli.net.signing import OPEN, Signer
from tessera_cli.net.stats import RequestStats

_CHUNK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"{")
_NO_ADDRESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.TooManyRedirects,
)


@dataclass(frozen=True)
class Response:
    """The whole body, as the server sent it."""

    body: bytes
    headers: Mapping[str, str]

    @functools.cached_property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class RangeResponse:
    """Some bytes of a file."""

    data: bytes
    total: int
    """Size of the whole file."""


@dataclass(frozen=True)
class _Request:
    """What a server is asked."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    wanted: tuple[int, int] | None = None
    """Start and length of a range."""
    total: int | None = None
    """Size of the file that the range is of, if known."""
    posted: bytes | None = None
    """The body of a POST; None: a GET."""
    json: bool = False
    """Whether the answer must be JSON."""
    causes: Mapping[int, Cause | None] = field(default_factory=dict)
    """Statuses that mean something else to this server than `retries.cause_of` says."""


class _RetryableError(Exception):
    """A try that failed in a way that may pass."""

    def __init__(self, cause: Cause, final: TesseraError, asked: float | None = None) -> None:
        super().__init__(cause)
        self.cause, self.final, self.asked = cause, final, asked


class Client:
    """Asks servers, with retries by the table; shared by all threads of a run.

    Raises AbsentError, CredentialsError, SourceBusyError, SourceRefusedError or SourceUnavailableError. A body that is
    returned is as long as the server said it would be.
    """

    def __init__(self, signer: Signer = OPEN, *, stats: RequestStats | None = None, connections: int = 64) -> None:
        self.signer = signer
        self.stats = stats or RequestStats()
        self._stopped = threading.Event()
        self._session = _Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=8, pool_maxsize=connections, max_retries=0))

    def stop(self) -> None:
        """The run is over, well or not: nothing more is asked, and what waits for a retry gives up."""
        self._stopped.set()
        self.signer.stop()

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Response:
        """The whole body at `url`; compressed transfers are unpacked, files are not."""
        return self._ask(_Request(url, headers or {}))[0]

    def json(
        self,
        url: str,
        *,
        posted: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        causes: Mapping[int, Cause | None] | None = None,
    ) -> Response:
        """The JSON at `url`, or in answer to a POST that changes nothing. Whatever else comes with 200 is asked again.

        `causes`: what lies behind statuses that mean something else to this server than `retries.cause_of` says.
        """
        return self._ask(_Request(url, headers or {}, posted=posted, json=True, causes=causes or {}))[0]

    def get_range(self, url: str, start: int, length: int, *, total: int | None = None) -> RangeResponse:
        """`length` bytes from `start`, fewer where the file ends before.

        A server that ignores ranges and sends the whole file is understood. `total`: the size that the file had
        before; bytes of a file of another size are no part of it, and asked for again.
        """
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        answer, status = self._ask(_Request(url, headers, wanted=(start, length), total=total))
        if status == http.HTTPStatus.PARTIAL_CONTENT:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            assert found is not None  # _ask has seen to it
            return RangeResponse(answer.body, int(found[3]))
        return RangeResponse(answer.body[start : start + length], len(answer.body))

    def _ask(self, question: _Request) -> tuple[Response, int]:
        failed: Counter[Cause] = Counter()
        deadline = time.monotonic() + retries.RETRY_BUDGET * retries.TIME_SCALE
        while True:
            if self._stopped.is_set():
                raise SourceUnavailableError(f"{redact(question.url)} was not asked: the run has been stopped.")
            try:
                return self._try(question)
            except _RetryableError as setback:
                cause = setback.cause
                failed[cause] += 1
                if cause is Cause.FORBIDDEN and not self.signer.renew(question.url):
                    raise setback.final from None  # the next ticket would be the same
                seconds = retries.pause(cause, failed[cause], asked=setback.asked)
                if failed[cause] > RETRY_POLICIES[cause].retries or time.monotonic() + seconds > deadline:
                    raise setback.final from None
                self.stats.retry(cause)
                self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        """Until then, or until the run is over."""
        self._stopped.wait(seconds)

    def _try(self, question: _Request) -> tuple[Response, int]:
        url, wanted = question.url, question.wanted
        sign = self.signer.sign(url)
        received = 0
        try:
            with self._session.request(
                "GET" if question.posted is None else "POST",
                sign.url,
                data=question.posted,
                headers=dict(question.headers),
                auth=_Headers(sign.headers),
                stream=True,
                timeout=(retries.CONNECT_TIMEOUT * retries.TIME_SCALE, retries.READ_TIMEOUT * retries.TIME_SCALE),
            ) as response:
                status = response.status_code
                if status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                    self._refused(response, question)
                body = _body(response, url)
                received = len(body)
        except _NO_ADDRESS as error:
            raise unreachable(url, error) from None  # its text holds the signature
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise _RetryableError(Cause.STALLED, unreachable(url, error)) from error
        except (
            requests.exceptions.ChunkedEncodingError,
            urllib3.exceptions.ProtocolError,
            urllib3.exceptions.DecodeError,
        ) as error:
            raise _RetryableError(Cause.TRUNCATED, unreachable(url, error)) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            stalled = bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
            raise _RetryableError(Cause.STALLED if stalled else Cause.UNREACHABLE, unreachable(url, error)) from error
        finally:
            self.stats.request(received)
        if wanted is not None:
            _check_range(response, url, body, wanted, question.total)
        answer = Response(body, response.headers)
        if question.json:
            try:
                answer.json  # noqa: B018 - kept for the caller
            except ValueError as error:
                raise _RetryableError(Cause.ERROR_PAGE, page_instead(url)) from error
        return answer, status

    @staticmethod
    def _refused(response: requests.Response, question: _Request) -> None:
        status = response.status_code
        error = error_for(status, question.url)
        cause = question.causes[status] if status in question.causes else retries.cause_of(status)
        if cause is None:
            raise error
        raise _RetryableError(cause, error, _seconds(response.headers.get("Retry-After")))


class _Session(requests.Session):
    """Takes proxies from the environment, but no passwords from ~/.netrc."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """On a redirect: Authorization goes to no other host, and nothing takes its place."""
        before, after = response.request.url, prepared_request.url
        assert before is not None
        assert after is not None
        if self.should_strip_auth(before, after):
            prepared_request.headers.pop("Authorization", None)


class _Headers(requests.auth.AuthBase):
    """The ticket's headers. With an `auth` given, ~/.netrc is not asked."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.headers)
        return request


def _body(response: requests.Response, url: str) -> bytes:
    """All bytes, within the time for a whole answer and as many as announced."""
    deadline = time.monotonic() + retries.TOTAL_TIMEOUT * retries.TIME_SCALE
    body = bytearray()
    while chunk := response.raw.read1(_CHUNK, decode_content=True):  # what has come: a whole chunk may take hours
        body += chunk
        if time.monotonic() > deadline:
            raise _RetryableError(Cause.STALLED, unreachable(url, TimeoutError("the answer comes too slowly")))
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and "Content-Encoding" not in response.headers and len(body) != int(announced):
        early = EOFError(f"the answer ended after {len(body)} of {announced} bytes")
        raise _RetryableError(Cause.TRUNCATED, unreachable(url, early))
    return bytes(body)


def _check_range(
    response: requests.Response, url: str, body: bytes, wanted: tuple[int, int], known: int | None
) -> None:
    """That the answer holds data, and the bytes that were asked for, of a file as long as `known`."""
    partial, received = response.status_code == http.HTTPStatus.PARTIAL_CONTENT, len(body)
    kind = response.headers.get("Content-Type", "")
    page = kind.startswith("text/html" if partial else "text/")
    if page or (not partial and body[:100].lstrip().lower().startswith(_PAGES)):
        raise _RetryableError(Cause.ERROR_PAGE, page_instead(url))
    total = received
    if partial:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        first, last, total = map(int, found.groups()) if found is not None else (-1, -1, -1)
        start, length = wanted
        if first != start or last != min(start + length, total) - 1 or received != last - first + 1:
            early = EOFError(f"the answer is not the range that was asked for ({received} of {length} bytes)")
            raise _RetryableError(Cause.TRUNCATED, unreachable(url, early))
    if known not in (None, total):
        other = EOFError(f"it has {total} bytes now, {known} when it was opened")
        raise _RetryableError(Cause.TRUNCATED, unreachable(url, other))


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
