"""Ranges of bytes of files on servers: what was requested and no other bytes, of one version of the file."""

from __future__ import annotations

import base64
import binascii
import http
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError
from tessera_cli.net.address import redact
from tessera_cli.net.bodies import Response, Span
from tessera_cli.net.client import Client
from tessera_cli.net.responses import page_instead, unreachable
from tessera_cli.net.retries import Cause, RetryableError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", re.IGNORECASE | re.ASCII)
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"{")
_MD5_ETAG = re.compile(r'"([0-9a-fA-F]{32})"')
_ENCRYPTION = "x-amz-server-side-encryption"
"""Where S3 says anything but AES256 here, or a customer's algorithm, its ETags look like MD5s and are none."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another: on servers validators (RFC 9110, 8.8), "" where there are none."""

    size: int | None = None
    """None if it is not known."""
    etag: str = ""
    modified: str = ""
    """When the file was last changed."""

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int | None) -> Version:
        return cls(size, headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip())

    def check(self, now: Version, name: str) -> None:
        """Raise ChangedError if `now` is another version of the file of this name.

        An ETag decides alone, where both have one.
        """
        one = other = ""
        if None not in (self.size, now.size) and self.size != now.size:
            one, other = f"{self.size} bytes", f"{now.size} bytes"
        elif self.etag and now.etag:
            one, other = (f"the ETag {each.etag.removeprefix('W/')}" for each in (self, now))
        elif self.modified and now.modified:
            one, other = (f"the date {each.modified}" for each in (self, now))
        if one != other:
            was, now_is = (value[:80] for value in (one, other))
            raise ChangedError(
                f"{redact(name)} changes while it is being read: it has {now_is} now, {was} when it was opened. "
                "Run the command again once it is complete.",
                was=self,
                now=now,
            )

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return the headers of a request for this version alone. Weak ETags may not be used for that."""
        if self.etag and not self.etag.startswith("W/"):
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class ChangedError(SourceUnavailableError):
    """A file is another than when it was opened."""

    def __init__(self, message: str, *, was: Version, now: Version) -> None:
        super().__init__(message)
        self.was, self.now = was, now


@dataclass(frozen=True)
class RangeResponse:
    """A range of bytes of a file."""

    data: bytes
    total: int | None
    """Size of the whole file; None if the server does not tell."""
    version: Version = field(default=Version(), compare=False)
    md5: str | None = field(default=None, compare=False)
    """Of the whole file, in hex, if the server says it."""
    etag_md5: str | None = field(default=None, compare=False)
    """The same from its ETag, which may mean something else."""
    proven: bool = field(default=True, compare=False)
    """Whether the bytes are for sure all that were asked for, or all up to the end of the file."""


def get_range(client: Client, url: str, start: int, length: int, *, known: Version | None = None) -> RangeResponse:
    """Return `length` bytes from `start`, fewer where the file ends before.

    A server that ignores ranges and sends the whole file is understood. `known`: the version of the file to which the
    bytes must belong; ChangedError if the server has another now.
    """
    (found,) = get_ranges(client, url, [(start, length)], known=known)
    if isinstance(found, Exception):
        raise found
    return found


def get_ranges(
    client: Client, url: str, spans: Sequence[Span], *, known: Version | None = None
) -> list[RangeResponse | Exception]:
    """Return what `get_range` returns or raises for each of several ranges, asked for side by side.

    `spans`: first byte and number of bytes of each.
    """

    def ask(numbers: Sequence[int], conditions: Mapping[str, str]) -> list[RangeResponse | Exception]:
        wanted = [spans[number] for number in numbers]
        parts = [(span, {**_headers(span), **conditions}) for span in wanted]
        return [
            _judged(one, url, span, known) for one, span in zip(client.fetch_parts(url, parts), wanted, strict=True)
        ]

    conditions = {} if known is None else known.conditions
    found = client.retrying_all(url, len(spans), lambda numbers: ask(numbers, conditions))
    refused = [number for number, one in enumerate(found) if conditions and _refuses_conditions(one)]
    if refused:
        again = client.retrying_all(url, len(refused), lambda few: ask([refused[n] for n in few], {}))
        for number, one in zip(refused, again, strict=True):  # how it changed, if it did
            found[number] = one
    return [_ended(client, url, span, one) for span, one in zip(spans, found, strict=True)]


def _headers(span: Span) -> Mapping[str, str]:
    return {"Range": f"bytes={span[0]}-{sum(span) - 1}", "Accept-Encoding": "identity"}


def _judged(found: Response | Exception, url: str, span: Span, known: Version | None) -> RangeResponse | Exception:
    try:
        return found if isinstance(found, Exception) else _range_of(found, url, *span, known)
    except (RetryableError, ChangedError) as error:
        return error


def _refuses_conditions(found: RangeResponse | Exception) -> bool:
    return isinstance(found, SourceRefusedError) and found.status == http.HTTPStatus.PRECONDITION_FAILED


def _ended(client: Client, url: str, span: Span, found: RangeResponse | Exception) -> RangeResponse | Exception:
    """Return what was found, unless it is shorter than it was asked for and the file goes on behind it."""
    if isinstance(found, RangeResponse) and found.proven and found.total is None and len(found.data) < span[1]:
        try:
            _check_end(client, url, span[0] + len(found.data))
        except TesseraError as error:
            return error
    return found


def _check_end(client: Client, url: str, end: int) -> None:
    """Raise SourceUnavailableError unless the file ends at `end`, where a part of unknown total size did."""
    try:
        get_range(client, url, end, 1)
    except SourceRefusedError as error:
        if error.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        raise
    raise unreachable(url, EOFError("the server sends less than the range that was requested"))


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None]:
    """Return first byte, last byte and file size of a Content-Range header; -1, -1, None without one.

    The size may be unknown to the server, too (RFC 9110, 14.4).
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])) if found else (-1, -1, None)


def _range_of(response: Response, url: str, start: int, length: int, known: Version | None) -> RangeResponse:
    """Return the requested bytes; RetryableError if they are others, ChangedError if the file is not `known`."""
    partial, body = response.status == http.HTTPStatus.PARTIAL_CONTENT, response.body
    kind = response.headers.get("Content-Type", "")
    page = kind.startswith("text/html" if partial else "text/")
    if page or (not partial and response.beginning.lstrip().lower().startswith(_PAGES)):
        raise RetryableError(Cause.ERROR_PAGE, page_instead(url))
    total = response.size
    if partial:
        first, last, total = content_range(response.headers)
        due = start + length if total is None else min(start + length, total)
        fits = first <= last < due if total is None else last == due - 1  # without a size, the file may end before
        if first != start or not fits or len(body) != last - first + 1:
            early = EOFError(f"the response is not the range that was requested ({len(body)} of {length} bytes)")
            raise RetryableError(Cause.TRUNCATED, unreachable(url, early))
    version = Version.of(response.headers, total)
    if known is not None:
        if not partial and known.size not in (None, total) and not (version.etag or version.modified):
            # Perhaps an error that claims to be the file.
            other = EOFError(f"it has {total} bytes now, {known.size} when it was opened")
            raise RetryableError(Cause.TRUNCATED, unreachable(url, other))
        known.check(version, url)
    md5, etag = _md5(response.headers, not partial or len(body) == total), _MD5_ETAG.fullmatch(version.etag)
    own_key = f"{_ENCRYPTION}-customer-algorithm" in response.headers
    if own_key or response.headers.get(_ENCRYPTION, "AES256") != "AES256":
        etag = None
    etag_md5 = etag[1].lower() if etag else None
    return RangeResponse(body, total, version, md5, etag_md5, proven=partial or response.proven)


def _md5(headers: Mapping[str, str], whole: bool) -> str | None:
    """Return the MD5 of the whole file in hex, as Azure, Google and servers after RFC 1864 tell it.

    Content-MD5 beside a part of a file is of that part or of the whole, depending on the server.
    """
    hashes = dict(each.strip().partition("=")[::2] for each in headers.get("x-goog-hash", "").split(","))
    stored = headers.get("x-goog-stored-content-encoding", "identity") == "identity"
    claims = [headers.get("x-ms-blob-content-md5"), hashes.get("md5") if stored else None]
    for claim in [*claims, headers.get("Content-MD5") if whole else None]:
        try:
            digest = base64.b64decode(claim or "", validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(digest) == 16:
            return digest.hex()
    return None
