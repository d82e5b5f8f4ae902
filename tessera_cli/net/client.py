"""HTTP requests, repeated until they succeed or the retry policies are exhausted."""

from __future__ import annotations

import email.utils
import functools
import http
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tessera_cli.errors import ReadingStoppedError, SourceRefusedError, SourceUnavailableError
from tessera_cli.json_text import parse_json
from tessera_cli.net import retries
from tessera_cli.net.address import parse, redact, unsigned
from tessera_cli.net.answers import Answer
from tessera_cli.net.deadlines import Deadlines, OverError
from tessera_cli.net.failures import FAILURES, RetryableError, failure
from tessera_cli.net.loop import LOOP
from tessera_cli.net.reach import Reach
from tessera_cli.net.responses import error_for, page_instead, unreachable
from tessera_cli.net.retries import RETRY_POLICIES, Cause
from tessera_cli.net.signing import OPEN, GivenSignatures, SignedRequest, Signer
from tessera_cli.net.stats import RequestStats
from tessera_cli.net.transport import Transport

MOST = 256 << 20
"""Bytes of a whole body, unpacked, beyond which it is not read on."""
MOST_JSON, MOST_VALUES = 64 << 20, 5_000_000
"""Bytes and values of JSON that is parsed: ten thousand items. A value takes up to 100 times its bytes in memory."""
_BEGINNING = 100
Take = Callable[[bytes], bool]
"""Takes a piece of a body, and returns whether more is wanted."""
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
        self._deadlines.stop(LOOP.get())
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

    def receive(
        self,
        url: str,
        begin: Callable[[Answer], Take],
        headers: Mapping[str, str] | None = None,
        posted: bytes | None = None,
        causes: Causes | None = None,
        *,
        patient: bool = False,
    ) -> Answer:
        """Send one request, a POST if there is something `posted`, and give the body of the answer piece by piece to
        what `begin` returns, until that returns false.

        Both are called in the thread of all requests and must not wait for anything but a disk. All of it, redirects
        and the body included, ends within TOTAL_TIMEOUT, which is given anew while a `patient` request gets on. Raises
        RetryableError for what may pass, the errors of `Client` for what will not, and what is raised by those two.
        """
        parse(url)  # before it is signed
        self.reach.check(url)  # may ask a name server
        given, signed = self.given.uses(url), self.given.sign(url)
        if given:  # S3 and GCS say so of an expired signature
            causes = {400: Cause.FORBIDDEN, **(causes or {})}
        return LOOP.run(self._received(url, signed, begin, headers or {}, posted, causes or {}, patient))

    async def _received(
        self,
        url: str,
        signed: SignedRequest,
        begin: Callable[[Answer], Take],
        headers: Mapping[str, str],
        posted: bytes | None,
        causes: Causes,
        patient: bool,
    ) -> Answer:
        answer = None
        try:
            async with (
                self._deadlines.within(retries.TOTAL_TIMEOUT * retries.TIME_SCALE) as deadline,
                self._transport.asking(signed, headers, posted, deadline) as answer,
            ):
                if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                    raise _refusal(answer, url, causes)
                take = begin(answer)
                async for piece in answer.pieces(patient=patient):
                    if not take(piece):
                        break
                return answer
        except OverError as error:
            raise self._late(url) from error
        except FAILURES as error:
            raise failure(url, error) from error
        finally:
            self.stats.request(0 if answer is None else answer.received)

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
        body, beginning, passed = bytearray(), b"", 0
        first = end = 0

        def begin(answer: Answer) -> Take:
            nonlocal first, end
            whole = answer.status == http.HTTPStatus.OK
            first, end = (0, most + 1) if span is None else (span[0], sum(span)) if whole else (0, span[1] + 1)
            return take

        def take(piece: bytes) -> bool:
            nonlocal beginning, passed
            beginning += piece[: _BEGINNING - len(beginning)]
            start, stop = max(0, first - passed), max(0, end - passed)
            body.extend(piece if start == 0 and stop >= len(piece) else memoryview(piece)[start:stop])
            passed += len(piece)
            return passed < end

        answer = self.receive(url, begin, headers, posted, causes)
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
