"""Ranges of bytes of files on servers: what was requested and no other bytes."""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.client import Client, Response, RetryableError
from tessera_cli.net.responses import page_instead, unreachable
from tessera_cli.net.retries import Cause

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE)
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"{")


@dataclass(frozen=True)
class RangeResponse:
    """A range of bytes of a file."""

    data: bytes
    total: int | None
    """Size of the whole file; None if the server does not tell."""
    proven: bool = field(default=True, compare=False)
    """Whether the bytes are for sure all that were asked for, or all up to the end of the file."""


def get_range(client: Client, url: str, start: int, length: int, *, total: int | None = None) -> RangeResponse:
    """Return `length` bytes from `start`, fewer where the file ends before.

    A server that ignores ranges and sends the whole file is understood. `total`: the size that the file had
    before; bytes of a file of another size are no part of it, and requested again.
    """
    headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    found = client.retrying(
        url, lambda: _range_of(client.fetch(url, headers, span=(start, length)), url, start, length, total)
    )
    if found.proven and found.total is None and len(found.data) < length:
        _check_end(client, url, start + len(found.data))
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


def _range_of(response: Response, url: str, start: int, length: int, known: int | None) -> RangeResponse:
    """Return the requested bytes; RetryableError if they are others, or the file is not `known` bytes long."""
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
    if known is not None and total not in (None, known):
        other = EOFError(f"it has {total} bytes now, {known} when it was opened")
        raise RetryableError(Cause.TRUNCATED, unreachable(url, other))
    return RangeResponse(body, total, proven=partial or response.proven)
