"""Read ranges of bytes of a file, from disk or a server, and cache those that are read again."""

from __future__ import annotations

import http
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Generic, TypeVar

from cachetools import LRUCache

from tessera_cli.errors import AbsentError, SourceRefusedError, SourceUnavailableError, reason
from tessera_cli.net import Client, get_range
from tessera_cli.reading import open_file

Range = tuple[int, int]
"""First byte and number of bytes."""
T = TypeVar("T")


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


@dataclass(frozen=True)
class LocalBytes:
    """A file on this machine; errors are those of `Client`."""

    name: str
    """Its path."""

    def first(self, length: int) -> tuple[bytes, int | None]:
        """Return the first `length` bytes, fewer of a shorter file, and the size of the file, if that is known."""
        with self._opened() as file:
            return file.read(length), os.fstat(file.fileno()).st_size

    def read(self, ranges: Sequence[Range], size: int | None) -> list[bytes]:
        """Return the bytes of each range, within the `size` that the file had at first and must still have.

        Where no size is known, fewer bytes come from the end of the file, and none from beyond it.
        """
        with self._opened() as file:
            if os.fstat(file.fileno()).st_size != size:
                raise OSError(f"it no longer has {size} bytes")
            found = []
            for start, length in ranges:
                file.seek(start)
                found.append(file.read(length))
            return found

    def probe(self, size: int) -> None:
        """Read all bytes, a megabyte at a time, for the errors that this may raise."""
        for start in range(0, size, 1 << 20):
            self.read([(start, 1 << 20)], size)

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
            raise SourceUnavailableError(
                f"{self.name} cannot be read: {reason(error)}. Run the command again."
            ) from error


@dataclass(frozen=True)
class HttpBytes:
    """A file on a server."""

    name: str
    """Its URL, unsigned."""
    client: Client
    pool: Executor
    """Where ranges are requested side by side. Nothing else may run there that waits for a range."""

    def first(self, length: int) -> tuple[bytes, int | None]:
        response = get_range(self.client, self.name, 0, length)
        return response.data, response.total

    def read(self, ranges: Sequence[Range], size: int | None) -> list[bytes]:
        """Request ranges side by side and return their bytes; errors of `Client`."""
        if len(ranges) == 1:
            return [self._get(ranges[0], size)]
        requests = [self.pool.submit(self._get, each, size) for each in ranges]
        errors = [error for request in requests if (error := request.exception())]  # after all have ended and counted
        if errors:  # 404 to one range proves nothing while the server fails to answer for another
            raise min(errors, key=lambda error: isinstance(error, AbsentError))
        return [request.result() for request in requests]

    def _get(self, wanted: Range, size: int | None) -> bytes:
        try:
            return get_range(self.client, self.name, *wanted, total=size).data
        except SourceRefusedError as error:
            if size is None and error.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""  # it ends before
            raise


ByteSource = LocalBytes | HttpBytes
