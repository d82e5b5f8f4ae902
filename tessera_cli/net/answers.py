"""The answer to a request: its body in small pieces, unpacked, and whether all of it has come."""

from __future__ import annotations

import asyncio
import functools
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from tessera_cli.net import retries
from tessera_cli.net.deadlines import Deadline

PIECE = 1 << 16
"""Bytes that are unpacked at once."""
_SIZE = re.compile(r"[0-9]{1,18}")
_GZIP = b"\x1f\x8b"
_PACKINGS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
"""What changes the bytes. Stores say other words, too, such as `aws-chunked`, `utf-8` or `binary`, which do not."""


class EncodingError(Exception):
    """A body that is packed in a way that was not asked for."""


@dataclass
class Answer:
    """The answer to one request, whose body is read once."""

    response: aiohttp.ClientResponse = field(repr=False)
    headers: Mapping[str, str]
    """By names in any case."""
    url: str
    """Where it was found, after redirects."""
    redirected: bool
    deadline: Deadline
    received: int = 0
    """Bytes of the body so far, as they were sent."""
    proven: bool = False
    """Whether all of the body has come for sure: by its length, its last chunk or the end of its packing."""

    @property
    def status(self) -> int:
        return self.response.status

    @functools.cached_property
    def length(self) -> int | None:
        """Return the bytes of the body as they are sent, as its header tells; None if it does not, or not clearly."""
        told = self.headers.get("Content-Length", "").strip()
        return int(told) if _SIZE.fullmatch(told) and not self._chunked else None

    @property
    def packed(self) -> bool:
        """Return whether the body is packed for its transfer."""
        return self._encoding != ""

    async def pieces(self, *, patient: bool = False) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, unpacked.

        Raises EOFError if it is shorter than it should be. A `patient` reader gives another TOTAL_TIMEOUT for every
        PROGRESS bytes.
        """
        unpacked = _Gzip() if self.packed else None
        if unpacked and self._encoding not in ("gzip", "x-gzip"):
            raise EncodingError(self._encoding[:20])
        until = retries.PROGRESS
        while piece := await self._read():
            self.received += len(piece)
            if patient and self.received >= until:
                until = self.received + retries.PROGRESS
                self.deadline.more(retries.TOTAL_TIMEOUT * retries.TIME_SCALE)
            if unpacked:
                for start in range(0, len(piece), PIECE):
                    for each in unpacked.pieces(piece[start : start + PIECE]):
                        yield each
                    await asyncio.sleep(0)  # others have their turn
            else:
                yield piece
        if unpacked and not unpacked.complete:
            raise EOFError(f"the response ended after {self.received} bytes, in the middle of its gzip")
        self.proven = self.length is not None or self._chunked or unpacked is not None

    async def _read(self) -> bytes:
        try:
            return await self.response.content.readany()
        except aiohttp.ServerTimeoutError:
            raise
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            of = "" if self.length is None else f" of {self.length}"
            raise EOFError(f"the response ended after {self.received}{of} bytes") from error

    @functools.cached_property
    def _chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    @functools.cached_property
    def _encoding(self) -> str:
        words = (word.strip() for word in self.headers.get("Content-Encoding", "").lower().split(","))
        return ",".join(word for word in words if word in _PACKINGS)


class _Gzip:
    """Unpacks gzip, however many members it has, and never more than a piece at once."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self._begun = False

    @property
    def complete(self) -> bool:
        return self._member.eof or not self._begun

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yield what the next bytes hold."""
        while packed:
            if self._member.eof:
                if not packed.startswith(_GZIP[:1]):
                    return  # padding
                self._member = zlib.decompressobj(31)
            self._begun = True
            try:
                if piece := self._member.decompress(packed, PIECE):
                    yield piece
            except zlib.error as error:
                raise EOFError(f"the gzip of the response is damaged: {error}") from error
            packed = self._member.unconsumed_tail or self._member.unused_data
