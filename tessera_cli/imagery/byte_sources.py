"""Read ranges of bytes of a file, from disk or a server, and cache those that are read again."""

from __future__ import annotations

import errno
import http
import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Generic, TypeVar

from cachetools import LRUCache

from tessera_cli.errors import AbsentError, SourceRefusedError, SourceUnavailableError, plainly, reason
from tessera_cli.imagery.doubts import Doubts
from tessera_cli.imagery.header import BrokenError
from tessera_cli.net import ChangedError, Client, RangeResponse, RequestStats, Version, get_range, get_ranges
from tessera_cli.net.address import redact
from tessera_cli.reading import open_file

Range = tuple[int, int]
"""First byte and number of bytes."""
T = TypeVar("T")
_NO_FILE = {errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""What the system says of names that stand for no regular file, today and tomorrow."""
MOST_ASKED = 8
"""Times a range is asked for while the answers differ."""


class ByteCache(Generic[T]):
    """Keep at most `limit` bytes, least recently used values going first. Threads may share it."""

    def __init__(self, limit: int, nbytes: Callable[[T], int]) -> None:
        self._held: LRUCache[Hashable, T] = LRUCache(limit, nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            return self._held.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Keep the value, unless it alone is larger than the limit."""
        with self._lock:
            self._held.pop(key, None)
            if self._held.getsizeof(value) <= self._held.maxsize:
                self._held[key] = value

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._held.pop(key, None)


@dataclass(frozen=True)
class LocalBytes:
    """A file on this machine; errors are those of `Client`, and ChangedError."""

    name: str
    """Its path."""
    stats: RequestStats | None = None
    """Where the bytes that are read are counted."""
    doubted = False
    """Disks have checksums of their own."""

    def first(self, length: int) -> RangeResponse:
        """Return the first `length` bytes, fewer of a shorter file."""
        with self._opened() as file:
            version, start = _version(file), file.read(length)
            self._count(len(start))
            return RangeResponse(start, version.size, version)

    def read(self, ranges: Sequence[Range], known: Version, *, checked: bool = False) -> list[bytes]:
        """Return the bytes of each range, within the size of the file, which must be the `known` version.

        `checked`: whether the bytes hold checksums, which the caller verifies. Where no size is known, fewer bytes come
        from the end of the file, and none from beyond it.
        """
        with self._opened() as file:
            found = []
            for start, length in ranges:
                file.seek(start)
                found.append(file.read(length))
            known.check(_version(file), self.name)
            self._count(sum(map(len, found)))
            return found

    def contradiction(self, whole: bytes, first: RangeResponse) -> str | None:
        """Return which checksum of its server contradicts the bytes of the whole file; None: none does."""
        return None

    def probe(self, size: int) -> None:
        """Read all bytes, a megabyte at a time, for the errors that this may raise."""
        with self._opened() as file:
            while file.read(1 << 20) and file.tell() < size:
                pass

    def _count(self, length: int) -> None:
        if self.stats is not None:
            self.stats.local(length)

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        try:
            with open_file(Path(self.name)) as file:
                yield file
        except FileNotFoundError as error:
            raise AbsentError(f"{self.name} does not exist. Check the catalogue.") from error
        except PermissionError as error:
            raise SourceRefusedError(f"{self.name} cannot be read: no permission. Ask its owner.") from error
        except OSError as error:
            if error.errno in _NO_FILE:
                raise BrokenError(plainly(error)) from error
            raise SourceUnavailableError(
                f"{self.name} cannot be read: {reason(error)}. Run the command again."
            ) from error


def _version(file: BufferedReader) -> Version:
    """Return the version of a local file: another file has another inode, a changed one another time."""
    status = os.fstat(file.fileno())
    return Version(status.st_size, f"inode {status.st_ino}, {status.st_mtime_ns} ns")


@dataclass(frozen=True)
class HttpBytes:
    """A file on a server."""

    name: str
    """Its URL, unsigned."""
    client: Client
    doubts: Doubts = field(default_factory=Doubts)

    @property
    def doubted(self) -> bool:
        """Return whether bytes without a checksum are asked for twice."""
        return self.name in self.doubts

    def first(self, length: int) -> RangeResponse:
        found = self._known(get_range(self.client, self.name, 0, length))
        return replace(found, version=self.doubts.version(self.name, found.version))

    def read(self, ranges: Sequence[Range], known: Version, *, checked: bool = False) -> list[bytes]:
        """Request ranges side by side and return their bytes; errors of `Client`, and ChangedError."""
        return self._get(ranges, known) if checked or not self.doubted else self._agreed(ranges, known)

    def contradiction(self, whole: bytes, first: RangeResponse) -> str | None:
        return self.doubts.contradiction(self.name, whole, first)

    def _get(self, ranges: Sequence[Range], known: Version) -> list[bytes]:
        found, errors = [], []
        for one in get_ranges(self.client, self.name, ranges, known=known):
            if isinstance(one, RangeResponse):
                found.append(self._known(one).data)
            elif (
                isinstance(one, SourceRefusedError)
                and known.size is None
                and one.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            ):
                found.append(b"")  # it ends before
            else:
                errors.append(one)
        if errors:  # 404 to one range proves nothing while the server fails to answer for another
            raise min(errors, key=lambda error: (isinstance(error, AbsentError), not isinstance(error, ChangedError)))
        return found

    def _known(self, response: RangeResponse) -> RangeResponse:
        """Return the response, and remember if it may be a part of what the server meant to send."""
        if not response.proven:
            self.doubts.cut(self.name)
        return response

    def _agreed(self, ranges: Sequence[Range], known: Version) -> list[bytes]:
        """Return the bytes of each range that come two times more often than any others.

        Every other request begins a byte earlier, as caches may hold by range what is wrong.
        """
        agreed: dict[int, bytes] = {}
        answers: list[Counter[bytes]] = [Counter() for _ in ranges]
        for nth in range(MOST_ASKED):
            asked = [number for number in range(len(ranges)) if number not in agreed]
            early = {number: min(ranges[number][0], nth % 2) for number in asked}
            wanted = [(ranges[number][0] - early[number], ranges[number][1] + early[number]) for number in asked]
            for number, data in zip(asked, self._get(wanted, known), strict=True):
                answers[number][data[early[number] :]] += 1
                (likely, times), (_, other) = [*answers[number].most_common(2), (b"", 0)][:2]
                if times - other > 1:
                    agreed[number] = likely
            if len(agreed) == len(ranges):
                return [agreed[number] for number in range(len(ranges))]
        raise SourceUnavailableError(f"{redact(self.name)} is answered with other bytes each time. Try again later.")


ByteSource = LocalBytes | HttpBytes
