"""The body of an answer, or the part of it that was asked for."""

from __future__ import annotations

import functools
import http
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tessera_cli.json_text import parse_json
from tessera_cli.net.address import unsigned

if TYPE_CHECKING:
    from tessera_cli.net.answers import Answer

MOST = 256 << 20
"""Bytes of a whole body, unpacked, beyond which it is not read on."""
_BEGINNING = 100
Take = Callable[[bytes], bool]
"""Takes a piece of a body, and returns whether more is wanted."""
Span = tuple[int, int]
"""First byte and number of bytes."""


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


class Body:
    """Collects at most `most` bytes of a body, or those of a `span` of it, which the request asks for.

    Of a server that ignores the span no more is kept, and little more read; of one that sends another part at most one
    byte too much.
    """

    def __init__(self, most: int, span: Span | None = None) -> None:
        self._most, self._span = most, span
        self._kept, self._beginning = io.BytesIO(), b""
        self._first = self._end = self._passed = 0
        """Of the bytes as they come: first and end of those that are kept, and how many have come."""

    def begin(self, answer: Answer) -> Take:
        if self._span is None:
            self._end = self._most + 1
        elif answer.status == http.HTTPStatus.OK:
            self._first, self._end = self._span[0], sum(self._span)
        else:
            self._end = self._span[1] + 1
        return self._take

    def _take(self, piece: bytes) -> bool:
        if len(self._beginning) < _BEGINNING:
            self._beginning += piece[: _BEGINNING - len(self._beginning)]
        start, stop = max(0, self._first - self._passed), max(0, self._end - self._passed)
        self._kept.write(piece if start == 0 and stop >= len(piece) else piece[start:stop])
        self._passed += len(piece)
        return self._passed < self._end

    @property
    def too_long(self) -> bool:
        """Return whether the whole was asked for and is longer than it may be."""
        return self._span is None and self._passed > self._most

    def response(self, answer: Answer, url: str) -> Response:
        """Return what has come for a request for `url`."""
        size = None if answer.packed else answer.length
        if size is None and answer.proven:
            size = self._passed
        found = answer.url if answer.redirected and not unsigned(answer.url)[1] else url
        proven = answer.proven or self._passed >= self._end
        return Response(self._kept.getvalue(), answer.headers, answer.status, found, proven, size, self._beginning)
