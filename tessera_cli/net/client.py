"""HTTP requests, repeated until they succeed or the retry policies are exhausted."""

from __future__ import annotations

import email.utils
import functools
import http
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import requests.exceptions
import urllib3.exceptions

from tessera_cli.errors import ReadingStoppedError, SourceRefusedError, SourceUnavailableError, TesseraError
from tessera_cli.json_text import parse_json
from tessera_cli.net import retries
from tessera_cli.net.address import parse, redact, unsigned
from tessera_cli.net.answers import Answer, EncodingError
from tessera_cli.net.connections import UnansweredError
from tessera_cli.net.deadlines import Deadlines, OverError
from tessera_cli.net.reach import Reach
from tessera_cli.net.responses import error_for, page_instead, unreachable
from tessera_cli.net.retries import RETRY_POLICIES, Cause
from tessera_cli.net.signing import OPEN, GivenSignatures, Signer
from tessera_cli.net.stats import RequestStats
from tessera_cli.net.transport import Transport
from tessera_cli.net.trust import untrusted

MOST = 256 << 20
"""Bytes of a whole body, unpacked, beyond which it is not read on."""
MOST_JSON, MOST_VALUES = 64 << 20, 5_000_000
"""Bytes and values of JSON that is parsed: ten thousand items. A value takes up to 100 times its bytes in memory."""
_BEGINNING = 100
_FAILURES = (
    *(OverError, EOFError, EncodingError, UnansweredError),
    *(requests.exceptions.InvalidProxyURL, urllib3.exceptions.HTTPError),
)
Causes = Mapping[int, Cause | None]
"""Status -> what lies behind it, where that is something else than `retries.cause_of` says."""

T = TypeVar("T")


@dataclass(frozen=True)
class Response:
    """The body of a response, or the part of it that was asked for."""

    body: bytes
    headers: Mapping[str, str]
    status: int = http.HTTPStatus.OK
    url: str = ""
    """Where the body was found: after redirects, unless they only led to a signed address."""
    proven: bool = True
    """Whether the body is complete for sure. Without a length or a last chunk, a connection that broke looks like an
    end."""
    size: int | None = None
    """Bytes of the whole body, unpacked, if that is known for sure."""
    beginning: bytes = b""
    """The first bytes of the whole body."""

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

    def __init__(
        self,
        signer: Signer = OPEN,
        *,
        stats: RequestStats | None = None,
        connections: int = 64,
        reach: Reach | None = None,
    ) -> None:
        """Set up a client; `reach`: the networks and hosts that it may lead to, redirects included; None: all."""
        self.signer = signer
        self.given = GivenSignatures(signer)
        """Comes before `signer`."""
        self.stats = stats or RequestStats()
        self.reach = reach or Reach(everywhere=True)
        self._deadlines = Deadlines()
        self._transport = Transport(self.reach, connections)

    def stop(self) -> None:
        """Stop for good: nothing more is requested, and what waits, for a retry or for a server, gives up at once."""
        self._deadlines.stop()
        self.signer.stop()

    def check_authorities(self, url: str) -> None:
        """Raise UsageError if the certificate authorities that the user named cannot be used; nothing is requested."""
        self._transport.way(url)

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
        most: int = MOST_JSON,
    ) -> Response:
        """Return the JSON at `url`, of at most `most` bytes, or in response to a POST that changes nothing. Anything
        else with status 200 is requested again.
        """

        def attempt() -> Response:
            response = self.fetch(url, headers, posted, causes, most=most)
            check_json(url, response.body)
            try:
                response.json  # noqa: B018 - kept for the caller
            except (ValueError, RecursionError) as error:
                raise RetryableError(Cause.ERROR_PAGE, page_instead(url)) from error
            return response

        return self.retrying(url, attempt)

    def retrying(self, url: str, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, calling it again by the retry policies while it raises RetryableError."""
        failed: Counter[Cause] = Counter()
        begun = time.monotonic()
        while True:
            if self._deadlines.stopped.is_set():
                raise _stopped(url)
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
        self._deadlines.stopped.wait(seconds)

    @contextmanager
    def responding(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        posted: bytes | None = None,
        causes: Causes | None = None,
    ) -> Iterator[Answer]:
        """Send one request, a POST if there is something `posted`; the body of the answer has not been read.

        All of it, redirects and the body included, ends within TOTAL_TIMEOUT. Raises RetryableError for what may pass,
        here and while the body is read, and the errors of `Client` for what will not.
        """
        parse(url)  # before it is signed
        given, signed = self.given.uses(url), self.given.sign(url)
        answer = None
        with self._deadlines.within(retries.TOTAL_TIMEOUT * retries.TIME_SCALE) as deadline:
            try:
                with self._transport.asking(signed, headers or {}, posted, deadline) as answer:
                    if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                        causes = causes or {}
                        if given:  # S3 and GCS say so of an expired signature
                            causes = {400: Cause.FORBIDDEN, **causes}
                        raise _refusal(answer, url, causes)
                    yield answer
            except _FAILURES as error:
                if deadline.over:
                    raise self._late(url) from error
                raise _failure(url, error) from error
            finally:
                self.stats.request(0 if answer is None else answer.response.tell())

    def _late(self, url: str) -> Exception:
        if self._deadlines.stopped.is_set():
            return _stopped(url)
        return RetryableError(Cause.STALLED, unreachable(url, TimeoutError("the response comes too slowly")))

    def fetch(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        posted: bytes | None = None,
        causes: Causes | None = None,
        *,
        most: int = MOST,
        span: tuple[int, int] | None = None,
    ) -> Response:
        """Send one request, as `responding` does, and read the body, of at most `most` bytes.

        `span`: the first byte and the number of bytes that the headers ask for. Of a server that ignores that no more
        is kept, and little more read; of one that sends another part at most one byte too much.
        """
        with self.responding(url, headers, posted, causes) as answer:
            whole = answer.status == http.HTTPStatus.OK
            first, end = (0, most + 1) if span is None else (span[0], sum(span)) if whole else (0, span[1] + 1)
            body, beginning, passed = bytearray(), b"", 0
            for piece in answer.pieces():
                beginning += piece[: _BEGINNING - len(beginning)]
                body += piece[max(0, first - passed) : max(0, end - passed)]
                passed += len(piece)
                if passed >= end:
                    break
            if span is None and passed > most:
                raise _too_large(url, f"{most >> 20} MB")
            size = None if answer.packed else answer.length
            if size is None and answer.proven:
                size = passed
            found = answer.url if answer.redirected and not unsigned(answer.url)[1] else url
            proven = answer.proven or passed >= end
            return Response(bytes(body), answer.headers, answer.status, found, proven, size, beginning)


def check_json(url: str, body: bytes) -> None:
    """Raise SourceRefusedError for JSON that would take more than a gigabyte in memory; it is not parsed."""
    if len(body) > MOST_JSON:
        raise _too_large(url, f"{MOST_JSON >> 20} MB")
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise _too_large(url, f"{MOST_VALUES:,} values")


def _too_large(url: str, most: str) -> SourceRefusedError:
    return SourceRefusedError(
        f"{redact(url)} sends more than {most}, which is more than it may. Check the address; of something that large, "
        "download a copy and give its path."
    )


def _stopped(url: str) -> SourceUnavailableError:
    return ReadingStoppedError(f"{redact(url)} was not requested: the run has been stopped.")


def _failure(url: str, error: Exception) -> Exception:
    """Return what it means that a request got no answer, or only a part of one."""
    if isinstance(error, EncodingError):
        return SourceRefusedError(f"{redact(url)} answers in the encoding {error}, which was not asked for.")
    if isinstance(error, urllib3.exceptions.NewConnectionError):  # a kind of timeout to urllib3
        return RetryableError(Cause.UNREACHABLE, unreachable(url, error))
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return RetryableError(Cause.STALLED, unreachable(url, error))
    if isinstance(error, EOFError | urllib3.exceptions.ProtocolError | urllib3.exceptions.DecodeError):
        return RetryableError(Cause.TRUNCATED, unreachable(url, error))
    return untrusted(url, error) or RetryableError(Cause.UNREACHABLE, unreachable(url, error))


def _refusal(response: Answer, url: str, causes: Causes) -> Exception:
    status = response.status
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
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
