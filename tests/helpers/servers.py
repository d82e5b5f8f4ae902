"""A web server on loopback that serves a folder, Range requests included, and misbehaves as it is told.

    with FileServer(folder, faults=first(2, status(503), "*.tif")) as server:
        get_range(Client(), f"{server.url}/B04.tif", 0, 100)
    assert [exchange.status for exchange in server.log] == [503, 503, 206]

A `Fault` takes the honest reply to a request and delivers something else; a `Plan` decides which request meets which.
"""

from __future__ import annotations

import contextlib
import email.utils
import fnmatch
import hashlib
import http.server
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tessera_cli.net import SignedRequest, retries

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>" * 20
"""What proxies and login services put in place of data."""


@dataclass(frozen=True)
class Request:
    """One question."""

    path: str
    """Within the folder."""
    range: tuple[int, int] | None
    """First and last byte; the last as asked, beyond the end of the file or not."""
    nth: int = 0
    """How often the same path and range were asked for before."""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass
class Exchange:
    """An entry of the server's log."""

    request: Request
    status: int | None = None
    """None: the connection ended without an answer."""
    sent: int = 0
    """Bytes of the body that were sent."""

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def range(self) -> tuple[int, int] | None:
        return self.request.range


@dataclass(frozen=True)
class Reply:
    """What a server that is well would say."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Fault = Callable[["Handler", Reply], None]
Plan = Callable[[Request], Fault | None]


# --- faults -----------------------------------------------------------------------------------------------------------


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    """The code in place of the file; `headers` such as Retry-After or Location."""
    body = b"" if code in (204, 304) else b"No."  # those have none
    return lambda handler, reply: handler.send(Reply(code, {"Content-Type": "text/plain", **(headers or {})}, body))


def reset(handler: Handler, reply: Reply) -> None:
    """The connection is reset before the answer begins."""
    handler.abort()


def reset_midway(handler: Handler, reply: Reply) -> None:
    """The connection is reset after half of the body."""
    handler.head(reply)
    handler.write(reply.body[: len(reply.body) // 2])
    handler.abort()


def truncated(handler: Handler, reply: Reply) -> None:
    """Half of the body with the Content-Length of the whole, then an orderly end."""
    handler.head(reply)
    handler.write(reply.body[: len(reply.body) // 2])
    handler.close_connection = True


def silent(handler: Handler, reply: Reply) -> None:
    """No answer, ever."""
    handler.wait()


def stalled(handler: Handler, reply: Reply) -> None:
    """Half of the body, then nothing."""
    handler.head(reply)
    handler.write(reply.body[: len(reply.body) // 2])
    handler.wait()


def trickle(seconds: float, pieces: int = 1000) -> Fault:
    """The body comes in pieces with pauses, `seconds` in all: the connection is never silent for long."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.head(reply)
        size = max(1, len(reply.body) // pieces)
        for start in range(0, len(reply.body), size):
            if handler.server.closing.wait(seconds * size / len(reply.body)):
                return
            handler.write(reply.body[start : start + size])

    return fault


def late(seconds: float) -> Fault:
    """The honest answer, but not at once."""

    def fault(handler: Handler, reply: Reply) -> None:
        time.sleep(seconds)
        handler.send(reply)

    return fault


def page(handler: Handler, reply: Reply) -> None:
    """A web page with status 200."""
    handler.send(Reply(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE))


def page_as_data(handler: Handler, reply: Reply) -> None:
    """A web page with status 200 that claims to be the file's kind."""
    handler.send(Reply(200, {"Content-Type": "image/tiff"}, PAGE))


def wrong_range(handler: Handler, reply: Reply) -> None:
    """As many bytes as asked for, from another place of the file."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers.get("Content-Range", ""))
    if found:
        first, last, total = (int(number) for number in found.groups())
        reply = replace(reply, headers={**reply.headers, "Content-Range": f"bytes {first + 1}-{last + 1}/{total}"})
    handler.send(reply)


def unranged(handler: Handler, reply: Reply) -> None:
    """The whole file, whatever range was asked for: legal, and to be understood."""
    handler.send(handler.server.honest(replace(handler.exchange.request, range=None)))


def with_etag(path: Path, content: bytes) -> Mapping[str, str]:
    """As S3 does it: a new one for new content."""
    return {"ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'}


def with_opaque_etag(path: Path, content: bytes) -> Mapping[str, str]:
    """As Azure does it."""
    return {"ETag": f'"0x{hashlib.md5(content, usedforsecurity=False).hexdigest()[:16]}"'}


def with_date(path: Path, content: bytes) -> Mapping[str, str]:
    return {"Last-Modified": email.utils.formatdate(path.stat().st_mtime, usegmt=True)}


def untold(handler: Handler, reply: Reply) -> None:
    """The range, without the size of the whole file: legal, and to be understood."""
    headers = dict(reply.headers)
    if reply.status == 206:
        headers["Content-Range"] = headers["Content-Range"].rpartition("/")[0] + "/*"
    handler.send(replace(reply, headers=headers))


# --- plans ------------------------------------------------------------------------------------------------------------


def never(request: Request) -> None:
    return None


def always(fault: Fault, where: str = "*") -> Plan:
    """Every request for paths that match the pattern."""
    return lambda request: fault if fnmatch.fnmatch(request.path, where) else None


def first(times: int, fault: Fault, where: str = "*") -> Plan:
    """The first requests for each range of each file that matches: a fault that ends."""
    return lambda request: fault if request.nth < times and fnmatch.fnmatch(request.path, where) else None


def after(number: int, fault: Fault) -> Plan:
    """Every request after the first `number`."""
    count = itertools.count()
    return lambda request: fault if next(count) >= number else None


# --- tokens -----------------------------------------------------------------------------------------------------------


class Tokens:
    """Signatures of which each is good for so many requests, and the `Signer` that asks for new ones."""

    def __init__(self, uses: int, *, renewable: bool = True) -> None:
        self.uses, self.renewable = uses, renewable
        self._lock = threading.Lock()
        self._issued, self._left = 0, uses
        self.all: list[str] = []
        """That were ever issued: none of them may be seen outside of requests."""
        self._issue()

    def _issue(self) -> None:
        self._issued += 1
        self._left = self.uses
        self.all.append(f"secret-{self._issued}-of-a-signature")

    def accepts(self, query: str) -> bool:
        with self._lock:
            good = parse_qs(query).get("token") == self.all[-1:] and self._left > 0
            self._left -= good
            return good

    def sign(self, href: str) -> SignedRequest:
        with self._lock:
            return SignedRequest(f"{href}?token={self.all[-1]}")

    def renew(self, href: str) -> bool:
        with self._lock:
            if self.renewable and self._left <= 0:  # else another thread was quicker
                self._issue()
            return self.renewable

    def stop(self) -> None: ...


# --- the server -------------------------------------------------------------------------------------------------------


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `folder` at `url`; `faults` and `latency` may be changed between requests."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self, folder: Path, *, faults: Plan = never, latency: float = 0.0, tokens: Tokens | None = None
    ) -> None:
        self.folder, self.faults, self.latency, self.tokens = folder, faults, latency, tokens
        self.validators: Callable[[Path, bytes], Mapping[str, str]] = lambda path, content: {}
        """Headers such as ETag and Last-Modified of a file; requests may name them as conditions."""
        self.log: list[Exchange] = []
        self.lock = threading.Lock()
        self.accepted = 0
        """Number of connections so far."""
        self.connections: set[socket.socket] = set()
        self.closing = threading.Event()
        self._asked: Counter[tuple[str, tuple[int, int] | None]] = Counter()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def forget(self) -> None:
        """Start over: an empty log, and every request is the first of its kind."""
        with self.lock:
            self.log.clear()
            self._asked.clear()

    def __enter__(self) -> FileServer:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def arrived(self, target: str, headers: Mapping[str, str]) -> tuple[Exchange, Fault | None]:
        """Enter a request into the log; what shall go wrong with it."""
        parts = urlsplit(target)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        path, asked = parts.path.lstrip("/"), (int(found[1]), int(found[2] or 1 << 60)) if found else None
        with self.lock:
            request = Request(path, asked, self._asked[path, asked], parts.query, headers)
            self._asked[path, asked] += 1
            self.log.append(Exchange(request))
            return self.log[-1], self.faults(request)

    def honest(self, request: Request) -> Reply:
        """What a server that is well would say."""
        kind = {"Content-Type": "image/tiff" if request.path.endswith(".tif") else "application/json"}
        path = self.folder / request.path
        if not path.is_file():
            return Reply(404, kind, b"No such file.")
        content = path.read_bytes()
        kind |= (now := self.validators(path, content))
        for condition, name in (("If-Match", "ETag"), ("If-Unmodified-Since", "Last-Modified")):
            if condition in request.headers and request.headers[condition] != now.get(name):
                return Reply(412, kind, b"It has changed.")
        if request.range is None:
            return Reply(200, {**kind, "Accept-Ranges": "bytes"}, content)
        start, last = request.range[0], min(request.range[1], len(content) - 1)
        if start > last:
            return Reply(416, {**kind, "Content-Range": f"bytes */{len(content)}"}, b"")
        return Reply(206, {**kind, "Content-Range": f"bytes {start}-{last}/{len(content)}"}, content[start : last + 1])


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: FileServer
    exchange: Exchange
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.accepted += 1
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has left: no fault of ours
            super().handle()

    def do_GET(self) -> None:
        self.exchange, fault = self.server.arrived(self.path, dict(self.headers.items()))
        time.sleep(self.server.latency)
        request, tokens = self.exchange.request, self.server.tokens
        if fault is None and tokens is not None and not tokens.accepts(request.query):
            fault = status(403)
        (fault or Handler.send)(self, self.server.honest(request))

    def head(self, reply: Reply) -> None:
        """Status and headers, with the length of the body."""
        self.exchange.status = reply.status
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, data: bytes) -> None:
        self.exchange.sent += len(data)
        self.wfile.write(data)

    def send(self, reply: Reply) -> None:
        self.head(reply)
        self.write(reply.body)

    def abort(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def wait(self) -> None:
        """Until the client leaves."""
        self.close_connection = True
        self.connection.recv(1)

    def log_message(self, format: str, *args: object) -> None:
        pass


def hurry(patch: pytest.MonkeyPatch, *, silence: float = 20.0) -> None:
    """Pauses last a hundredth. Time limits stay out of the way of busy machines, unless `silence` (seconds without a
    byte; four times that for a whole answer, eight times for a question) makes them bite."""
    patch.setattr(retries, "TIME_SCALE", 0.01)
    for name, times in {"CONNECT_TIMEOUT": 1, "READ_TIMEOUT": 1, "TOTAL_TIMEOUT": 4, "RETRY_BUDGET": 8}.items():
        patch.setattr(retries, name, times * silence / retries.TIME_SCALE)


def served(items: Path, server: FileServer) -> None:
    """Rewrite an item list in the server's folder: assets with relative hrefs are fetched from the server."""
    collection = json.loads(items.read_text())
    for asset in (asset for item in collection["features"] for asset in item["assets"].values()):
        asset["href"] = server.url + "/" + asset["href"].removeprefix("./")
    items.write_text(json.dumps(collection))
