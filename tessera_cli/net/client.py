"""HTTP requests, repeated until they succeed or the retry policies are exhausted."""

from __future__ import annotations

import asyncio
import email.utils
import functools
import http
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from tessera_cli.errors import ReadingStoppedError, SourceRefusedError, SourceUnavailableError
from tessera_cli.net import retries
from tessera_cli.net.address import parse, redact
from tessera_cli.net.bodies import MOST, Body, Response, Span, Take
from tessera_cli.net.deadlines import Deadlines, OverError
from tessera_cli.net.loop import LOOP
from tessera_cli.net.reach import Reach
from tessera_cli.net.responses import error_for, page_instead, unreachable
from tessera_cli.net.retries import RETRY_POLICIES, Cause, RetryableError
from tessera_cli.net.signing import OPEN, GivenSignatures, SignedRequest, Signer
from tessera_cli.net.stats import RequestStats
from tessera_cli.net.turns import Turns

MOST_JSON, MOST_VALUES = 64 << 20, 5_000_000
"""Bytes and values of JSON that is parsed: ten thousand items. A value takes up to 100 times its bytes in memory."""
if TYPE_CHECKING:
    from tessera_cli.net.answers import Answer
    from tessera_cli.net.transport import Transport

CONNECTIONS = 64
"""Requests that are under way at once: waiting for servers is what takes time. More would share a thin line, and each
has to end within TOTAL_TIMEOUT."""
PARTS = 16
"""Of a file that are asked for with one signature."""
Causes = Mapping[int, Cause | None]
"""Status -> what lies behind it, where that is something else than `retries.cause_of` says."""

T = TypeVar("T")


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
        connections: int = CONNECTIONS,
        reach: Reach | None = None,
    ) -> None:
        """Set up a client; `reach`: the networks and hosts that it may lead to, redirects included; None: all."""
        self.signer = signer
        self.given = GivenSignatures(signer)
        """Comes before `signer`."""
        self.stats = stats or RequestStats()
        self.reach = reach or Reach(everywhere=True)
        self._deadlines = Deadlines()
        self._turns = Turns(connections)

    @functools.cached_property
    def _transport(self) -> Transport:
        from tessera_cli.net.transport import Transport  # takes a while, and runs on local files need none

        return Transport(self.reach)

    def stop(self) -> None:
        """Stop for good: nothing more is requested, and what waits, for a retry or for a server, gives up at once."""
        self._deadlines.stop(LOOP.begun)
        self._turns.end()
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
        (found,) = self.retrying_all(url, 1, lambda _: [_outcome(attempt)])
        if isinstance(found, Exception):
            raise found
        return found

    def retrying_all(
        self, url: str, count: int, attempt: Callable[[list[int]], Sequence[T | Exception]]
    ) -> list[T | Exception]:
        """Return what becomes of `count` requests that are made side by side.

        `attempt` gets the numbers of those to be made and returns what each gives, or its error; those whose error is a
        RetryableError are made again by the retry policies, each with the patience of its own.
        """
        found: list[T | Exception] = [ReadingStoppedError("")] * count
        patience, open_ = [_Patience() for _ in range(count)], list(range(count))
        while open_:
            if self._deadlines.stopped.is_set():
                raise _stopped(url)
            again, pauses, renewed = [], [0.0], None
            for number, outcome in zip(open_, attempt(open_), strict=True):
                found[number] = outcome
                if not isinstance(outcome, RetryableError):
                    continue
                found[number] = outcome.final
                if outcome.cause is Cause.FORBIDDEN:
                    renewed = self.given.renew(url) if renewed is None else renewed
                    if not renewed:
                        continue  # the next signature would be the same
                if (seconds := patience[number].after(outcome)) is not None:
                    self.stats.retry(outcome.cause)
                    again.append(number)
                    pauses.append(seconds)
            open_ = again
            if open_:
                self._pause(max(pauses))
        return found

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
        with self._turns.taken(1):
            signed, causes = self._signed(url, causes)
            return LOOP.run(self._received(url, signed, begin, headers or {}, posted, causes, patient))

    def _signed(self, url: str, causes: Causes | None = None) -> tuple[SignedRequest, Causes]:
        """Return a request for a URL with its signature, and causes of what may be the answer."""
        parse(url)  # before it is signed
        given, signed = self.given.uses(url), self.given.sign(url)
        self.reach.check(signed.url)  # here, since it may ask a name server
        expired = {400: Cause.FORBIDDEN} if given else {}  # as S3 and GCS say of a signature
        return signed, {**expired, **(causes or {})}

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
        from tessera_cli.net.failures import FAILURES, failure

        answer, begun = None, time.monotonic()
        try:
            async with (
                self._deadlines.within(retries.TOTAL_TIMEOUT * retries.TIME_SCALE) as deadline,
                self._transport.asking(signed, headers, posted, deadline) as answer,
            ):
                if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                    raise _since(begun, _refusal(answer, url, causes))
                take = begin(answer)
                async for piece in answer.pieces(patient=patient):
                    if not take(piece):
                        break
                return answer
        except OverError as error:
            raise _since(begun, self._late(url)) from error
        except FAILURES as error:
            raise _since(begun, failure(url, error)) from error
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
    ) -> Response:
        """Send one request, as `receive` does, and return the body, of at most `most` bytes."""
        body = Body(most)
        answer = self.receive(url, body.begin, headers, posted, causes)
        if body.too_long:
            raise _too_large(url, f"{most >> 20} MB")
        return body.response(answer, url)

    def fetch_parts(self, url: str, parts: Sequence[tuple[Span, Mapping[str, str]]]) -> list[Response | Exception]:
        """Return what `fetch` returns or raises for each of several parts of a file, asked for side by side.

        `parts`: spans, and the headers that ask for them.
        """
        found: list[Response | Exception] = []
        most = min(PARTS, self._turns.most)
        for start in range(0, len(parts), most):
            some = parts[start : start + most]
            with self._turns.taken(len(some)):
                found += self._side_by_side(url, some)
        return found

    def _side_by_side(self, url: str, parts: Sequence[tuple[Span, Mapping[str, str]]]) -> list[Response | Exception]:
        signed, causes = self._signed(url)
        bodies = [Body(MOST, span) for span, _ in parts]

        async def every() -> list[Answer | BaseException]:
            each = (
                self._received(url, signed, body.begin, headers, None, causes, False)
                for body, (_, headers) in zip(bodies, parts, strict=True)
            )
            return await asyncio.gather(*each, return_exceptions=True)

        found: list[Response | Exception] = []
        for body, answer in zip(bodies, LOOP.run(every()), strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            found.append(answer if isinstance(answer, Exception) else body.response(answer, url))
        return found


class _Patience:
    """How often one request is made again."""

    def __init__(self) -> None:
        self._failed: Counter[Cause] = Counter()
        self._begun: float | None = None
        """When the first request that failed began."""

    def after(self, error: RetryableError) -> float | None:
        """Return the seconds after which the request is made again; None if it is not."""
        if error.progress or self._begun is None:
            self._failed, self._begun = Counter(), error.begun
        self._failed[error.cause] += 1
        times = self._failed[error.cause]
        seconds = retries.pause(error.cause, times, retry_after=error.retry_after)
        late = time.monotonic() + seconds > self._begun + retries.RETRY_BUDGET * retries.TIME_SCALE
        return None if late or times > RETRY_POLICIES[error.cause].retries else seconds


def _since(begun: float, error: Exception) -> Exception:
    """Return the error of a request that began then."""
    if isinstance(error, RetryableError):
        error.begun = begun
    return error


def _outcome(attempt: Callable[[], T]) -> T | Exception:
    """Return what a call returns or raises."""
    try:
        return attempt()
    except Exception as error:
        return error


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
