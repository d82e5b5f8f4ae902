"""A server on loopback that says bytes, whatever HTTP would make of them: for answers that never end.

    with RawServer(drip(b"HTTP/1.1 2")) as server:
        Client().get(server.url)

A `Script` has a connection, of which the request has been read, and ends with it.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator

PAUSE = 0.02
"""Seconds between two drops."""
OK = b"HTTP/1.1 200 OK\r\n"
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
"""Of deflate: five bytes for nothing."""

Script = Callable[["RawServer", socket.socket], None]


def drip(beginning: bytes, drops: Iterable[bytes] | None = None) -> Script:
    """The beginning at once, then a drop now and then, without end."""

    def script(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(beginning)
        server.reached.set()
        for drop in itertools.repeat(b"0") if drops is None else drops:
            if server.closing.wait(PAUSE):
                return
            connection.sendall(drop)

    return script


def flood(beginning: bytes, pieces: Iterable[bytes]) -> Script:
    """The beginning, then as much as is taken."""

    def script(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(beginning)
        for piece in pieces:
            connection.sendall(piece)
            server.sent += len(piece)

    return script


def say(*parts: bytes) -> Script:
    """The parts, then an orderly end."""
    return flood(b"", parts)


def silent(server: RawServer, connection: socket.socket) -> None:
    """Nothing."""
    server.reached.set()
    server.closing.wait()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def bomb(megabytes: int) -> bytes:
    """So much of nothing, in gzip: a thousandth of that."""
    return gzip.compress(bytes(megabytes << 20), 9)


ENDLESS: dict[str, Script] = {
    "silence": silent,
    "status line": drip(b"HTTP/1.1 200 "),
    "header": drip(OK + b"X-Slow: "),
    "headers": drip(OK, (b"X-%d: 1\r\n" % n for n in itertools.count())),
    "100 Continue": drip(b"", itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "body": drip(OK + b"Content-Length: 1000000\r\n\r\n"),
    "body without length": drip(OK + b"\r\n"),
    "chunk size": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n0"),
    "chunks": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", itertools.repeat(chunk(b"x"))),
    "trailers": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", itertools.repeat(b"X: 1\r\n")),
    "empty gzip": drip(
        OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\xff", itertools.repeat(EMPTY_BLOCK)
    ),
    "body of a redirect": drip(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 9999\r\n\r\n"),
}
"""Answers that go on as long as somebody listens, each in another state of ours."""


class RawServer:
    """Follows one script for every request; at `url`."""

    def __init__(self, script: Script, *, reads: bool = True, host: str = "127.0.0.1") -> None:
        """`reads`: whether the request is read before the script begins, which one of TLS cannot be."""
        self.script, self.reads = script, reads
        self.reached, self.closing = threading.Event(), threading.Event()
        self.requests: list[bytes] = []
        self.sent = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:  # the client has left: that is what we want
            for head in self._heads(connection):
                self.requests.append(head)
                self.script(self, connection)
                break

    def _heads(self, connection: socket.socket) -> Iterator[bytes]:
        head = b""
        while self.reads and b"\r\n\r\n" not in head:
            more = connection.recv(1 << 16)
            if not more:
                return
            head += more
        yield head

    def __enter__(self) -> RawServer:
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *self._threads):
            thread.join(10)
